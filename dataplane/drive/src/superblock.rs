//! The superblock: two copies in the first MiB, written in turn (on-disk format 1,
//! `docs/decisions/013-on-disk-format-1.md`).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use uuid::Uuid;
use weft_block::{AlignedBuf, DiskError, Medium, Write};
use weft_spec::ids::{ClusterUid, DocumentGeneration, DriveUid};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything on the medium. 0 had no checksums of data, no stamps and no log.
pub const FORMAT: u32 = 1;
/// Bytes of a chunk.
pub const CHUNK: u64 = 64 << 10;
/// Smallest medium that is worth the metadata.
pub const SMALLEST: u64 = 32 << 20;

const MAGIC: [u8; 8] = *b"WEFTDRV\0";
const MIB: u64 = 1 << 20;
/// Where the two copies are.
const COPIES: [u64; 2] = [0, CHUNK];
/// Bytes of metadata that every drive has at least; with a 512th of the medium it is twice what
/// a full chunk map, its copy-on-write and the store's growth by doubling can take.
const METADATA_FLOOR: u64 = 16 * MIB;
const METADATA_SHARE: u64 = 512;
/// Bytes of the log that every drive has at least.
const LOG_FLOOR: u64 = 4 * MIB;
const LOG_SHARE: u64 = 1024;
/// More than this is never waiting to be folded.
const LOG_MOST: u64 = 64 * MIB;
/// Chunks whose checksums share a page.
pub const CHUNKS_PER_PAGE: u64 = 56;
/// Two copies of a checksum page.
pub const PAGE_PAIR: u64 = 2 * weft_block::BLOCK;
const BLOCK: usize = weft_block::BLOCK as usize;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Raw {
    magic: [u8; 8],
    /// CRC32C of the whole block with this field zero.
    checksum: U32,
    format: U32,
    counter: U64,
    drive: [u8; 16],
    cluster: [u8; 16],
    chunk: U64,
    metadata_start: U64,
    metadata_size: U64,
    data_start: U64,
    chunks: U64,
    metadata_length: U64,
    document_generation: U64,
    log_start: U64,
    log_size: U64,
    sums_start: U64,
    log_epoch: U64,
    log_offset: U64,
    log_sequence: U64,
    session: [u8; 16],
    incarnation: [u8; 16],
    clean: U64,
    rest: [u8; BLOCK - 200],
}

const _: () = assert!(size_of::<Raw>() == BLOCK);

/// Where things are on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// First byte of the metadata region.
    pub metadata_start: u64,
    /// Bytes of the metadata region.
    pub metadata_size: u64,
    /// First byte of the log.
    pub log_start: u64,
    /// Bytes of the log.
    pub log_size: u64,
    /// First byte of the checksum area.
    pub sums_start: u64,
    /// First byte of chunk 0.
    pub data_start: u64,
    /// Number of chunks.
    pub chunks: u64,
}

impl Geometry {
    /// The layout of a new drive of `size` bytes, if that is enough.
    pub fn of(size: u64) -> Option<Self> {
        let metadata_size = METADATA_FLOOR + size / METADATA_SHARE / MIB * MIB;
        let log_size = (LOG_FLOOR + size / LOG_SHARE / MIB * MIB).min(LOG_MOST);
        let geometry = Self::with(size, metadata_size, log_size)?;
        (size >= SMALLEST).then_some(geometry)
    }

    /// The layout with these regions.
    pub(crate) fn with(size: u64, metadata_size: u64, log_size: u64) -> Option<Self> {
        let log_start = MIB + metadata_size;
        let sums_start = log_start + log_size;
        let left = size.checked_sub(sums_start)?;
        // As many groups of chunks with their pair of pages as fit, then the part of one more.
        let group = CHUNKS_PER_PAGE * CHUNK + PAGE_PAIR;
        let rest = (left % group).saturating_sub(PAGE_PAIR + CHUNK) / CHUNK;
        let chunks = left / group * CHUNKS_PER_PAGE + rest;
        let pages = chunks.div_ceil(CHUNKS_PER_PAGE) * PAGE_PAIR;
        let data_start = (sums_start + pages).next_multiple_of(CHUNK);
        let chunks = chunks.min(size.checked_sub(data_start)? / CHUNK);
        let fits = chunks > 0 && chunks < u64::from(u32::MAX);
        fits.then_some(Self {
            metadata_start: MIB,
            metadata_size,
            log_start,
            log_size,
            sums_start,
            data_start,
            chunks,
        })
    }

    fn is_sane(&self, size: u64) -> bool {
        let data = self
            .chunks
            .checked_mul(CHUNK)
            .and_then(|data| data.checked_add(self.data_start));
        let metadata = self.metadata_start.checked_add(self.metadata_size);
        let log = self.log_start.checked_add(self.log_size);
        let pages = self
            .chunks
            .div_ceil(CHUNKS_PER_PAGE)
            .checked_mul(PAGE_PAIR)
            .and_then(|pages| pages.checked_add(self.sums_start));
        let blocks = [self.log_start, self.log_size, self.sums_start];
        self.metadata_start >= MIB
            && self.chunks > 0
            && self.chunks < u64::from(u32::MAX)
            && self.log_size >= 4 * weft_block::BLOCK
            && blocks.iter().all(|at| at.is_multiple_of(weft_block::BLOCK))
            && metadata.is_some_and(|end| end <= self.log_start)
            && log.is_some_and(|end| end <= self.sums_start)
            && pages.is_some_and(|end| end <= self.data_start)
            && data.is_some_and(|end| end <= size)
    }
}

/// What the superblock says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Grows with each write of it.
    pub counter: u64,
    /// Whose medium it is.
    pub drive: DriveUid,
    /// The cluster that the drive belongs to.
    pub cluster: ClusterUid,
    /// Where things are.
    pub geometry: Geometry,
    /// Bytes of the metadata region in use.
    pub metadata_length: u64,
    /// Greatest document generation accepted.
    pub document_generation: DocumentGeneration,
    /// Kernel boot and device that last served it. While it is the same, nothing that was
    /// written can be gone.
    pub session: Uuid,
    /// Changes only when acknowledged bytes may be gone.
    pub incarnation: Uuid,
    /// Closed in order: everything is durable and folded.
    pub clean: bool,
    /// Where the log goes on.
    pub log: LogStart,
}

/// Where the first record lies that is not known to be folded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStart {
    /// Records of another epoch do not count.
    pub epoch: u64,
    /// Bytes from the start of the log.
    pub offset: u64,
    /// Of that record.
    pub sequence: u64,
}

/// What the two copies say together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Copies {
    /// The newest good one.
    Good(Superblock),
    /// Weft's mark is there, in a format that this program does not know.
    OtherFormat(u32),
    /// Weft's mark is there, but neither copy is whole.
    Damaged,
    /// No mark.
    None,
}

impl Superblock {
    /// Of a medium that was never served.
    pub fn new(drive: DriveUid, cluster: ClusterUid, geometry: Geometry) -> Self {
        Self {
            counter: 0,
            drive,
            cluster,
            geometry,
            metadata_length: 0,
            document_generation: DocumentGeneration(0),
            session: Uuid::nil(),
            incarnation: Uuid::new_v4(),
            clean: true,
            log: LogStart::default(),
        }
    }

    pub(crate) fn encode(&self) -> AlignedBuf {
        let mut raw = Raw {
            magic: MAGIC,
            checksum: 0.into(),
            format: FORMAT.into(),
            counter: self.counter.into(),
            drive: self.drive.0.into_bytes(),
            cluster: self.cluster.0.into_bytes(),
            chunk: CHUNK.into(),
            metadata_start: self.geometry.metadata_start.into(),
            metadata_size: self.geometry.metadata_size.into(),
            data_start: self.geometry.data_start.into(),
            chunks: self.geometry.chunks.into(),
            metadata_length: self.metadata_length.into(),
            document_generation: self.document_generation.0.into(),
            log_start: self.geometry.log_start.into(),
            log_size: self.geometry.log_size.into(),
            sums_start: self.geometry.sums_start.into(),
            log_epoch: self.log.epoch.into(),
            log_offset: self.log.offset.into(),
            log_sequence: self.log.sequence.into(),
            session: self.session.into_bytes(),
            incarnation: self.incarnation.into_bytes(),
            clean: u64::from(self.clean).into(),
            rest: [0; BLOCK - 200],
        };
        raw.checksum = digest(raw.as_bytes()).into();
        AlignedBuf::copy_of(raw.as_bytes())
    }

    pub(crate) fn decode(block: &[u8], size: u64) -> Copies {
        let Ok(mut raw) = Raw::read_from_bytes(block) else {
            return Copies::None;
        };
        if raw.magic != MAGIC {
            return Copies::None;
        }
        let checksum = std::mem::take(&mut raw.checksum).get();
        if digest(raw.as_bytes()) != checksum {
            return Copies::Damaged;
        }
        if raw.format.get() != FORMAT || raw.chunk.get() != CHUNK {
            return Copies::OtherFormat(raw.format.get());
        }
        let geometry = Geometry {
            metadata_start: raw.metadata_start.get(),
            metadata_size: raw.metadata_size.get(),
            log_start: raw.log_start.get(),
            log_size: raw.log_size.get(),
            sums_start: raw.sums_start.get(),
            data_start: raw.data_start.get(),
            chunks: raw.chunks.get(),
        };
        let log = LogStart {
            epoch: raw.log_epoch.get(),
            offset: raw.log_offset.get(),
            sequence: raw.log_sequence.get(),
        };
        let in_log =
            log.offset < geometry.log_size.max(1) && log.offset.is_multiple_of(weft_block::BLOCK);
        if !geometry.is_sane(size) || !in_log || raw.metadata_length.get() > geometry.metadata_size
        {
            return Copies::Damaged;
        }
        Copies::Good(Self {
            counter: raw.counter.get(),
            drive: DriveUid(Uuid::from_bytes(raw.drive)),
            cluster: ClusterUid(Uuid::from_bytes(raw.cluster)),
            geometry,
            metadata_length: raw.metadata_length.get(),
            document_generation: DocumentGeneration(raw.document_generation.get()),
            session: Uuid::from_bytes(raw.session),
            incarnation: Uuid::from_bytes(raw.incarnation),
            clean: raw.clean.get() != 0,
            log,
        })
    }

    /// Makes a block one of this format with the right checksum. For the fuzz target.
    pub(crate) fn seal(block: &mut [u8]) {
        let Ok(raw) = Raw::mut_from_bytes(block) else {
            return;
        };
        (raw.magic, raw.format, raw.chunk) = (MAGIC, FORMAT.into(), CHUNK.into());
        raw.checksum = 0.into();
        raw.checksum = digest(raw.as_bytes()).into();
    }

    /// Writes it with the next counter over the older copy, so that a torn write leaves what was
    /// there before. Durable when this returns.
    pub fn write_next(mut self, medium: &dyn Medium) -> Result<Self, DiskError> {
        self.counter += 1;
        let copy = COPIES[usize::from(!self.counter.is_multiple_of(2))];
        medium.write_at(copy, &self.encode(), Write::Durable)?;
        Ok(self)
    }

    /// Reads both copies.
    pub fn read(medium: &dyn Medium) -> Result<Copies, DiskError> {
        let mut found = Copies::None;
        for at in COPIES {
            let mut block = AlignedBuf::zeroed(BLOCK);
            medium.read_at(at, &mut block)?;
            found = match (found, Self::decode(&block, medium.size())) {
                (Copies::Good(a), Copies::Good(b)) => {
                    Copies::Good(if a.counter > b.counter { a } else { b })
                }
                (Copies::Good(a), _) | (_, Copies::Good(a)) => Copies::Good(a),
                (Copies::OtherFormat(a), _) | (_, Copies::OtherFormat(a)) => Copies::OtherFormat(a),
                (Copies::Damaged, _) | (_, Copies::Damaged) => Copies::Damaged,
                (Copies::None, Copies::None) => Copies::None,
            };
        }
        Ok(found)
    }
}

/// The superblock of an open drive: what it says, and the one way to change it.
#[derive(Debug)]
pub struct Superblocks {
    medium: Arc<dyn Medium>,
    now: Mutex<Superblock>,
}

impl Superblocks {
    /// Goes on from what was read.
    pub fn new(medium: Arc<dyn Medium>, now: Superblock) -> Self {
        Self {
            medium,
            now: Mutex::new(now),
        }
    }

    /// What it says.
    pub fn now(&self) -> Superblock {
        self.lock().clone()
    }

    /// Changes it; durable when this returns.
    pub fn update(&self, change: impl FnOnce(&mut Superblock)) -> Result<(), DiskError> {
        let mut now = self.lock();
        let mut next = now.clone();
        change(&mut next);
        *now = next.write_next(&*self.medium)?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Superblock> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn digest(bytes: &[u8]) -> u32 {
    // CRC32C (RFC 3720) is 32 bits wide; the library answers with the width of its widest.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_block::MemoryDisk;

    fn new_on(medium: &Arc<MemoryDisk>) -> Superblocks {
        let geometry = Geometry::of(Medium::size(&**medium)).unwrap();
        let now = Superblock::new(DriveUid::random(), ClusterUid::random(), geometry);
        Superblocks::new(medium.clone(), now)
    }

    #[test]
    fn the_newest_whole_copy_wins_and_a_torn_one_loses_nothing_older() {
        let medium = Arc::new(MemoryDisk::new(SMALLEST));
        let superblocks = new_on(&medium);
        for generation in 1..=5 {
            superblocks
                .update(|now| now.document_generation = DocumentGeneration(generation))
                .unwrap();
            assert_eq!(
                Superblock::read(&*medium).unwrap(),
                Copies::Good(superblocks.now())
            );
        }
        medium
            .write_at(COPIES[1], &[0x5a; BLOCK], Write::Cached)
            .unwrap();
        let Copies::Good(older) = Superblock::read(&*medium).unwrap() else {
            panic!("no copy")
        };
        assert_eq!((older.document_generation.0, older.counter), (4, 4));
    }

    #[test]
    fn a_changed_bit_is_damage_and_no_other_drive() {
        let medium = Arc::new(MemoryDisk::new(SMALLEST));
        new_on(&medium).update(|_| ()).unwrap();
        let mut block = AlignedBuf::zeroed(BLOCK);
        medium.read_at(COPIES[1], &mut block).unwrap();
        block[30] ^= 1;
        medium.write_at(COPIES[1], &block, Write::Cached).unwrap();
        assert_eq!(Superblock::read(&*medium).unwrap(), Copies::Damaged);
    }

    #[test]
    fn a_later_format_is_told_apart_from_damage() {
        let medium = Arc::new(MemoryDisk::new(SMALLEST));
        let superblocks = new_on(&medium);
        let mut raw = Raw::read_from_bytes(&superblocks.now().encode()[..]).unwrap();
        (raw.format, raw.checksum) = (7.into(), 0.into());
        raw.checksum = digest(raw.as_bytes()).into();
        medium.write_at(0, raw.as_bytes(), Write::Cached).unwrap();
        assert_eq!(Superblock::read(&*medium).unwrap(), Copies::OtherFormat(7));
    }

    #[test]
    fn a_small_drive_keeps_most_of_it_for_data() {
        for (size, percent) in [(256 << 20, 91), (1 << 30, 97), (16 << 30, 99)] {
            let geometry = Geometry::of(size).unwrap();
            assert!(geometry.is_sane(size));
            assert!(
                geometry.chunks * CHUNK > size * percent / 100,
                "{geometry:?}"
            );
        }
        for size in (SMALLEST..SMALLEST + (8 << 20)).step_by(4096) {
            assert!(Geometry::of(size).unwrap().is_sane(size), "{size}");
        }
        assert_eq!(Geometry::of(SMALLEST - 4096), None);
    }
}
