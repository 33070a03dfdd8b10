//! What a request holds while it is at the medium, and what it does there. Blocks its caller.

use super::commit::Broken;
use super::core::{Piece, Placed, WriteRound, extend};
use super::hot::regions;
use super::sums::{BLOCKS, Sums, salted};
use super::tables::{ChunkIndex, ChunkNumber};
use super::{Slice, Store};
use crate::superblock::CHUNK;
use std::sync::Arc;
use weft_block::{AlignedBuf, BLOCK, DiskError, ErrorKind, Write};
use weft_spec::drive::Config;

/// Chunks that a request uses: not given to others meanwhile, and the locked ones not written.
pub struct Held {
    /// Of this store.
    pub store: Arc<Store>,
    /// Of this slice.
    pub slice: Arc<Slice>,
    /// The chunks, pinned.
    pub placed: Placed,
    /// Its blocks in them are locked.
    pub locked: bool,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.placed.is_empty() {
            return;
        }
        let mut core = self.store.core();
        core.unpin(&self.placed);
        if self.locked {
            core.unlock(self.slice.number(), &self.placed);
        }
        drop(core);
        self.store.unlocked.notify_waiters();
    }
}

/// Regions that a request writes: they stay hot.
pub struct Heated {
    /// Of this store.
    pub store: Arc<Store>,
    /// Of this slice.
    pub slice: Arc<Slice>,
    /// First byte of the write.
    pub offset: u64,
    /// Bytes of the write.
    pub length: u64,
}

impl Drop for Heated {
    fn drop(&mut self) {
        let keys = regions(self.slice.number(), self.offset, self.length);
        self.store.core().hot.leave(keys);
    }
}

/// What a look at a chunk's blocks found.
pub enum Verified {
    /// As written.
    Good,
    /// These blocks of the slice, the first and all others, are not what was written or cannot be
    /// read, or are being written.
    Differ(u64, Vec<u64>),
}

impl Held {
    /// Fills `buffer` and compares what has chunks with its checksums.
    pub fn read_verified(&self, buffer: &mut [u8]) -> Result<Verified, DiskError> {
        let mut extents = Vec::new();
        for (piece, chunk) in &self.placed {
            extend(&mut extents, *chunk, piece);
        }
        let mut zeroed = 0;
        let mut unreadable = vec![];
        for extent in extents {
            let (start, end) = (extent.buffer.start, extent.buffer.end);
            buffer[zeroed..start].fill(0);
            let at = self.store.geometry.data_start + extent.offset;
            let bytes = &mut buffer[start..end];
            if self.store.medium.read_at(at, bytes).is_err() {
                self.read_singly(at, bytes, |within| unreadable.push(start + within))?;
            }
            zeroed = end;
        }
        buffer[zeroed..].fill(0);
        let mut differ = vec![];
        for (piece, chunk) in &self.placed {
            let sums = self.store.sums(*chunk)?;
            let data = &buffer[piece.at..piece.at + piece.length as usize];
            let found = self.sums_of(piece, data, Config::default());
            for block in (0..BLOCKS).filter(|block| found.mask & 1 << block != 0) {
                let in_buffer = piece.at + block * BLOCK as usize - piece.within as usize;
                if found.blocks[block] != sums.blocks[block] || unreadable.contains(&in_buffer) {
                    differ.push(first_block(piece) + block as u64);
                }
            }
        }
        Ok(match differ.first() {
            Some(first) => Verified::Differ(*first, differ),
            None => Verified::Good,
        })
    }

    /// Reads block by block what the medium does not give back whole, and names what it does not
    /// give back at all.
    fn read_singly(
        &self,
        at: u64,
        bytes: &mut [u8],
        mut unreadable: impl FnMut(usize),
    ) -> Result<(), DiskError> {
        for (number, block) in bytes.chunks_exact_mut(BLOCK as usize).enumerate() {
            let within = number * BLOCK as usize;
            match self.store.medium.read_at(at + within as u64, block) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::MediaRead => unreadable(within),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes data; a medium that fails once is asked once more.
    fn write_at(&self, at: u64, data: &[u8]) -> Result<(), DiskError> {
        let medium = &self.store.medium;
        medium
            .write_at(at, data, Write::Cached)
            .or_else(|_| medium.write_at(at, data, Write::Cached))
    }

    /// Checksums of the blocks of a piece.
    fn sums_of(&self, piece: &Piece, data: &[u8], stamp: Config) -> Sums {
        let mut sums = Sums {
            mask: piece.mask(),
            stamp,
            ..Sums::default()
        };
        let first = (piece.within / BLOCK) as usize;
        for (at, block) in data.chunks_exact(BLOCK as usize).enumerate() {
            let number = first_block(piece) + (first + at) as u64;
            sums.blocks[first + at] = salted(self.slice.uid(), number, block);
        }
        sums
    }

    /// These blocks of the slice are not what was written, and nobody writes them now. Whether
    /// that is news, for the log.
    pub fn suspect(&self, blocks: &[u64]) -> bool {
        if self.store.breakage.is(Broken::NoSuspects) {
            return false;
        }
        let mut core = self.store.core();
        let mut is_news = false;
        for block in blocks {
            let index = ChunkIndex((block / BLOCKS as u64) as u32);
            let mask = 1 << (block % BLOCKS as u64);
            is_news |= core.pending.suspect((self.slice.number(), index), mask);
        }
        is_news
    }

    /// A write failed: what it has left may be neither what was there nor what was written.
    fn in_doubt(&self) {
        let mut core = self.store.core();
        for (piece, _) in &self.placed {
            let place = (self.slice.number(), piece.index);
            core.pending.suspect(place, piece.mask());
        }
    }

    /// Writes over chunks that the slice has. Whether some of it was suspect: then it is
    /// acknowledged only when the log knows of it.
    pub fn overwrite(&self, data: &[u8], stamp: Config) -> Result<bool, DiskError> {
        let mut extents = Vec::new();
        for (piece, chunk) in &self.placed {
            extend(&mut extents, *chunk, piece);
        }
        for extent in &extents {
            let at = self.store.geometry.data_start + extent.offset;
            let bytes = &data[extent.buffer.clone()];
            self.write_at(at, bytes).inspect_err(|_| self.in_doubt())?;
        }
        let sums: Vec<_> = self
            .placed
            .iter()
            .map(|(piece, _)| {
                let data = &data[piece.at..piece.at + piece.length as usize];
                self.sums_of(piece, data, stamp)
            })
            .collect();
        Ok(self.wrote(&sums))
    }

    /// Writes zeros over parts of chunks that the slice has; otherwise as [`Held::overwrite`].
    pub fn zero(&self, stamp: Config) -> Result<bool, DiskError> {
        let zeros = AlignedBuf::zeroed(CHUNK as usize);
        let mut sums = Vec::new();
        for (piece, chunk) in &self.placed {
            let zeros = &zeros[..piece.length as usize];
            let at = self.store.place(*chunk) + piece.within;
            self.write_at(at, zeros).inspect_err(|_| self.in_doubt())?;
            sums.push(self.sums_of(piece, zeros, stamp));
        }
        Ok(self.wrote(&sums))
    }

    fn wrote(&self, sums: &[Sums]) -> bool {
        let mut was_suspect = false;
        let mut mended = Vec::new();
        let mut core = self.store.core();
        for ((piece, chunk), sums) in self.placed.iter().zip(sums) {
            let place = (self.slice.number(), piece.index);
            was_suspect |= core.pending.wrote(place, *chunk, sums);
            mended.push((first_block(piece), sums.mask));
        }
        drop(core);
        self.store.mended(&self.slice, &mended);
        was_suspect
    }

    /// Writes chunks that are new to the slice, whole.
    pub fn write_fresh(
        &self,
        round: &WriteRound,
        data: &[u8],
        stamp: Config,
    ) -> Result<Vec<(Piece, ChunkNumber, Sums)>, DiskError> {
        let mut fresh = Vec::new();
        for (piece, chunk) in &round.fresh {
            let data = &data[piece.at..piece.at + piece.length as usize];
            let whole = Piece {
                within: 0,
                length: CHUNK,
                ..*piece
            };
            let mut image = AlignedBuf::zeroed(CHUNK as usize);
            let within = piece.within as usize;
            image[within..within + data.len()].copy_from_slice(data);
            let at = self.store.place(*chunk);
            self.write_at(at, &image)?;
            fresh.push((*piece, *chunk, self.sums_of(&whole, &image, stamp)));
        }
        Ok(fresh)
    }
}

fn first_block(piece: &Piece) -> u64 {
    u64::from(piece.index.0) * BLOCKS as u64
}
