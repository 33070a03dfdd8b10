//! The log: records one after the other in a ring, each whole or not there.

use super::core::LeafKey;
use super::hot::{Mark, RegionKey};
use super::sums::{BLOCKS, Sums};
use super::tables::{ChunkIndex, ChunkNumber, SliceNumber};
use crate::superblock::{Geometry, LogStart, digest};
use std::sync::Arc;
use weft_block::{AlignedBuf, BLOCK, DiskError, ErrorKind, Medium, Write};
use weft_spec::drive::Config;
use weft_spec::ids::{Boot, FencePair, Term};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

const MAGIC: u32 = u32::from_le_bytes(*b"WLOG");
const HEADER: usize = size_of::<RawHeader>();

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    magic: U32,
    /// CRC32C of header and body with this field zero.
    checksum: U32,
    length: U32,
    reserved: U32,
    epoch: U64,
    sequence: U64,
}

/// One fact in a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Entry {
    /// The region is about to be written.
    Heat(RegionKey, Mark),
    /// The slice has this chunk; its data may not be durable.
    Allocate(SliceNumber, ChunkIndex, ChunkNumber),
    /// The slice does not have the chunk any more, since this config.
    Unmap(SliceNumber, ChunkIndex, ChunkNumber, Config),
    /// What has no chunk in this leaf of the map may be zeros only since this config.
    Void(LeafKey, Config),
    /// These blocks of the slice's chunk are not what was written.
    Suspect(SliceNumber, ChunkIndex, u16),
    /// What the blocks of a chunk are, as of a flush.
    Sums {
        /// Whose it is.
        slice: SliceNumber,
        /// Where in it.
        index: ChunkIndex,
        /// The chunk.
        chunk: ChunkNumber,
        /// The chunk is new to the slice, and durable before this record.
        settled: bool,
        /// The blocks.
        sums: Sums,
    },
}

impl Entry {
    /// Most bytes of one.
    pub const MOST: usize = 24 + 4 * BLOCKS;

    pub(super) fn encode(&self, to: &mut Vec<u8>) {
        let mut words = |tag: u8, words: &[u32]| {
            to.push(tag);
            words
                .iter()
                .for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
        };
        match self {
            Self::Heat((slice, region), mark) => {
                words(1, &[slice.0, *region]);
                for number in [mark.pair.term.0, mark.pair.boot.0, mark.number] {
                    to.extend_from_slice(&number.to_le_bytes());
                }
            }
            Self::Allocate(slice, index, chunk) => words(2, &[slice.0, index.0, chunk.0]),
            Self::Unmap(slice, index, chunk, stamp) => {
                words(3, &[slice.0, index.0, chunk.0]);
                to.extend_from_slice(&stamp.0.to_le_bytes());
            }
            Self::Suspect(slice, index, mask) => {
                words(6, &[slice.0, index.0]);
                to.extend_from_slice(&mask.to_le_bytes());
            }
            Self::Void((slice, leaf), stamp) => {
                words(7, &[slice.0, *leaf]);
                to.extend_from_slice(&stamp.0.to_le_bytes());
            }
            Self::Sums {
                slice,
                index,
                chunk,
                settled,
                sums,
            } => {
                words(if *settled { 5 } else { 4 }, &[slice.0, index.0, chunk.0]);
                to.extend_from_slice(&sums.stamp.0.to_le_bytes());
                to.extend_from_slice(&sums.mask.to_le_bytes());
                let known = (0..BLOCKS).filter(|block| sums.mask & 1 << block != 0);
                known.for_each(|block| to.extend_from_slice(&sums.blocks[block].to_le_bytes()));
            }
        }
    }

    fn decode(from: &mut &[u8]) -> Option<Self> {
        let tag = take::<1>(from)?[0];
        let mut word = || Some(u32::from_le_bytes(take(from)?));
        let first = (SliceNumber(word()?), word()?);
        if tag == 1 {
            let mut number = || Some(u64::from_le_bytes(take(from)?));
            let pair = FencePair {
                term: Term(number()?),
                boot: Boot(number()?),
            };
            let number = number()?;
            return Some(Self::Heat(first, Mark { pair, number }));
        }
        if tag == 6 {
            let mask = u16::from_le_bytes(take(from)?);
            return Some(Self::Suspect(first.0, ChunkIndex(first.1), mask));
        }
        if tag == 7 {
            let stamp = Config(u64::from_le_bytes(take(from)?));
            return Some(Self::Void(first, stamp));
        }
        let (slice, index, chunk) = (first.0, ChunkIndex(first.1), ChunkNumber(word()?));
        match tag {
            2 => Some(Self::Allocate(slice, index, chunk)),
            3 => {
                let stamp = Config(u64::from_le_bytes(take(from)?));
                Some(Self::Unmap(slice, index, chunk, stamp))
            }
            4 | 5 => {
                let stamp = Config(u64::from_le_bytes(take(from)?));
                let mask = u16::from_le_bytes(take(from)?);
                let mut blocks = [0; BLOCKS];
                for block in (0..BLOCKS).filter(|block| mask & 1 << block != 0) {
                    blocks[block] = u32::from_le_bytes(take(from)?);
                }
                Some(Self::Sums {
                    slice,
                    index,
                    chunk,
                    settled: tag == 5,
                    sums: Sums {
                        mask,
                        blocks,
                        stamp,
                    },
                })
            }
            _ => None,
        }
    }
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (bytes, rest) = from.split_first_chunk::<N>()?;
    *from = rest;
    Some(*bytes)
}

/// Reads the body of a record; none if it is not one that [`Entry`] writes.
pub fn decode_body(mut body: &[u8]) -> Option<Vec<Entry>> {
    let mut entries = Vec::new();
    while !body.is_empty() {
        entries.push(Entry::decode(&mut body)?);
    }
    Some(entries)
}

/// The ring.
pub struct Log {
    medium: Arc<dyn Medium>,
    start: u64,
    size: u64,
    next: LogStart,
    used: u64,
}

impl Log {
    /// The log of this drive from here on, with nothing in it.
    pub fn new(medium: Arc<dyn Medium>, geometry: &Geometry, next: LogStart) -> Self {
        Self {
            medium,
            start: geometry.log_start,
            size: geometry.log_size,
            next,
            used: 0,
        }
    }

    /// Where the next record goes.
    pub fn next(&self) -> LogStart {
        self.next
    }

    /// Whether it should be folded before another batch of at most a quarter of it.
    pub fn is_half_full(&self) -> bool {
        self.used > self.size / 2
    }

    /// Says that everything before the next record is folded, and that the superblock says so.
    pub fn folded(&mut self) {
        self.used = 0;
    }

    /// Writes a record; durable after the next flush.
    pub fn append(&mut self, entries: &[Entry]) -> Result<(), DiskError> {
        let mut bytes = vec![0; HEADER];
        entries.iter().for_each(|entry| entry.encode(&mut bytes));
        self.append_record(bytes)
    }

    /// Writes a record of this body, whatever it says.
    pub(super) fn append_body(&mut self, body: &[u8]) -> Result<(), DiskError> {
        self.append_record([&[0; HEADER], body].concat())
    }

    /// Writes the header into its place at the start of `bytes`, and these to the medium.
    fn append_record(&mut self, mut bytes: Vec<u8>) -> Result<(), DiskError> {
        let length = bytes.len() - HEADER;
        let mut header = RawHeader {
            magic: MAGIC.into(),
            checksum: 0.into(),
            length: u32::try_from(length).unwrap_or(u32::MAX).into(),
            reserved: 0.into(),
            epoch: self.next.epoch.into(),
            sequence: self.next.sequence.into(),
        };
        bytes[..HEADER].copy_from_slice(header.as_bytes());
        header.checksum = digest(&bytes).into();
        bytes[..HEADER].copy_from_slice(header.as_bytes());
        let image = AlignedBuf::copy_of(&bytes);
        let length = image.len() as u64;
        let skipped = match self.next.offset + length > self.size {
            true => self.size - self.next.offset,
            false => 0,
        };
        if self.used + skipped + length > self.size {
            return Err(DiskError::new(ErrorKind::MediaWrite, "the log is full"));
        }
        let at = if skipped > 0 { 0 } else { self.next.offset };
        self.medium
            .write_at(self.start + at, &image, Write::Cached)?;
        self.used += skipped + length;
        self.next.offset = (at + length) % self.size;
        self.next.sequence += 1;
        Ok(())
    }

    /// Goes over what is in the log already, up to the first record that is not whole.
    pub fn replay(&mut self, mut record: impl FnMut(u64, Vec<Entry>)) -> Result<(), DiskError> {
        loop {
            let mut found = self.read(self.next.offset)?;
            let mut at = self.next.offset;
            let mut skipped = 0;
            if found.is_none() && at != 0 {
                (skipped, at) = (self.size - at, 0);
                found = self.read(0)?;
            }
            let Some((entries, length)) = found else {
                return Ok(());
            };
            if self.used + skipped + length > self.size {
                return Ok(());
            }
            record(self.next.sequence, entries);
            self.used += skipped + length;
            self.next.offset = (at + length) % self.size;
            self.next.sequence += 1;
        }
    }

    fn read(&self, at: u64) -> Result<Option<(Vec<Entry>, u64)>, DiskError> {
        let mut block = AlignedBuf::zeroed(BLOCK as usize);
        self.medium.read_at(self.start + at, &mut block)?;
        let Ok((header, _)) = RawHeader::ref_from_prefix(&block) else {
            return Ok(None);
        };
        let length = HEADER + header.length.get() as usize;
        let padded = (length as u64).next_multiple_of(BLOCK);
        let mine = header.magic.get() == MAGIC
            && (header.epoch.get(), header.sequence.get()) == (self.next.epoch, self.next.sequence);
        if !mine || at + padded > self.size {
            return Ok(None);
        }
        let checksum = header.checksum.get();
        let mut image = AlignedBuf::zeroed(padded as usize);
        self.medium.read_at(self.start + at, &mut image)?;
        image[4..8].fill(0);
        let Some(record) = image.get(..length) else {
            return Ok(None);
        };
        if digest(record) != checksum {
            return Ok(None);
        }
        Ok(decode_body(&record[HEADER..]).map(|entries| (entries, padded)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_block::MemoryDisk;

    fn heat(region: u32) -> Entry {
        Entry::Heat((SliceNumber(1), region), Mark::default())
    }

    fn world() -> (Arc<MemoryDisk>, Geometry) {
        let geometry = Geometry::of(32 << 20).unwrap();
        let log_size = 8 * BLOCK;
        (
            Arc::new(MemoryDisk::new(32 << 20)),
            Geometry {
                log_size,
                ..geometry
            },
        )
    }

    fn regions(log: &mut Log) -> Vec<u32> {
        let mut found = vec![];
        log.replay(|_, entries| {
            found.extend(entries.iter().map(|entry| match entry {
                Entry::Heat((_, region), _) => *region,
                _ => panic!("{entry:?}"),
            }));
        })
        .unwrap();
        found
    }

    #[test]
    fn records_come_back_around_the_ring_and_end_at_the_first_that_is_torn() {
        let (medium, geometry) = world();
        let mut log = Log::new(medium.clone(), &geometry, LogStart::default());
        for region in 0..6 {
            log.append(&[heat(region)]).unwrap();
        }
        log.folded();
        let start = log.next();
        let long: Vec<_> = (0..200).map(|_| heat(9)).collect();
        log.append(&long).unwrap();
        for region in [10, 11] {
            log.append(&[heat(region)]).unwrap();
        }
        for _ in 0..2 {
            log.append(&long).unwrap();
        }
        assert!(log.append(&long).is_err(), "full");
        let mut again = Log::new(medium.clone(), &geometry, start);
        assert_eq!(regions(&mut again)[199..203], [9, 10, 11, 9]);
        assert_eq!(again.next(), log.next());
        let torn = geometry.log_start;
        let mut block = AlignedBuf::zeroed(BLOCK as usize);
        medium.read_at(torn, &mut block).unwrap();
        block[40] ^= 1;
        medium.write_at(torn, &block, Write::Cached).unwrap();
        let mut again = Log::new(medium.clone(), &geometry, start);
        assert_eq!(regions(&mut again).len(), 200);
        let other = LogStart { epoch: 1, ..start };
        assert!(regions(&mut Log::new(medium, &geometry, other)).is_empty());
    }

    #[test]
    fn entries_read_back_and_no_bytes_break_the_reader() {
        let mut sums = Sums {
            mask: 0b1000_0000_0000_0101,
            stamp: Config(9),
            ..Sums::default()
        };
        (sums.blocks[0], sums.blocks[2], sums.blocks[15]) = (1, 2, 3);
        let (slice, index, chunk) = (SliceNumber(1), ChunkIndex(2), ChunkNumber(3));
        let entries = [
            heat(4),
            Entry::Allocate(slice, index, chunk),
            Entry::Unmap(slice, index, chunk, Config(5)),
            Entry::Suspect(slice, index, 0b101),
            Entry::Void((slice, 6), Config(7)),
            Entry::Sums {
                slice,
                index,
                chunk,
                settled: true,
                sums,
            },
        ];
        let mut body = vec![];
        entries.iter().for_each(|entry| entry.encode(&mut body));
        assert_eq!(decode_body(&body).unwrap(), entries);
        assert!(body.len() <= entries.len() * Entry::MOST);
        for end in 0..body.len() {
            let _ = decode_body(&body[..end]);
            let mut changed = body.clone();
            changed[end] ^= 0xff;
            let _ = decode_body(&changed);
        }
    }
}
