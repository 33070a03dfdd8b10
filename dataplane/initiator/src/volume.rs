//! The file `volume`: file requests as disk requests, disk errors as file errors.
//!
//! I/O waits and never fails early: a request that meets a fence, or a disk that has no way to
//! its volume, is sent again until it gets through. What is answered with an error is what the
//! medium itself says.
//!
//! The loop device on top has blocks of 4096 bytes, so requests are whole blocks, with one
//! exception: the kernel cuts a long request at the page boundaries of the *caller's memory*, and
//! where that is not page-aligned the cut goes through a block. Such parts are read, changed and
//! written, one at a time.

use crate::fuse::abi::{FALLOC_KEEP_SIZE, FALLOC_PUNCH_HOLE, FALLOC_ZERO_RANGE};
use bytes::{Bytes, BytesMut};
use rustix::io::Errno;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, RwLock};
use weft_block::{BLOCK, Disk, DiskError, ErrorKind, Write};

/// Between two attempts of a request that was fenced, when no new path comes.
const RETRY: Duration = Duration::from_secs(1);

/// The volume's bytes.
pub struct Volume {
    disk: Arc<dyn Disk>,
    size: AtomicU64,
    /// Why requests are held here, if they are.
    held: Mutex<Option<String>>,
    /// Whole blocks are written side by side; a part of a block alone, since it is read, changed
    /// and written.
    order: RwLock<()>,
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
            order: RwLock::new(()),
            failed: AtomicU64::new(0),
            path_changed: Notify::new(),
        }
    }

    /// Bytes; 0 before the first association.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Takes a greater size; a volume never shrinks.
    pub fn grow(&self, size: u64) {
        self.size.fetch_max(size, Ordering::Relaxed);
    }

    /// Why requests are held although the disk is there.
    pub fn held(&self) -> Option<String> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Lets held requests try again.
    pub fn path_changed(&self) {
        self.path_changed.notify_waiters();
    }

    /// Reads up to `length` bytes, fewer at the end of the volume.
    pub async fn read(&self, offset: u64, length: u32) -> Result<BytesMut, Errno> {
        let length = self.size().saturating_sub(offset).min(u64::from(length));
        if length == 0 {
            return Ok(BytesMut::new());
        }
        let blocks = Blocks::around(offset, length);
        let mut whole = self.read_blocks(blocks).await?;
        if blocks.start != offset {
            drop(whole.split_to(blocks.before(offset)));
        }
        whole.truncate(usize::try_from(length).map_err(|_| Errno::INVAL)?);
        Ok(whole)
    }

    /// Writes all of `data`.
    pub async fn write(&self, offset: u64, data: Bytes, mode: Write) -> Result<(), Errno> {
        let length = data.len() as u64;
        self.within(offset, length)?;
        if aligned(offset, length) {
            let _beside_others = self.order.read().await;
            return self.write_blocks(offset, data, mode).await;
        }
        let _alone = self.order.write().await;
        let blocks = Blocks::around(offset, length);
        let mut whole = self.read_blocks(blocks).await?;
        let from = blocks.before(offset);
        whole
            .get_mut(from..from + data.len())
            .ok_or(Errno::INVAL)?
            .copy_from_slice(&data);
        self.write_blocks(blocks.start, whole.freeze(), mode).await
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
        let end = offset + length;
        let (first, last) = (offset.next_multiple_of(BLOCK), end - end % BLOCK);
        if first >= last {
            return self.write_zeros(offset, end).await;
        }
        self.write_zeros(offset, first).await?;
        self.zero_blocks(first, last - first).await?;
        self.write_zeros(last, end).await
    }

    /// Zeros over less than two blocks, for the ends of a range.
    async fn write_zeros(&self, from: u64, to: u64) -> Result<(), Errno> {
        if from == to {
            return Ok(());
        }
        let zeros = usize::try_from(to - from).map_err(|_| Errno::INVAL)?;
        self.write(from, BytesMut::zeroed(zeros).freeze(), Write::Cached)
            .await
    }

    async fn read_blocks(&self, blocks: Blocks) -> Result<BytesMut, Errno> {
        let length = usize::try_from(blocks.length).map_err(|_| Errno::INVAL)?;
        loop {
            let mut into = BytesMut::zeroed(length);
            match self.disk.read(blocks.start, &mut into).await {
                Ok(()) => return self.done(into),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    async fn write_blocks(&self, offset: u64, data: Bytes, mode: Write) -> Result<(), Errno> {
        loop {
            match self.disk.write(offset, data.clone(), mode).await {
                Ok(()) => return self.done(()),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    async fn zero_blocks(&self, offset: u64, length: u64) -> Result<(), Errno> {
        let _beside_others = self.order.read().await;
        loop {
            match self.disk.write_zeroes(offset, length).await {
                Ok(()) => return self.done(()),
                Err(error) => self.judge(error).await?,
            }
        }
    }

    fn within(&self, offset: u64, length: u64) -> Result<(), Errno> {
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

fn aligned(offset: u64, length: u64) -> bool {
    offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK)
}

/// The whole blocks that hold a range.
#[derive(Clone, Copy)]
struct Blocks {
    start: u64,
    length: u64,
}

impl Blocks {
    fn around(offset: u64, length: u64) -> Self {
        let start = offset - offset % BLOCK;
        Self {
            start,
            length: (offset + length).next_multiple_of(BLOCK) - start,
        }
    }

    /// Bytes of the first block that lie before the range.
    fn before(self, offset: u64) -> usize {
        ((offset - self.start) % BLOCK) as usize
    }
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
    use weft_block::{Fault, FaultDisk, MemoryDisk, Stamp};

    /// Answers each request with the next of its list, then with success.
    #[derive(Default)]
    struct Scripted {
        answers: Mutex<VecDeque<ErrorKind>>,
        asked: AtomicU64,
    }

    impl Scripted {
        fn volume(answers: &[ErrorKind]) -> (Arc<Self>, Volume) {
            let answers = Mutex::new(answers.iter().copied().collect());
            let disk = Arc::new(Self {
                answers,
                asked: AtomicU64::new(0),
            });
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
        async fn write_stamped(
            &self,
            _: u64,
            _: Bytes,
            _: Write,
            _: Stamp,
        ) -> Result<(), DiskError> {
            self.next()
        }
        async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
            self.next()
        }
        async fn write_zeroes_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
            self.next()
        }
        async fn discard_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
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
    async fn parts_of_blocks_change_nothing_beside_them() {
        let memory = Arc::new(MemoryDisk::new(1 << 20));
        let volume = Volume::new(memory.clone(), 1 << 20);
        let mut model = vec![0u8; 1 << 20];
        for (number, (offset, length)) in [
            (0, 4096),
            (100, 50),
            (4000, 200),
            (8192, 8191),
            (12287, 3),
            (512, 1 << 16),
        ]
        .into_iter()
        .enumerate()
        {
            let value = number as u8 + 1;
            model[offset..offset + length].fill(value);
            let data = Bytes::from(vec![value; length]);
            volume
                .write(offset as u64, data, Write::Cached)
                .await
                .unwrap();
            assert!(memory.to_bytes() == model, "write {number}");
            let back = volume.read(offset as u64, length as u32).await.unwrap();
            assert!(back[..] == model[offset..offset + length], "read {number}");
        }
        for (offset, length) in [(4095, 2), (5000, 10), (9000, 30_000), (40960, 4096)] {
            model[offset..offset + length].fill(0);
            volume
                .fallocate(offset as u64, length as u64, FALLOC_PUNCH_HOLE)
                .await
                .unwrap();
            assert!(memory.to_bytes() == model, "hole at {offset}");
        }
    }

    #[tokio::test]
    async fn two_parts_of_one_block_written_at_once_are_both_there() {
        let memory = Arc::new(MemoryDisk::new(1 << 20));
        let slow = Arc::new(FaultDisk::new(memory.clone()));
        slow.script(|_| Fault::Delay(Duration::from_millis(1)));
        let volume = Volume::new(slow, 1 << 20);
        let half = |value| Bytes::from(vec![value; 2048]);
        let (one, two, three) = tokio::join!(
            volume.write(0, half(1), Write::Cached),
            volume.write(2048, half(2), Write::Cached),
            volume.write(4096, block(), Write::Cached),
        );
        assert_eq!((one, two, three), (Ok(()), Ok(()), Ok(())));
        let bytes = memory.to_bytes();
        assert!(bytes[..2048] == half(1)[..] && bytes[2048..4096] == half(2)[..]);
    }

    #[tokio::test]
    async fn a_read_ends_at_the_end_and_a_write_does_not_pass_it() {
        let (_disk, volume) = Scripted::volume(&[]);
        assert_eq!(
            volume.read((1 << 20) - 4096, 1 << 20).await.unwrap().len(),
            4096
        );
        assert_eq!(volume.read(1 << 20, 4096).await.unwrap().len(), 0);
        assert_eq!(
            volume.write(1 << 20, block(), Write::Cached).await,
            Err(Errno::NOSPC)
        );
        let end = u64::MAX - 4095;
        assert_eq!(
            volume.write(end, block(), Write::Cached).await,
            Err(Errno::NOSPC)
        );
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
        volume.grow(2 << 20);
        volume.grow(1 << 20);
        assert_eq!(volume.size(), 2 << 20);
    }
}
