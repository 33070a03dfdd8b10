//! The volume as a host sees it that has not been told of a loss: acknowledged bytes are gone, so a
//! Flush or a write through to the medium is answered with a write fault for good, until the host
//! is admitted anew (design section 6, rule 7). All else is done as ever: what was flushed before
//! the loss is there, and whoever looks after it needs it.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_spec::ids::AttachGeneration;

/// See the module.
pub struct Untold {
    below: Arc<dyn Disk>,
    loss: AttachGeneration,
}

impl Untold {
    /// What a host of this generation gets of `below`, after a `loss` that hosts admitted with that
    /// generation or an earlier one do not know of.
    pub fn unless_told(
        below: &Arc<dyn Disk>,
        host: AttachGeneration,
        loss: Option<AttachGeneration>,
    ) -> Arc<dyn Disk> {
        match loss.filter(|loss| host <= *loss) {
            Some(loss) => Arc::new(Self {
                below: below.clone(),
                loss,
            }),
            None => below.clone(),
        }
    }

    fn fault(&self) -> DiskError {
        DiskError::new(
            ErrorKind::Lost,
            format!(
                "acknowledged writes were lost while hosts up to generation {} were admitted",
                self.loss
            ),
        )
    }
}

#[async_trait]
impl Disk for Untold {
    fn size(&self) -> u64 {
        self.below.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.below.read(offset, into).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        match mode {
            Write::Durable => Err(self.fault()),
            Write::Cached => self.below.write_stamped(offset, data, mode, stamp).await,
        }
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Err(self.fault())
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.below.write_zeroes_stamped(offset, length, stamp).await
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.below.discard_stamped(offset, length, stamp).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_test::{assert_ready, assert_ready_ok, task};
    use weft_block::{BLOCK, MemoryDisk};

    fn volume(host: u64, loss: Option<u64>) -> Arc<dyn Disk> {
        let below: Arc<dyn Disk> = Arc::new(MemoryDisk::new(8 * BLOCK));
        Untold::unless_told(&below, AttachGeneration(host), loss.map(AttachGeneration))
    }

    fn kind(answer: Result<(), DiskError>) -> Result<(), ErrorKind> {
        answer.map_err(|error| error.kind())
    }

    #[test]
    fn nothing_is_said_to_be_durable_to_a_host_that_was_admitted_before_the_loss() {
        let block = Bytes::from_static(&[7; BLOCK as usize]);
        let fault = Err(ErrorKind::Lost);
        for (host, loss, said) in [
            (4, None, Ok(())),
            (4, Some(3), Ok(())),
            (3, Some(3), fault),
            (2, Some(3), fault),
        ] {
            let volume = volume(host, loss);
            let flushed = assert_ready!(task::spawn(volume.flush()).poll());
            let through = volume.write(0, block.clone(), Write::Durable);
            let through = assert_ready!(task::spawn(through).poll());
            assert_eq!(kind(flushed), said, "a flush of {host} after {loss:?}");
            assert_eq!(kind(through), said, "a write of {host} after {loss:?}");
        }
    }

    #[test]
    fn all_else_goes_on_after_a_loss() {
        let volume = volume(1, Some(1));
        let block = Bytes::from_static(&[7; BLOCK as usize]);
        assert_eq!(volume.size(), 8 * BLOCK);
        assert_ready_ok!(task::spawn(volume.write(0, block.clone(), Write::Cached)).poll());
        let mut into = BytesMut::zeroed(BLOCK as usize);
        assert_ready_ok!(task::spawn(volume.read(0, &mut into)).poll());
        assert_eq!(into, block);
        assert_ready_ok!(task::spawn(volume.write_zeroes(0, BLOCK)).poll());
        assert_ready_ok!(task::spawn(volume.discard(0, BLOCK)).poll());
        assert_ready_ok!(task::spawn(volume.read(0, &mut into)).poll());
        assert_eq!(into, [0; BLOCK as usize][..]);
    }
}
