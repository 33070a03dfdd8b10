use crate::medium::check;
use crate::{Disk, DiskError, Medium, Stamp, Write};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes in memory, as a [`Disk`] and as a [`Medium`]: for tests and benchmarks.
pub struct MemoryDisk(Mutex<Vec<u8>>);

impl MemoryDisk {
    /// All zeros; `size` is rounded down to whole blocks.
    pub fn new(size: u64) -> Self {
        Self::from_bytes(vec![
            0;
            usize::try_from(size - size % crate::BLOCK).unwrap_or(0)
        ])
    }

    /// Starts with these bytes, whose number is a multiple of the block size.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(Mutex::new(bytes))
    }

    /// A copy of everything on it.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes().clone()
    }

    /// Grows it by zeros to `size`, a multiple of the block size; never shrinks it.
    pub fn grow(&self, size: u64) {
        let mut bytes = self.bytes();
        let size = usize::try_from(size).unwrap_or(0).max(bytes.len());
        bytes.resize(size, 0);
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        what: &str,
        offset: u64,
        length: u64,
        act: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T, DiskError> {
        let mut bytes = self.bytes();
        check(what, bytes.len() as u64, offset, length)?;
        // The check above bounds both by a length that is a usize.
        let start = offset as usize;
        Ok(act(&mut bytes[start..start + length as usize]))
    }
}

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MemoryDisk({} bytes)", self.bytes().len())
    }
}

impl Medium for MemoryDisk {
    fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        self.with("read", offset, into.len() as u64, |bytes| {
            into.copy_from_slice(bytes)
        })
    }

    fn write_at(&self, offset: u64, data: &[u8], _mode: Write) -> Result<(), DiskError> {
        self.with("write", offset, data.len() as u64, |bytes| {
            bytes.copy_from_slice(data)
        })
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.with("write zeroes", offset, length, |bytes| bytes.fill(0))
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.with("discard", offset, length, |bytes| bytes.fill(0))
    }
}

#[async_trait]
impl Disk for MemoryDisk {
    fn size(&self) -> u64 {
        Medium::size(self)
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.read_at(offset, into)
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.write_at(offset, &data, mode)
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.zero_at(offset, length)
    }

    async fn discard_stamped(&self, offset: u64, length: u64, _: Stamp) -> Result<(), DiskError> {
        self.discard_at(offset, length)
    }
}
