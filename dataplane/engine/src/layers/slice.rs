//! The bottom layer: one slice, used from its first byte to the volume's size.
//!
//! When the drive says that a newer fence pair is in force, this engine must acknowledge nothing
//! more, neither with success nor with an error: the host would hand the error to its user,
//! while the newer engine would have done the work (design section 6, rule 10). So the request
//! that meets the fence, and all after it, stay without an answer, and the fence is told.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;
use weft_block::{BLOCK, Disk, DiskError, ErrorKind, Stamp, Write};

/// A slice as the bottom of a volume.
pub struct Slice {
    below: Arc<dyn Disk>,
    /// Grows, never shrinks.
    size: AtomicU64,
    fenced: CancellationToken,
}

impl Slice {
    /// The first `size` bytes of `below`; `fenced` is cancelled when a newer pair is met.
    pub fn new(below: Arc<dyn Disk>, size: u64, fenced: CancellationToken) -> Self {
        Self {
            below,
            size: AtomicU64::new(size),
            fenced,
        }
    }

    /// From now on the first `size` bytes of `below`, which has them already.
    pub fn grow(&self, size: u64) {
        self.size.fetch_max(size, Ordering::AcqRel);
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let aligned = offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK);
        let inside = offset
            .checked_add(length)
            .is_some_and(|end| end <= self.size());
        if aligned && inside {
            Ok(())
        } else {
            let context = format!("{length} bytes at {offset} of a volume of {}", self.size());
            Err(DiskError::new(ErrorKind::OutOfRange, context))
        }
    }

    /// Lets every answer pass but the one that must never be given, and none after it.
    async fn unless_fenced(&self, answer: Result<(), DiskError>) -> Result<(), DiskError> {
        if matches!(&answer, Err(error) if error.kind() == ErrorKind::Fenced) {
            self.fenced.cancel();
        }
        if self.fenced.is_cancelled() {
            std::future::pending::<()>().await;
        }
        answer
    }
}

#[async_trait]
impl Disk for Slice {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.check(offset, into.len() as u64)?;
        let answer = self.below.read(offset, into).await;
        self.unless_fenced(answer).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.check(offset, data.len() as u64)?;
        let answer = self.below.write(offset, data, mode).await;
        self.unless_fenced(answer).await
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        let answer = self.below.flush().await;
        self.unless_fenced(answer).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.check(offset, length)?;
        let answer = self.below.write_zeroes(offset, length).await;
        self.unless_fenced(answer).await
    }

    async fn discard_stamped(&self, offset: u64, length: u64, _: Stamp) -> Result<(), DiskError> {
        self.check(offset, length)?;
        let answer = self.below.discard(offset, length).await;
        self.unless_fenced(answer).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use tokio_test::{assert_pending, assert_ready_ok, task};

    /// Answers everything at once: with success, or with the fence.
    #[derive(Default)]
    struct Below {
        fenced: AtomicBool,
    }

    impl Below {
        fn answer(&self) -> Result<(), DiskError> {
            if self.fenced.load(Ordering::Relaxed) {
                Err(DiskError::new(ErrorKind::Fenced, "newer pair"))
            } else {
                Ok(())
            }
        }
    }

    #[async_trait]
    impl Disk for Below {
        fn size(&self) -> u64 {
            1 << 20
        }
        async fn read(&self, _: u64, _: &mut BytesMut) -> Result<(), DiskError> {
            self.answer()
        }
        async fn write_stamped(
            &self,
            _: u64,
            _: Bytes,
            _: Write,
            _: Stamp,
        ) -> Result<(), DiskError> {
            self.answer()
        }
        async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
            self.answer()
        }
        async fn write_zeroes_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
            self.answer()
        }
        async fn discard_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
            self.answer()
        }
    }

    fn slice() -> (Arc<Below>, Slice) {
        let below = Arc::new(Below::default());
        let slice = Slice::new(below.clone(), 8 * BLOCK, CancellationToken::new());
        (below, slice)
    }

    #[test]
    fn the_request_that_meets_the_fence_and_all_after_it_stay_without_an_answer() {
        let (below, slice) = slice();
        assert_ready_ok!(task::spawn(slice.flush()).poll());
        below.fenced.store(true, Ordering::Relaxed);
        assert_pending!(task::spawn(slice.write_zeroes(0, BLOCK)).poll());
        assert!(slice.fenced.is_cancelled());
        below.fenced.store(false, Ordering::Relaxed);
        assert_pending!(task::spawn(slice.flush()).poll());
        let data = Bytes::from_static(&[0; BLOCK as usize]);
        assert_pending!(task::spawn(slice.write(0, data, Write::Cached)).poll());
        let mut into = BytesMut::zeroed(BLOCK as usize);
        assert_pending!(task::spawn(slice.read(0, &mut into)).poll());
        assert_pending!(task::spawn(slice.discard(0, BLOCK)).poll());
    }

    #[test]
    fn a_volume_ends_where_its_document_says_though_the_slice_is_larger() {
        let (_, slice) = slice();
        assert_eq!(slice.size(), 8 * BLOCK);
        assert_ready_ok!(task::spawn(slice.discard(7 * BLOCK, BLOCK)).poll());
        for (offset, length) in [
            (8 * BLOCK, BLOCK),
            (7 * BLOCK, 2 * BLOCK),
            (u64::MAX - 4095, BLOCK),
            (1, BLOCK),
        ] {
            let answer = task::spawn(slice.discard(offset, length)).poll();
            let kind = answer.map(|answer| answer.unwrap_err().kind());
            assert_eq!(
                kind,
                std::task::Poll::Ready(ErrorKind::OutOfRange),
                "{offset} {length}"
            );
        }
    }

    #[test]
    fn a_slice_grows_while_it_is_used_and_never_shrinks() {
        let (_, slice) = slice();
        slice.grow(16 * BLOCK);
        assert_ready_ok!(task::spawn(slice.discard(15 * BLOCK, BLOCK)).poll());
        slice.grow(8 * BLOCK);
        assert_eq!(slice.size(), 16 * BLOCK);
    }
}
