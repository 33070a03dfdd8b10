use crate::{BLOCK, DiskError, ErrorKind, Write};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;

/// What a disk's bytes are on, seen by a thread that may block. Both the data path (through
/// [`crate::ThreadedDisk`]) and an embedded store that knows no async use one medium this way.
///
/// Addresses, lengths and durability are those of [`crate::Disk`]; a length of zero does nothing.
pub trait Medium: Send + Sync + std::fmt::Debug + 'static {
    /// Bytes, a multiple of [`BLOCK`].
    fn size(&self) -> u64;

    /// Fills `into`.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError>;

    /// Writes `data` whole.
    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError>;

    /// Makes every write that ended before this call durable.
    fn flush(&self) -> Result<(), DiskError>;

    /// Makes the range read as zeros; keeps its space.
    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError>;

    /// Gives the space of the range back if the medium can.
    fn discard_at(&self, offset: u64, length: u64) -> Result<(), DiskError>;

    /// `None`: the requests above may block, so they are made on a thread for such work. Else they
    /// never do, and are made on the caller's own thread once this future has ended. A simulation
    /// has its latency there, and the same order of everything each time.
    fn at_once(&self) -> Option<BoxFuture<'static, ()>> {
        None
    }

    /// Whether the requests below need no thread of their caller's: then as many as one likes can
    /// be under way. They go on to their end also when their future is dropped.
    fn is_asynchronous(&self) -> bool {
        false
    }

    /// Fills the buffer and gives it back.
    fn read_async(
        &self,
        offset: u64,
        mut into: BytesMut,
    ) -> BoxFuture<'_, (BytesMut, Result<(), DiskError>)> {
        let done = self.read_at(offset, &mut into);
        Box::pin(std::future::ready((into, done)))
    }

    /// Writes `data` whole.
    fn write_async(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
    ) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(std::future::ready(self.write_at(offset, &data, mode)))
    }

    /// Makes every write that ended before this call durable.
    fn flush_async(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        Box::pin(std::future::ready(self.flush()))
    }
}

/// Refuses a request that is not whole blocks inside `size`.
pub(crate) fn check(what: &str, size: u64, offset: u64, length: u64) -> Result<(), DiskError> {
    let aligned = offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK);
    if aligned && offset.checked_add(length).is_some_and(|end| end <= size) {
        return Ok(());
    }
    Err(DiskError::new(
        ErrorKind::OutOfRange,
        format!("{what} of {length} bytes at {offset} on a disk of {size} bytes"),
    ))
}
