use crate::DiskError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

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

/// What an engine says of a change beside what it is (design section 5, Hot regions). All zero:
/// nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Number of the in-sync set under which it is sent; 0 without one.
    pub config: u64,
    /// Grows with each change of one (term, boot); 0 for one that is not numbered.
    pub number: u64,
    /// Every change up to this number is equal on all members and flushed there; 0 says nothing.
    pub checkpoint: u64,
}

/// What a request for a change comes to.
pub type Answer<'a> = BoxFuture<'a, Result<(), DiskError>>;

/// Anything that stores blocks. See the crate's I/O model.
///
/// What stores blocks takes changes with their stamp: only a slice keeps stamps, and only what leads
/// to one passes them on; any other disk has no use for them. The forms without a stamp say nothing.
#[async_trait]
pub trait Disk: Send + Sync {
    /// Bytes, a multiple of [`BLOCK`]. May grow; never shrinks.
    fn size(&self) -> u64;

    /// Fills `into` (its length is the request's) from `offset`.
    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError>;

    /// Writes `data` at `offset`.
    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError>;

    /// Makes every write acknowledged before this call durable. Of the stamp only the checkpoint
    /// counts.
    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError>;

    /// Makes the range read as zeros; frees what it can.
    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError>;

    /// Says that the range is not needed; afterwards it reads as zeros or as before.
    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError>;

    /// [`Disk::write_stamped`] that says nothing.
    fn write(&self, offset: u64, data: Bytes, mode: Write) -> Answer<'_> {
        self.write_stamped(offset, data, mode, Stamp::default())
    }

    /// [`Disk::flush_stamped`] that says nothing.
    fn flush(&self) -> Answer<'_> {
        self.flush_stamped(Stamp::default())
    }

    /// [`Disk::write_zeroes_stamped`] that says nothing.
    fn write_zeroes(&self, offset: u64, length: u64) -> Answer<'_> {
        self.write_zeroes_stamped(offset, length, Stamp::default())
    }

    /// [`Disk::discard_stamped`] that says nothing.
    fn discard(&self, offset: u64, length: u64) -> Answer<'_> {
        self.discard_stamped(offset, length, Stamp::default())
    }
}
