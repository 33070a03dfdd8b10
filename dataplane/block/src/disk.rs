use crate::DiskError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

/// Bytes in a block: the unit of every address and length, and the atom that a disk keeps untorn.
pub const BLOCK: u64 = 4096;

/// What an acknowledgement of a write promises.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// Kept until the next power cut at least.
    Cached,
    /// Kept through a power cut (FUA, NVM Command Set 1.0 section 3.2.6).
    Durable,
}

/// Anything that stores blocks. See the crate's I/O model.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Bytes, a multiple of [`BLOCK`]. May grow; never shrinks.
    fn size(&self) -> u64;

    /// Fills `into` (its length is the request's) from `offset`.
    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError>;

    /// Writes `data` at `offset`.
    async fn write(&self, offset: u64, data: Bytes, mode: Write) -> Result<(), DiskError>;

    /// Makes every write acknowledged before this call durable.
    async fn flush(&self) -> Result<(), DiskError>;

    /// Makes the range read as zeros; frees what it can.
    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError>;

    /// Says that the range is not needed; afterwards it reads as zeros or as before.
    async fn discard(&self, offset: u64, length: u64) -> Result<(), DiskError>;
}
