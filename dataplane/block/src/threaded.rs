use crate::medium::check;
use crate::{Disk, DiskError, ErrorKind, Medium, Stamp, Write};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;

/// A [`Medium`] as a [`Disk`]. Reads, writes and flushes of an asynchronous medium are its own
/// affair; all else runs on one of the runtime's blocking threads, whose number
/// (`max_blocking_threads`) bounds the depth and which end when idle.
#[derive(Debug)]
pub struct ThreadedDisk<M: ?Sized>(Arc<M>);

impl<M: Medium + ?Sized> ThreadedDisk<M> {
    /// Serves `medium`.
    pub fn new(medium: Arc<M>) -> Self {
        Self(medium)
    }

    async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&M) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let medium = self.0.clone();
        match tokio::task::spawn_blocking(move || request(&medium)).await {
            Ok(result) => result,
            Err(error) => {
                Err(DiskError::new(ErrorKind::Gone, "the I/O thread is gone").caused_by(error))
            }
        }
    }
}

#[async_trait]
impl<M: Medium + ?Sized> Disk for ThreadedDisk<M> {
    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        check("read", self.size(), offset, into.len() as u64)?;
        let mut buffer = std::mem::take(into);
        if self.0.is_asynchronous() {
            let (buffer, done) = self.0.read_async(offset, buffer).await;
            *into = buffer;
            return done;
        }
        let (buffer, done) = self
            .run(move |medium| {
                let done = medium.read_at(offset, &mut buffer);
                Ok((buffer, done))
            })
            .await?;
        *into = buffer;
        done
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        check("write", self.size(), offset, data.len() as u64)?;
        if self.0.is_asynchronous() {
            return self.0.write_async(offset, data, mode).await;
        }
        self.run(move |medium| medium.write_at(offset, &data, mode))
            .await
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        if self.0.is_asynchronous() {
            return self.0.flush_async().await;
        }
        self.run(|medium| medium.flush()).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        check("write zeroes", self.size(), offset, length)?;
        self.run(move |medium| medium.zero_at(offset, length)).await
    }

    async fn discard_stamped(&self, offset: u64, length: u64, _: Stamp) -> Result<(), DiskError> {
        check("discard", self.size(), offset, length)?;
        self.run(move |medium| medium.discard_at(offset, length))
            .await
    }
}
