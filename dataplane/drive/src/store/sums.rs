//! Checksums of blocks, and the pages that hold them.

use super::tables::ChunkNumber;
use crate::superblock::{CHUNKS_PER_PAGE, Geometry, PAGE_PAIR, digest};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use weft_block::{AlignedBuf, BLOCK, DiskError, ErrorKind, Medium, Write};
use weft_spec::drive::Config;
use weft_spec::ids::{DriveUid, SliceUid};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Blocks of a chunk.
pub const BLOCKS: usize = (crate::superblock::CHUNK / BLOCK) as usize;
/// Pages kept in memory: 256 KiB, the checksums of 220 MiB of chunks.
const CACHED: usize = 64;
const PAGE: usize = BLOCK as usize;

/// CRC32C of a block, salted with the slice that wrote it and its place there: what was written
/// elsewhere, or by another, never matches.
pub fn salted(slice: SliceUid, block: u64, data: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(slice.0.as_bytes());
    digest.update(&block.to_le_bytes());
    digest.update(data);
    // CRC32C is 32 bits wide; the library answers with the width of its widest.
    digest.finalize() as u32
}

/// What is known of some blocks of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sums {
    /// Bit i: block i is known here.
    pub mask: u16,
    /// Of each known block.
    pub blocks: [u32; BLOCKS],
    /// Config that the last write carried.
    pub stamp: Config,
}

impl Sums {
    /// Lays newer knowledge over this.
    pub fn overlay(&mut self, newer: &Self) {
        for block in (0..BLOCKS).filter(|block| newer.mask & 1 << block != 0) {
            self.blocks[block] = newer.blocks[block];
        }
        self.mask |= newer.mask;
        self.stamp = self.stamp.max(newer.stamp);
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    blocks: [U32; BLOCKS],
    stamp: U64,
}

impl RawEntry {
    fn sums(&self) -> Sums {
        Sums {
            mask: u16::MAX,
            blocks: self.blocks.map(U32::get),
            stamp: Config(self.stamp.get()),
        }
    }
}

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawPage {
    /// CRC32C of the page with this field zero.
    checksum: U32,
    number: U32,
    counter: U64,
    drive: [u8; 16],
    reserved: [u8; 32],
    entries: [RawEntry; CHUNKS_PER_PAGE as usize],
}

const _: () = assert!(size_of::<RawPage>() == PAGE);

#[derive(Clone)]
struct Page {
    raw: Box<RawPage>,
    /// Which of the two copies this is.
    copy: usize,
    used: u64,
}

/// The checksum area, read by the page.
pub struct Area {
    medium: Arc<dyn Medium>,
    start: u64,
    drive: DriveUid,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    pages: HashMap<u32, Page>,
    clock: u64,
}

impl Cache {
    /// The page, if it is in memory; the last to be dropped now.
    fn touch(&mut self, number: u32) -> Option<&Page> {
        self.clock += 1;
        let page = self.pages.get_mut(&number)?;
        page.used = self.clock;
        Some(page)
    }
}

impl Area {
    /// Of this drive.
    pub fn new(medium: Arc<dyn Medium>, geometry: &Geometry, drive: DriveUid) -> Self {
        Self {
            medium,
            start: geometry.sums_start,
            drive,
            cache: Mutex::default(),
        }
    }

    /// What the page says of a chunk. Blocks, unless the page is in memory.
    pub fn get(&self, chunk: ChunkNumber) -> Result<Sums, DiskError> {
        let (number, at) = place(chunk);
        if let Some(page) = self.cache().touch(number) {
            return Ok(page.raw.entries[at].sums());
        }
        let page = self.load(number)?;
        Ok(self.keep(number, page).raw.entries[at].sums())
    }

    /// Writes newer sums into their pages, each over the older of its two copies. Durable after
    /// the next flush of the medium, and only then visible to [`Area::get`] after a restart.
    pub fn put(&self, changes: &HashMap<ChunkNumber, Sums>) -> Result<(), DiskError> {
        let mut chunks: Vec<_> = changes.iter().collect();
        chunks.sort_by_key(|(chunk, _)| **chunk);
        for group in chunks.chunk_by(|(a, _), (b, _)| place(**a).0 == place(**b).0) {
            let Some((first, _)) = group.first() else {
                continue;
            };
            let number = place(**first).0;
            let mut page = self.page(number)?;
            for (chunk, newer) in group {
                let entry = &mut page.raw.entries[place(**chunk).1];
                let mut sums = entry.sums();
                // A stamp goes back when the chunk goes to another slice: all blocks are new then.
                if newer.mask == u16::MAX {
                    sums.stamp = newer.stamp;
                }
                sums.overlay(newer);
                *entry = RawEntry {
                    blocks: sums.blocks.map(U32::new),
                    stamp: sums.stamp.0.into(),
                };
            }
            page.copy = 1 - page.copy;
            page.raw.counter = (page.raw.counter.get() + 1).into();
            page.raw.checksum = 0.into();
            page.raw.checksum = digest(page.raw.as_bytes()).into();
            let image = AlignedBuf::copy_of(page.raw.as_bytes());
            let at = self.start + u64::from(number) * PAGE_PAIR + page.copy as u64 * BLOCK;
            self.medium.write_at(at, &image, Write::Cached)?;
            self.keep(number, page);
        }
        Ok(())
    }

    fn page(&self, number: u32) -> Result<Page, DiskError> {
        if let Some(page) = self.cache().touch(number) {
            return Ok(page.clone());
        }
        let page = self.load(number)?;
        Ok(self.keep(number, page))
    }

    fn load(&self, number: u32) -> Result<Page, DiskError> {
        let at = self.start + u64::from(number) * PAGE_PAIR;
        let mut pair = AlignedBuf::zeroed(PAGE_PAIR as usize);
        self.medium.read_at(at, &mut pair)?;
        let copies = pair.chunks_exact(PAGE).enumerate();
        let good = copies.filter_map(|(copy, bytes)| {
            let mut raw = RawPage::read_from_bytes(bytes).ok()?;
            let checksum = std::mem::take(&mut raw.checksum).get();
            let mine = raw.number.get() == number && raw.drive == *self.drive.0.as_bytes();
            // Nobody writes 2^64 times: such a counter could not go on.
            let mine = mine && raw.counter.get() < u64::MAX;
            let whole = mine && digest(raw.as_bytes()) == checksum;
            whole.then(|| (raw.counter.get(), copy, raw))
        });
        match good.max_by_key(|(counter, ..)| *counter) {
            Some((_, copy, raw)) => Ok(Page {
                raw: Box::new(raw),
                copy,
                used: 0,
            }),
            // Formatting writes no page: a pair never written was zeros, or whatever the medium
            // had. Both copies damaged later is told by the blocks, none of which matches.
            None => {
                let mut raw = RawPage::read_from_bytes(&[0; PAGE]).map_err(|_| {
                    DiskError::new(ErrorKind::MediaRead, "a checksum page is no page")
                })?;
                raw.number = number.into();
                raw.drive = self.drive.0.into_bytes();
                Ok(Page {
                    raw: Box::new(raw),
                    copy: 1,
                    used: 0,
                })
            }
        }
    }

    fn keep(&self, number: u32, mut page: Page) -> Page {
        let mut cache = self.cache();
        cache.clock += 1;
        page.used = cache.clock;
        // Another reader may have loaded it, and a fold written it, since.
        if let Some(kept) = cache.pages.get(&number)
            && kept.raw.counter.get() > page.raw.counter.get()
        {
            return kept.clone();
        }
        if cache.pages.len() >= CACHED && !cache.pages.contains_key(&number) {
            let oldest = cache.pages.iter().min_by_key(|(_, page)| page.used);
            if let Some(oldest) = oldest.map(|(number, _)| *number) {
                cache.pages.remove(&oldest);
            }
        }
        cache.pages.insert(number, page.clone());
        page
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes bytes a page: its number, its drive and the checksum are right, and its counter is one
/// that a life can come to. For the fuzz targets.
pub(super) fn seal_page(bytes: &mut [u8], number: u32, drive: DriveUid) {
    let Ok(raw) = RawPage::mut_from_bytes(bytes) else {
        return;
    };
    raw.number = number.into();
    raw.drive = drive.0.into_bytes();
    raw.counter = (raw.counter.get() >> 1).into();
    raw.checksum = 0.into();
    raw.checksum = digest(raw.as_bytes()).into();
}

fn place(chunk: ChunkNumber) -> (u32, usize) {
    let per_page = CHUNKS_PER_PAGE as u32;
    (chunk.0 / per_page, (chunk.0 % per_page) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_block::MemoryDisk;

    #[test]
    fn a_torn_page_leaves_what_was_there_before() {
        let size = 32 << 20;
        let geometry = Geometry::of(size).unwrap();
        let medium = Arc::new(MemoryDisk::new(size));
        let drive = DriveUid::random();
        let area = || Area::new(medium.clone(), &geometry, drive);
        let sums = |value| Sums {
            mask: u16::MAX,
            blocks: [value; BLOCKS],
            stamp: Config(u64::from(value)),
        };
        let chunk = ChunkNumber(57);
        for value in 1..=3 {
            area().put(&HashMap::from([(chunk, sums(value))])).unwrap();
            assert_eq!(area().get(chunk).unwrap(), sums(value));
        }
        // Copies are written in turn from the first: the third lies where the first did.
        let at = geometry.sums_start + PAGE_PAIR;
        medium.write_at(at, &[0x5a; PAGE], Write::Cached).unwrap();
        assert_eq!(area().get(chunk).unwrap(), sums(2));
    }

    #[test]
    fn the_same_bytes_elsewhere_or_of_another_do_not_match() {
        let (a, b) = (SliceUid::random(), SliceUid::random());
        let data = [7; PAGE];
        assert_eq!(salted(a, 3, &data), salted(a, 3, &data));
        assert_ne!(salted(a, 3, &data), salted(a, 4, &data));
        assert_ne!(salted(a, 3, &data), salted(b, 3, &data));
    }
}
