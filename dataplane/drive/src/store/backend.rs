//! The metadata region as the storage of redb.

use crate::superblock::Superblocks;
use std::io;
use std::sync::Arc;
use weft_block::{AlignedBuf, BLOCK, Medium, Write};

/// Bytes zeroed at a time when the storage grows.
const ZERO_STEP: u64 = 64 << 20;

/// The region, with the length that redb gave it kept in the superblock.
#[derive(Debug)]
pub struct Region {
    medium: Arc<dyn Medium>,
    superblocks: Arc<Superblocks>,
    start: u64,
    size: u64,
}

impl Region {
    /// The region that the superblock names.
    pub fn new(medium: Arc<dyn Medium>, superblocks: Arc<Superblocks>) -> Self {
        let geometry = superblocks.now().geometry;
        Self {
            medium,
            superblocks,
            start: geometry.metadata_start,
            size: geometry.metadata_size,
        }
    }

    /// The whole blocks that hold `length` bytes at `offset`: their place on the medium, and
    /// where in them the bytes begin.
    fn window(&self, offset: u64, length: usize) -> io::Result<(u64, AlignedBuf, usize)> {
        let end = offset
            .checked_add(length as u64)
            .filter(|end| *end <= self.size);
        let Some(end) = end else {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "beyond the metadata region",
            ));
        };
        let first = offset / BLOCK * BLOCK;
        let buffer = AlignedBuf::zeroed((end.next_multiple_of(BLOCK) - first) as usize);
        Ok((self.start + first, buffer, (offset - first) as usize))
    }
}

impl redb::StorageBackend for Region {
    fn len(&self) -> io::Result<u64> {
        Ok(self.superblocks.now().metadata_length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (at, mut buffer, skip) = self.window(offset, out.len())?;
        self.medium
            .read_at(at, &mut buffer)
            .map_err(io::Error::other)?;
        out.copy_from_slice(&buffer[skip..skip + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if len > self.size {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the metadata region is full",
            ));
        }
        let mut at = self
            .superblocks
            .now()
            .metadata_length
            .next_multiple_of(BLOCK);
        while at < len {
            let step = (len.next_multiple_of(BLOCK) - at).min(ZERO_STEP);
            self.medium
                .zero_at(self.start + at, step)
                .map_err(io::Error::other)?;
            at += step;
        }
        self.superblocks
            .update(|now| now.metadata_length = len)
            .map_err(io::Error::other)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.medium.flush().map_err(io::Error::other)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (at, mut buffer, skip) = self.window(offset, data.len())?;
        if skip != 0 || data.len() != buffer.len() {
            self.medium
                .read_at(at, &mut buffer)
                .map_err(io::Error::other)?;
        }
        buffer[skip..skip + data.len()].copy_from_slice(data);
        self.medium
            .write_at(at, &buffer, Write::Cached)
            .map_err(io::Error::other)
    }
}
