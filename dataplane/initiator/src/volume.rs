//! The file `volume`: file requests as disk requests, disk errors as file errors.
//!
//! I/O waits and never fails early: a request that meets a fence, or a disk that has no way to
//! its volume, is sent again until it gets through. What is answered with an error is what the
//! medium itself says.

use crate::fuse::abi::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE};
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use weft_block::{BLOCK, Disk, DiskError, ErrorKind, Write};

/// Between two attempts of a request that was fenced, when no new path comes.
const RETRY: Duration = Duration::from_secs(1);

/// The volume's bytes.
pub struct Volume {
    disk: Arc<dyn Disk>,
    size: AtomicU64,
    /// Why requests are held here, if they are.
    held: Mutex<Option<String>>,
    /// Requests that ended with an error.
    failed: AtomicU64,
    /// Told when a new path makes another attempt worth it.
    path_changed: Notify,
}

impl Volume {
    /// A volume of `size` bytes; 0 when that is not known yet.
    pub fn new(disk: Arc<dyn Disk>, size: u64) -> Self {
        Self {
            disk,
            size: AtomicU64::new(size),
            held: Mutex::default(),
            failed: AtomicU64::new(0),
            path_changed: Notify::new(),
        }
    }

    /// Bytes; 0 before the first association.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Takes a greater size; a volume never shrinks. Tells whether it grew.
    pub fn grow(&self, size: u64) -> bool {
        self.size.fetch_max(size, Ordering::Relaxed) < size
    }

    /// Why requests are held although the disk is there.
    pub fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets held requests try again.
    pub fn path_changed(&self) {
        self.path_changed.notify_waiters();
    }

    /// Reads up to `length` bytes, fewer at the end of the volume.
    pub async fn read(&self, offset: u64, length: u32) -> Result<BytesMut, Errno> {
        aligned(offset, u64::from(length))?;
        let length = self.size().saturating_sub(offset).min(u64::from(length));
        if length == 0 {
            return Ok(BytesMut::new());
        }
        let length = usize::try_from(length).map_err(|_| Errno::INVAL)?;
        loop {
            let mut into = BytesMut::zeroed(length);
            match self.disk.read(offset, &mut into).await {
                Ok(()) => return self.done(into),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    /// Writes all of `data`.
    pub async fn write(&self, offset: u64, data: Bytes, mode: Write) -> Result<(), Errno> {
        self.within(offset, data.len() as u64)?;
        loop {
            match self.disk.write(offset, data.clone(), mode).await {
                Ok(()) => return self.done(()),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    /// Makes what was written durable.
    pub async fn sync(&self) -> Result<(), Errno> {
        loop {
            match self.disk.flush().await {
                Ok(()) => return self.done(()),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    /// `fallocate`: punching a hole and zeroing a range are the same here, both read as zeros
    /// afterwards and free what they can.
    pub async fn fallocate(&self, offset: u64, length: u64, mode: u32) -> Result<(), Errno> {
        match mode & !FALLOC_KEEP_SIZE {
            FALLOC_PUNCH_HOLE | FALLOC_ZERO_RANGE => {}
            _ => return Err(Errno::OPNOTSUPP),
        }
        self.within(offset, length)?;
        loop {
            match self.disk.write_zeroes(offset, length).await {
                Ok(()) => return self.done(()),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    fn within(&self, offset: u64, length: u64) -> Result<(), Errno> {
        aligned(offset, length)?;
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(()),
            // As a block device says it.
            _ => Err(Errno::NOSPC),
        }
    }

    fn done<T>(&self, value: T) -> Result<T, Errno> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.take().is_some() {
            tracing::info!("held requests get through again");
        }
        Ok(value)
    }

    /// An error for the caller, or `Ok` after a wait when the request is to be sent again.
    async fn judge(&self, error: DiskError) -> Result<(), Errno> {
        if let Some(errno) = errno(error.kind()) {
            let count = self.failed.fetch_add(1, Ordering::Relaxed) + 1;
            // A broken medium fails every request: the log gets the first, the 2nd, 4th, 8th …
            if count.is_power_of_two() {
                tracing::warn!(%error, count, "a request of the volume's user failed");
            }
            return Err(errno);
        }
        let changed = self.path_changed.notified();
        {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.replace(error.to_string()).is_none() {
                tracing::warn!(%error, "requests are held until the volume moved or admits this host");
            }
        }
        let _ = tokio::time::timeout(RETRY, changed).await;
        Ok(())
    }
}

/// Every address and length is a multiple of the block: the loop device on top has that block
/// size, and read-modify-write here would tear what other hosts' blocks promise.
fn aligned(offset: u64, length: u64) -> Result<(), Errno> {
    if offset % BLOCK == 0 && length % BLOCK == 0 { Ok(()) } else { Err(Errno::INVAL) }
}

/// What the volume's user is told; `None` for what is waited out.
fn errno(kind: ErrorKind) -> Option<Errno> {
    Some(match kind {
        ErrorKind::Fenced | ErrorKind::Gone => return None,
        ErrorKind::MediaRead | ErrorKind::MediaWrite => Errno::IO,
        ErrorKind::NoSpace => Errno::NOSPC,
        ErrorKind::ReadOnly => Errno::ROFS,
        ErrorKind::OutOfRange => Errno::INVAL,
        ErrorKind::Unsupported => Errno::OPNOTSUPP,
        _ => Errno::IO,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;
    use std::collections::VecDeque;

    /// Answers each request with the next of its list, then with success.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<ErrorKind>>,
        asked: AtomicU64,
    }

    impl Scripted {
        fn volume(answers: &[ErrorKind]) -> (Arc<Self>, Volume) {
            let answers = Mutex::new(answers.iter().copied().collect());
            let disk = Arc::new(Self { answers, asked: AtomicU64::new(0) });
            (disk.clone(), Volume::new(disk, 1 << 20))
        }

        fn next(&self) -> Result<(), DiskError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            match self.answers.lock().unwrap().pop_front() {
                Some(kind) => Err(DiskError::new(kind, "scripted")),
                None => Ok(()),
            }
        }
    }

    #[async_trait]
    impl Disk for Scripted {
        fn size(&self) -> u64 {
            1 << 20
        }
        async fn read(&self, _: u64, into: &mut BytesMut) -> Result<(), DiskError> {
            into.fill(7);
            self.next()
        }
        async fn write(&self, _: u64, _: Bytes, _: Write) -> Result<(), DiskError> {
            self.next()
        }
        async fn flush(&self) -> Result<(), DiskError> {
            self.next()
        }
        async fn write_zeroes(&self, _: u64, _: u64) -> Result<(), DiskError> {
            self.next()
        }
        async fn discard(&self, _: u64, _: u64) -> Result<(), DiskError> {
            self.next()
        }
    }

    fn block() -> Bytes {
        Bytes::from(vec![1u8; 4096])
    }

    #[tokio::test(start_paused = true)]
    async fn a_fenced_write_waits_and_is_sent_again_and_says_so() {
        let (disk, volume) = Scripted::volume(&[ErrorKind::Fenced, ErrorKind::Gone]);
        let write = volume.write(0, block(), Write::Cached);
        let watch = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            assert!(volume.held().unwrap().contains("Fenced"));
            volume.path_changed();
        };
        let (answer, ()) = tokio::join!(write, watch);
        assert_eq!(answer, Ok(()));
        assert_eq!(disk.asked.load(Ordering::Relaxed), 3);
        assert_eq!(volume.held(), None);
    }

    #[tokio::test]
    async fn what_the_medium_says_reaches_the_caller() {
        for (kind, expected) in [
            (ErrorKind::MediaRead, Errno::IO),
            (ErrorKind::NoSpace, Errno::NOSPC),
            (ErrorKind::ReadOnly, Errno::ROFS),
        ] {
            let (_disk, volume) = Scripted::volume(&[kind, kind]);
            assert_eq!(volume.write(0, block(), Write::Cached).await, Err(expected));
            assert_eq!(volume.sync().await, Err(expected));
        }
    }

    #[tokio::test]
    async fn half_blocks_are_refused_and_nothing_is_sent() {
        let (disk, volume) = Scripted::volume(&[]);
        assert_eq!(volume.read(512, 4096).await.unwrap_err(), Errno::INVAL);
        assert_eq!(volume.read(0, 512).await.unwrap_err(), Errno::INVAL);
        let half = block().slice(..2048);
        assert_eq!(volume.write(0, half, Write::Cached).await, Err(Errno::INVAL));
        assert_eq!(volume.fallocate(0, 100, FALLOC_PUNCH_HOLE).await, Err(Errno::INVAL));
        assert_eq!(disk.asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_read_ends_at_the_end_and_a_write_does_not_pass_it() {
        let (_disk, volume) = Scripted::volume(&[]);
        assert_eq!(volume.read((1 << 20) - 4096, 1 << 20).await.unwrap().len(), 4096);
        assert_eq!(volume.read(1 << 20, 4096).await.unwrap().len(), 0);
        assert_eq!(volume.write(1 << 20, block(), Write::Cached).await, Err(Errno::NOSPC));
        let end = u64::MAX - 4095;
        assert_eq!(volume.write(end, block(), Write::Cached).await, Err(Errno::NOSPC));
    }

    #[tokio::test]
    async fn a_preallocation_is_not_supported_and_a_hole_is() {
        let (_disk, volume) = Scripted::volume(&[]);
        assert_eq!(volume.fallocate(0, 4096, 0).await, Err(Errno::OPNOTSUPP));
        let hole = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
        assert_eq!(volume.fallocate(0, 4096, hole).await, Ok(()));
    }

    #[test]
    fn a_volume_grows_and_never_shrinks() {
        let (_disk, volume) = Scripted::volume(&[]);
        assert!(volume.grow(2 << 20));
        assert!(!volume.grow(1 << 20));
        assert_eq!(volume.size(), 2 << 20);
    }
}
