//! A disk of which one flush fails once, and what was not flushed before is gone then: what a
//! kernel may make of one EIO of a device. The next flush succeeds, and proves nothing.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use weft_block::{BLOCK, Disk, DiskError, ErrorKind, Stamp, Write};

/// See the module.
pub struct ForgetfulDisk(Mutex<State>);

struct State {
    bytes: Vec<u8>,
    /// What was at each offset when it was last durable.
    durable: BTreeMap<usize, Vec<u8>>,
    fails: bool,
    failures: u64,
}

impl ForgetfulDisk {
    /// So many zeros.
    pub fn new(size: u64) -> Self {
        Self(Mutex::new(State {
            bytes: vec![0; usize::try_from(size).unwrap_or(0)],
            durable: BTreeMap::new(),
            fails: false,
            failures: 0,
        }))
    }

    /// Lets the next flush fail that something would be lost with, and no other.
    pub fn fail_once(&self) {
        self.state().fails = true;
    }

    /// Flushes that have failed.
    pub fn failures(&self) -> u64 {
        self.state().failures
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let mut state = self.state();
        let range = state.range(offset, data.len() as u64)?;
        for (block, new) in range
            .step_by(BLOCK as usize)
            .zip(data.chunks(BLOCK as usize))
        {
            let old = state.bytes[block..][..new.len()].to_vec();
            match mode {
                Write::Cached => drop(state.durable.entry(block).or_insert(old)),
                Write::Durable => drop(state.durable.remove(&block)),
            }
            state.bytes[block..][..new.len()].copy_from_slice(new);
        }
        Ok(())
    }
}

impl State {
    fn range(&self, offset: u64, length: u64) -> Result<std::ops::Range<usize>, DiskError> {
        let end = offset.saturating_add(length);
        if end > self.bytes.len() as u64 {
            let beyond = format!("{end} is beyond the end");
            return Err(DiskError::new(ErrorKind::OutOfRange, beyond));
        }
        // Less than the length of a Vec.
        Ok(offset as usize..end as usize)
    }
}

#[async_trait]
impl Disk for ForgetfulDisk {
    fn size(&self) -> u64 {
        self.state().bytes.len() as u64
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let state = self.state();
        let range = state.range(offset, into.len() as u64)?;
        into.copy_from_slice(&state.bytes[range]);
        Ok(())
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.change(offset, &data, mode)
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        let mut state = self.state();
        let forgotten = std::mem::take(&mut state.durable);
        if !state.fails || forgotten.is_empty() {
            return Ok(());
        }
        for (block, old) in forgotten {
            state.bytes[block..][..old.len()].copy_from_slice(&old);
        }
        state.fails = false;
        state.failures += 1;
        Err(DiskError::new(ErrorKind::MediaWrite, "flush, as asked for"))
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        let zeros = vec![0; usize::try_from(length).unwrap_or(0)];
        self.change(offset, &zeros, Write::Cached)
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.write_zeroes_stamped(offset, length, stamp).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(word: u8) -> Bytes {
        Bytes::from(vec![word; BLOCK as usize])
    }

    #[tokio::test]
    async fn a_flush_that_fails_takes_with_it_what_was_not_flushed_and_the_next_one_succeeds() {
        let disk = ForgetfulDisk::new(4 * BLOCK);
        let write = |block, word, mode| disk.write(block * BLOCK, blocks(word), mode);
        write(0, 1, Write::Cached).await.unwrap();
        disk.flush().await.unwrap();
        write(0, 2, Write::Cached).await.unwrap();
        write(1, 3, Write::Cached).await.unwrap();
        write(1, 4, Write::Durable).await.unwrap();
        write(0, 5, Write::Cached).await.unwrap();
        disk.fail_once();
        let error = disk.flush().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MediaWrite);
        disk.flush().await.unwrap();
        let mut bytes = BytesMut::zeroed(2 * BLOCK as usize);
        disk.read(0, &mut bytes).await.unwrap();
        assert_eq!((bytes[0], bytes[BLOCK as usize]), (1, 4));
        assert_eq!(disk.failures(), 1);
    }

    #[tokio::test]
    async fn a_flush_that_nothing_is_lost_with_does_not_fail() {
        let disk = ForgetfulDisk::new(BLOCK);
        disk.fail_once();
        disk.flush().await.unwrap();
        assert_eq!(disk.failures(), 0);
    }
}
