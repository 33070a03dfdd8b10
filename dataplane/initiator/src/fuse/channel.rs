//! The kernel's end of the conversation: `/dev/fuse`.

use super::abi::{self, NOTIFY_RESEND, OUT_HEADER};
use super::{MAX_WRITE, handshake};
use bytes::BytesMut;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::io::{self, IoSlice};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zerocopy::IntoBytes;

/// One request fits: header and arguments of a write, and its bytes.
const BUFFER: usize = MAX_WRITE as usize + 4096;

/// An unmounted device is not readable, it only has an error.
const INTEREST: Interest = Interest::READABLE.add(Interest::ERROR);

/// Where requests are read to.
///
/// Every page is touched once here and never given back: a worker that is killed while the kernel
/// copies a request into a page that is not present makes the kernel answer that request with
/// `EIO` (a page fault of a dying process fails), and the volume's user would see an error.
pub struct Buffer(Box<[u8]>);

impl Buffer {
    /// A buffer with all its pages present.
    pub fn new() -> Self {
        Self(vec![0xA5; BUFFER].into_boxed_slice())
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

/// What an answer carries.
#[derive(Debug)]
pub enum Answer {
    /// The request failed.
    Error(Errno),
    /// Done, nothing to say.
    Done,
    /// A structure, or bytes of a file.
    Bytes(BytesMut),
}

impl Answer {
    /// Answers with a structure of [`abi`].
    pub fn of(value: &(impl IntoBytes + zerocopy::Immutable)) -> Self {
        Self::Bytes(BytesMut::from(value.as_bytes()))
    }
}

/// A mounted session's device.
pub struct Channel {
    device: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Takes a device whose handshake is done; within a tokio runtime.
    pub fn new(device: OwnedFd) -> io::Result<Self> {
        let flags = rustix::fs::fcntl_getfl(&device)?;
        rustix::fs::fcntl_setfl(&device, flags | OFlags::NONBLOCK)?;
        Ok(Self {
            device: register(device)?,
        })
    }

    /// Waits for the next message; `None` when the file system is gone.
    pub async fn receive<'b>(&self, buffer: &'b mut Buffer) -> io::Result<Option<&'b [u8]>> {
        let length = loop {
            let mut ready = self.device.ready(INTEREST).await?;
            match ready.try_io(|device| Ok(rustix::io::read(device, &mut buffer.0[..])?)) {
                Err(_would_block) => {}
                Ok(Ok(length)) => break length,
                Ok(Err(error)) => match Errno::from_io_error(&error) {
                    // The caller gave up between queueing and reading, or a signal came.
                    Some(Errno::NOENT | Errno::INTR) => {}
                    Some(Errno::NODEV) => return Ok(None),
                    _ => return Err(error),
                },
            }
        };
        Ok(buffer.0.get(..length))
    }

    /// Answers a request. A request that the kernel no longer waits for is not an error.
    pub fn answer(&self, unique: u64, answer: &Answer) {
        let (error, payload): (i32, &[u8]) = match answer {
            Answer::Error(errno) => (-errno.raw_os_error(), &[]),
            Answer::Done => (0, &[]),
            Answer::Bytes(bytes) => (0, bytes),
        };
        match send(self.device.as_fd(), unique, error, payload) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                tracing::warn!(%errno, unique, "answer was not taken by the kernel");
                // The kernel has ended the request only when it took the answer's header; an
                // answer of a wrong length leaves it pending, and it must not hang.
                let _ = send(self.device.as_fd(), unique, -Errno::IO.raw_os_error(), &[]);
            }
        }
    }

    /// Asks for every request that an earlier worker read and did not answer.
    pub fn resend(&self) -> Result<(), Errno> {
        send(self.device.as_fd(), 0, NOTIFY_RESEND, &[])
    }
}

#[expect(
    unsafe_code,
    reason = "the only way to wait for /dev/fuse in the runtime's own poll"
)]
fn register(device: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` gives the same open descriptor from `as_raw_fd` for its whole life,
    // and `AsyncFd` owns it from here on.
    Ok(unsafe { AsyncFd::register_with_interest(device, INTEREST) }?)
}

/// Writes one message to the device in one system call, as it demands.
pub(super) fn send(
    device: BorrowedFd<'_>,
    unique: u64,
    error: i32,
    payload: &[u8],
) -> Result<(), Errno> {
    let length = OUT_HEADER + payload.len();
    let header = abi::OutHeader {
        len: length as u32,
        error,
        unique,
    };
    let parts = [IoSlice::new(header.as_bytes()), IoSlice::new(payload)];
    let parts = if payload.is_empty() {
        &parts[..1]
    } else {
        &parts[..]
    };
    rustix::io::retry_on_intr(|| rustix::io::writev(device, parts)).map(drop)
}

const _: () = assert!(BUFFER >= handshake::MIN_READ_BUFFER);
