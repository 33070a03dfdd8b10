//! What is in a block. Each sector of 512 bytes says it, so that a block torn between sectors is
//! told from one that is damaged.

use uuid::Uuid;
use weft_block::BLOCK;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What devices keep untorn at least.
pub const SECTOR: usize = 512;
/// Sectors of a block.
pub const SECTORS: usize = BLOCK as usize / SECTOR;
const MAGIC: [u8; 8] = *b"weftver1";
const FILLER: usize = SECTOR - 64;

/// Names the volume in its blocks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VolumeMark(pub Uuid);

/// Who wrote.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Writer(pub u32);

/// The number of a write, unique in a history.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Sequence(pub u64);

/// Number of a block of a volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct BlockNumber(pub u64);

/// What a block says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    /// Of this volume.
    pub volume: VolumeMark,
    /// Meant for this place.
    pub number: BlockNumber,
    /// From this writer.
    pub writer: Writer,
    /// By this write.
    pub sequence: Sequence,
}

/// What 4096 bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Zeros.
    Zeros,
    /// A whole block.
    Whole(Block),
    /// Sectors of two writes, or of a write and of zeros.
    Torn(Block, Option<Block>),
    /// At least this sector is neither zeros nor one of ours.
    Damaged(usize),
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawSector {
    magic: [u8; 8],
    volume: [u8; 16],
    number: U64,
    sequence: U64,
    writer: U32,
    sector: U32,
    reserved: [u8; 12],
    /// CRC32C of the sector with this field zero.
    checksum: U32,
    filler: [u8; FILLER],
}

const _: () = assert!(size_of::<RawSector>() == SECTOR);

impl Block {
    /// Writes itself into 4096 bytes.
    pub fn fill(&self, bytes: &mut [u8]) {
        for (at, sector) in bytes.chunks_exact_mut(SECTOR).enumerate() {
            let Ok(raw) = RawSector::mut_from_bytes(sector) else {
                continue;
            };
            raw.magic = MAGIC;
            raw.volume = self.volume.0.into_bytes();
            raw.number = self.number.0.into();
            raw.sequence = self.sequence.0.into();
            raw.writer = self.writer.0.into();
            // A block has 8 of them.
            raw.sector = (at as u32).into();
            raw.reserved = [0; 12];
            raw.checksum = 0.into();
            // Bytes that differ between writes, so that a stray byte of another shows.
            let salt = self.sequence.0 ^ self.number.0.rotate_left(32) ^ at as u64;
            let mut random = crate::random::Random::new(salt);
            for part in raw.filler.chunks_mut(8) {
                let number = random.number().to_le_bytes();
                part.copy_from_slice(&number[..part.len()]);
            }
            raw.checksum = checksum(raw).into();
        }
    }

    fn of_sector(bytes: &[u8], at: usize) -> Option<Self> {
        let mut raw = RawSector::read_from_bytes(bytes).ok()?;
        let found = std::mem::take(&mut raw.checksum);
        let ours = raw.magic == MAGIC && raw.sector.get() as usize == at;
        (ours && found.get() == checksum(&raw)).then(|| Self {
            volume: VolumeMark(Uuid::from_bytes(raw.volume)),
            number: BlockNumber(raw.number.get()),
            writer: Writer(raw.writer.get()),
            sequence: Sequence(raw.sequence.get()),
        })
    }
}

impl Content {
    /// Of these 4096 bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let mut zeros = false;
        let mut first = None;
        let mut other = None;
        for (at, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            if sector.iter().all(|byte| *byte == 0) {
                zeros = true;
                continue;
            }
            let Some(block) = Block::of_sector(sector, at) else {
                return Self::Damaged(at);
            };
            match first {
                None => first = Some(block),
                Some(known) if known != block => other = other.or(Some(block)),
                Some(_) => {}
            }
        }
        match (first, other, zeros) {
            (None, ..) => Self::Zeros,
            (Some(block), None, false) => Self::Whole(block),
            (Some(block), other, _) => Self::Torn(block, other),
        }
    }
}

fn checksum(raw: &RawSector) -> u32 {
    let wide = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, raw.as_bytes());
    // CRC32C is 32 bits wide; the library answers with the width of its widest.
    wide as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(sequence: u64) -> (Block, Vec<u8>) {
        let block = Block {
            volume: VolumeMark(Uuid::from_u128(7)),
            number: BlockNumber(3),
            writer: Writer(1),
            sequence: Sequence(sequence),
        };
        let mut bytes = vec![0xff; BLOCK as usize];
        block.fill(&mut bytes);
        (block, bytes)
    }

    #[test]
    fn a_block_says_what_was_put_into_it() {
        let (first, bytes) = block(9);
        assert_eq!(Content::of(&bytes), Content::Whole(first));
        assert_eq!(Content::of(&[0; BLOCK as usize]), Content::Zeros);
    }

    #[test]
    fn every_bit_counts() {
        let (_, bytes) = block(9);
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert_eq!(Content::of(&flipped), Content::Damaged(at / SECTOR));
        }
    }

    #[test]
    fn a_tear_at_any_sector_is_told_from_damage() {
        let ((old, old_bytes), (new, new_bytes)) = (block(1), block(2));
        for cut in 1..SECTORS {
            let at = cut * SECTOR;
            let mut torn = new_bytes.clone();
            torn[at..].copy_from_slice(&old_bytes[at..]);
            assert_eq!(Content::of(&torn), Content::Torn(new, Some(old)));
            torn[at..].fill(0);
            assert_eq!(Content::of(&torn), Content::Torn(new, None));
        }
    }
}
