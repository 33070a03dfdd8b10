use crate::{Disk, DiskError, ErrorKind, Stamp, Write};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// One request as a fault script sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// Which it is.
    pub operation: Operation,
    /// Byte offset; 0 for a flush.
    pub offset: u64,
    /// Bytes; 0 for a flush.
    pub length: u64,
    /// Number of requests that this disk took before.
    pub sequence: u64,
}

/// The kinds of request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// [`Disk::read`].
    Read,
    /// [`Disk::write`].
    Write,
    /// [`Disk::flush`].
    Flush,
    /// [`Disk::write_zeroes`].
    WriteZeroes,
    /// [`Disk::discard`].
    Discard,
}

/// What happens to one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Passed on.
    None,
    /// Refused without being passed on.
    Fail(ErrorKind),
    /// Passed on, but answered with an error.
    Lie(ErrorKind),
    /// Passed on after this time.
    Delay(Duration),
    /// Passed on when [`FaultDisk::release`] is called next.
    Hold,
}

type Script = Box<dyn FnMut(Request) -> Fault + Send>;

/// Wraps any disk; a script decides what happens to each request. For tests.
pub struct FaultDisk {
    inner: Arc<dyn Disk>,
    script: Mutex<Script>,
    requests: AtomicU64,
    releases: watch::Sender<u64>,
}

impl FaultDisk {
    /// Starts without faults.
    pub fn new(inner: Arc<dyn Disk>) -> Self {
        Self {
            inner,
            script: Mutex::new(Box::new(|_| Fault::None)),
            requests: AtomicU64::new(0),
            releases: watch::Sender::new(0),
        }
    }

    /// Replaces the script; requests under way keep what they got.
    pub fn script(&self, script: impl FnMut(Request) -> Fault + Send + 'static) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Lets every held request go on.
    pub fn release(&self) {
        self.releases.send_modify(|count| *count += 1);
    }

    /// Requests taken so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Does what the script says before the request; gives the error to answer with afterwards.
    async fn meet(
        &self,
        operation: Operation,
        offset: u64,
        length: u64,
    ) -> Result<Option<DiskError>, DiskError> {
        let sequence = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut releases = self.releases.subscribe();
        let fault = {
            let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
            script(Request {
                operation,
                offset,
                length,
                sequence,
            })
        };
        let error = |kind| DiskError::new(kind, format!("injected into {operation:?} at {offset}"));
        match fault {
            Fault::None => Ok(None),
            Fault::Fail(kind) => Err(error(kind)),
            Fault::Lie(kind) => Ok(Some(error(kind))),
            Fault::Delay(time) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            Fault::Hold => {
                // An error means that this disk is gone, and nothing waits then.
                let _ = releases.changed().await;
                Ok(None)
            }
        }
    }
}

fn answer(done: Result<(), DiskError>, lie: Option<DiskError>) -> Result<(), DiskError> {
    done.and_then(|()| lie.map_or(Ok(()), Err))
}

#[async_trait]
impl Disk for FaultDisk {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let lie = self
            .meet(Operation::Read, offset, into.len() as u64)
            .await?;
        answer(self.inner.read(offset, into).await, lie)
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let lie = self
            .meet(Operation::Write, offset, data.len() as u64)
            .await?;
        let done = self.inner.write_stamped(offset, data, mode, stamp).await;
        answer(done, lie)
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        let lie = self.meet(Operation::Flush, 0, 0).await?;
        answer(self.inner.flush_stamped(stamp).await, lie)
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let lie = self.meet(Operation::WriteZeroes, offset, length).await?;
        let done = self.inner.write_zeroes_stamped(offset, length, stamp).await;
        answer(done, lie)
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let lie = self.meet(Operation::Discard, offset, length).await?;
        let done = self.inner.discard_stamped(offset, length, stamp).await;
        answer(done, lie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;

    #[tokio::test]
    async fn the_script_sees_each_request_and_decides() {
        let disk = FaultDisk::new(Arc::new(MemoryDisk::new(1 << 20)));
        disk.script(|request| match request.operation {
            Operation::Write if request.offset == 4096 => Fault::Fail(ErrorKind::MediaWrite),
            Operation::Flush => Fault::Lie(ErrorKind::Gone),
            _ => Fault::None,
        });
        let data = Bytes::from(vec![1u8; 4096]);
        assert!(disk.write(0, data.clone(), Write::Cached).await.is_ok());
        let failed = disk.write(4096, data, Write::Cached).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::MediaWrite);
        assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Gone);
        assert_eq!(disk.requests(), 3);
    }

    #[tokio::test]
    async fn a_held_request_goes_on_when_released() {
        let disk = Arc::new(FaultDisk::new(Arc::new(MemoryDisk::new(1 << 20))));
        disk.script(|_| Fault::Hold);
        let held = tokio::spawn({
            let disk = disk.clone();
            async move { disk.flush().await }
        });
        while disk.requests() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!held.is_finished());
        disk.release();
        held.await.unwrap().unwrap();
    }
}
