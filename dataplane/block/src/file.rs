mod hold;

use crate::medium::check;
use crate::uring::{Kept, Ring};
use crate::{AlignedBuf, BLOCK, DiskError, ErrorKind, Medium, Write};
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
pub use hold::OpenError;
use hold::{end_of, expect, hold_file, preallocate, require, system, try_direct};
use rustix::fs::{FallocateFlags, FileType, Mode, OFlags, fallocate, fdatasync, fstat, open, stat};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to wait between two tries to hold a block device: the kernel tells nobody when an
/// exclusive opener closes. Reached only when two processes want one device.
const HOLD_RETRY: Duration = Duration::from_millis(250);

/// What the log says of the back-end without a ring.
const PLAIN: &str = "preadv and pwritev on threads";

/// How a medium is asked (design section 5): a choice of the process, made at its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Io {
    /// io_uring where the kernel and the container's seccomp profile allow it, else plain.
    #[default]
    Auto,
    /// preadv and pwritev on threads.
    Plain,
    /// io_uring or nothing.
    Uring,
}

impl FromStr for Io {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word {
            "auto" => Ok(Self::Auto),
            "plain" => Ok(Self::Plain),
            "io_uring" => Ok(Self::Uring),
            other => Err(format!("{other:?} is none of auto, plain and io_uring")),
        }
    }
}

/// A regular file or a block device, held exclusively for life by the very descriptor that does
/// the I/O (design section 5, Hold). O_DIRECT, so that what is acknowledged does not live in this
/// machine's page cache; buffered where the file system refuses, which is logged.
#[derive(Debug)]
pub struct FileMedium {
    fd: Arc<OwnedFd>,
    /// Without one, system calls that block.
    ring: Option<Ring>,
    path: PathBuf,
    size: u64,
    direct: bool,
    /// Cleared when the kernel refuses RWF_DSYNC: a flush after each durable write instead.
    dsync: AtomicBool,
}

impl FileMedium {
    /// Opens the file as it is, or makes and preallocates it with `size` bytes if there is none
    /// or an empty one. Blocks until no other process holds it; `waiting` is called once if it must wait.
    pub fn open_file(
        path: &Path,
        size: u64,
        io: Io,
        waiting: impl FnOnce(),
    ) -> Result<Self, OpenError> {
        let failed = |call| system(call, path);
        let mut waiting = Some(waiting);
        let fd = loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            let fd = open(path, flags, Mode::RUSR | Mode::WUSR).map_err(failed("open"))?;
            require(&fd, path, FileType::RegularFile, "regular file")?;
            hold_file(&fd, &mut waiting).map_err(failed("lock"))?;
            // While this waited for the lock, the name may have been given to another file.
            let (held, named) = (fstat(&fd).map_err(failed("stat"))?, stat(path));
            if named.is_ok_and(|named| (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)) {
                break fd;
            }
        };
        if end_of(&fd).map_err(failed("seek"))? == 0 {
            preallocate(&fd, path, size)?;
        }
        Self::of(fd, path, io)
    }

    /// Makes a file longer that was left too short when its maker died. Only for one whose bytes
    /// are known to be nobody's.
    pub fn extend(&mut self, size: u64) -> Result<(), OpenError> {
        if self.size < size {
            preallocate(&self.fd, &self.path, size)?;
            self.size = size - size % BLOCK;
        }
        Ok(())
    }

    /// Opens a block device, whole. Blocks until nothing else holds it (another process, a mount,
    /// a volume manager); `waiting` is called once if it must wait.
    pub fn open_device(path: &Path, io: Io, waiting: impl FnOnce()) -> Result<Self, OpenError> {
        let found = stat(path).map_err(system("stat", path))?;
        expect(
            FileType::from_raw_mode(found.st_mode),
            path,
            FileType::BlockDevice,
            "block device",
        )?;
        let mut waiting = Some(waiting);
        loop {
            // O_EXCL without O_CREAT claims a block device (open(2)).
            match open(
                path,
                OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC,
                Mode::empty(),
            ) {
                Ok(fd) => {
                    require(&fd, path, FileType::BlockDevice, "block device")?;
                    return Self::of(fd, path, io);
                }
                Err(Errno::BUSY) => {
                    if let Some(waiting) = waiting.take() {
                        waiting();
                    }
                    std::thread::sleep(HOLD_RETRY);
                }
                Err(error) => return Err(system("open", path)(error)),
            }
        }
    }

    fn of(fd: OwnedFd, path: &Path, io: Io) -> Result<Self, OpenError> {
        let size = end_of(&fd).map_err(system("seek", path))?;
        if size < BLOCK {
            return Err(OpenError::TooSmall {
                path: path.to_owned(),
                size,
            });
        }
        let direct = try_direct(&fd, path);
        let fd = Arc::new(fd);
        let (ring, backend) = choose(&fd, path, io)?;
        tracing::info!(
            path = %path.display(),
            size,
            cache = if direct { "O_DIRECT" } else { "buffered: O_DIRECT is refused here" },
            backend,
            "medium held"
        );
        let size = size - size % BLOCK;
        Ok(Self {
            fd,
            ring,
            path: path.to_owned(),
            size,
            direct,
            dsync: AtomicBool::new(true),
        })
    }

    /// Whether the page cache is bypassed.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    fn error(&self, kind: ErrorKind, what: &str, offset: u64, cause: Errno) -> DiskError {
        DiskError::new(kind, format!("{what} {} at {offset}", self.path.display())).caused_by(cause)
    }

    fn write_aligned(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let durable = self.writes_durably(mode);
        let put = |durable| match &self.ring {
            Some(ring) => ring.write(offset, data, durable),
            None => write_all(&self.fd, offset, data, durable),
        };
        let mut done = put(durable);
        if self.lacks_dsync(durable, done) {
            done = put(false);
        }
        self.wrote(offset, done)?;
        match self.needs_flush(mode) {
            true => self.flush(),
            false => Ok(()),
        }
    }

    fn read_aligned(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        match &self.ring {
            Some(ring) => ring.read(offset, into),
            None => read_all(&self.fd, offset, into),
        }
    }

    /// Whether a write is asked to be durable by itself.
    fn writes_durably(&self, mode: Write) -> bool {
        mode == Write::Durable && self.dsync.load(Ordering::Relaxed)
    }

    /// Whether the kernel refused RWF_DSYNC; it is not asked for again.
    fn lacks_dsync(&self, asked: bool, done: Result<(), Errno>) -> bool {
        let lacks = asked && matches!(done, Err(Errno::OPNOTSUPP | Errno::INVAL));
        if lacks {
            self.dsync.store(false, Ordering::Relaxed);
        }
        lacks
    }

    /// Whether a write of this mode that has ended is durable only after a flush.
    fn needs_flush(&self, mode: Write) -> bool {
        mode == Write::Durable && !self.dsync.load(Ordering::Relaxed)
    }

    fn read_done(&self, offset: u64, done: Result<(), Errno>) -> Result<(), DiskError> {
        done.map_err(|cause| self.error(ErrorKind::MediaRead, "read", offset, cause))
    }

    fn wrote(&self, offset: u64, done: Result<(), Errno>) -> Result<(), DiskError> {
        done.map_err(|cause| self.error(ErrorKind::MediaWrite, "write", offset, cause))
    }

    fn flushed(&self, done: Result<(), Errno>) -> Result<(), DiskError> {
        done.map_err(|cause| self.error(ErrorKind::MediaWrite, "flush", 0, cause))
    }

    async fn ring_read(
        &self,
        ring: &Ring,
        offset: u64,
        into: BytesMut,
    ) -> (BytesMut, Result<(), DiskError>) {
        if let Err(error) = check("read", self.size, offset, into.len() as u64) {
            return (into, Err(error));
        }
        if !self.direct || AlignedBuf::fits(&into) {
            let (memory, done) = ring.read_into(offset, Kept::Into(into)).await;
            let Kept::Into(into) = memory else {
                return (BytesMut::new(), self.read_done(offset, Err(Errno::IO)));
            };
            return (into, self.read_done(offset, done));
        }
        let mut into = into;
        let memory = Kept::Aligned(AlignedBuf::zeroed(into.len()));
        let (memory, done) = ring.read_into(offset, memory).await;
        if let (Kept::Aligned(buffer), Ok(())) = (&memory, done) {
            let length = into.len();
            into.copy_from_slice(&buffer[..length]);
        }
        (into, self.read_done(offset, done))
    }

    async fn ring_write(
        &self,
        ring: &Ring,
        offset: u64,
        data: Bytes,
        mode: Write,
    ) -> Result<(), DiskError> {
        check("write", self.size, offset, data.len() as u64)?;
        let data = if !self.direct || AlignedBuf::fits(&data) {
            Kept::From(data)
        } else {
            Kept::Aligned(AlignedBuf::copy_of(&data))
        };
        let durable = self.writes_durably(mode);
        let (data, mut done) = ring.write_from(offset, data, durable).await;
        if self.lacks_dsync(durable, done) {
            (_, done) = ring.write_from(offset, data, false).await;
        }
        self.wrote(offset, done)?;
        match self.needs_flush(mode) {
            true => self.flushed(ring.flushed().await),
            false => Ok(()),
        }
    }
}

impl Medium for FileMedium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        check("read", self.size, offset, into.len() as u64)?;
        let done = if !self.direct || AlignedBuf::fits(into) {
            self.read_aligned(offset, into)
        } else {
            let mut buffer = AlignedBuf::zeroed(into.len());
            self.read_aligned(offset, &mut buffer)
                .map(|()| into.copy_from_slice(&buffer[..into.len()]))
        };
        self.read_done(offset, done)
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        check("write", self.size, offset, data.len() as u64)?;
        if !self.direct || AlignedBuf::fits(data) {
            return self.write_aligned(offset, data, mode);
        }
        self.write_aligned(offset, &AlignedBuf::copy_of(data), mode)
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.flushed(match &self.ring {
            Some(ring) => ring.flush(),
            None => fdatasync(&self.fd),
        })
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        check("write zeroes", self.size, offset, length)?;
        if length == 0 || fallocate(&self.fd, FallocateFlags::ZERO_RANGE, offset, length).is_ok() {
            return Ok(());
        }
        let zeros = AlignedBuf::zeroed(length.min(1 << 20) as usize);
        let mut done = 0;
        while done < length {
            let step = (length - done).min(zeros.len() as u64);
            self.write_aligned(offset + done, &zeros[..step as usize], Write::Cached)?;
            done += step;
        }
        Ok(())
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        check("discard", self.size, offset, length)?;
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.fd, flags, offset, length) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) => Ok(()),
            done => {
                done.map_err(|cause| self.error(ErrorKind::MediaWrite, "discard", offset, cause))
            }
        }
    }

    fn is_asynchronous(&self) -> bool {
        self.ring.is_some()
    }

    fn read_async(
        &self,
        offset: u64,
        mut into: BytesMut,
    ) -> BoxFuture<'_, (BytesMut, Result<(), DiskError>)> {
        match &self.ring {
            Some(ring) => self.ring_read(ring, offset, into).boxed(),
            None => {
                let done = self.read_at(offset, &mut into);
                std::future::ready((into, done)).boxed()
            }
        }
    }

    fn write_async(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
    ) -> BoxFuture<'_, Result<(), DiskError>> {
        match &self.ring {
            Some(ring) => self.ring_write(ring, offset, data, mode).boxed(),
            None => std::future::ready(self.write_at(offset, &data, mode)).boxed(),
        }
    }

    fn flush_async(&self) -> BoxFuture<'_, Result<(), DiskError>> {
        match &self.ring {
            Some(ring) => async { self.flushed(ring.flushed().await) }.boxed(),
            None => std::future::ready(self.flush()).boxed(),
        }
    }
}

/// The back-end, and what the log says of it.
fn choose(fd: &Arc<OwnedFd>, path: &Path, io: Io) -> Result<(Option<Ring>, String), OpenError> {
    if io == Io::Plain {
        return Ok((None, format!("{PLAIN}, as asked for")));
    }
    match Ring::new(fd.clone()) {
        Ok(ring) => Ok((Some(ring), "io_uring".to_owned())),
        Err(error) => without_ring(error, path, io).map(|backend| (None, backend)),
    }
}

/// What the log says when there is no ring, if that is allowed.
fn without_ring(error: Errno, path: &Path, io: Io) -> Result<String, OpenError> {
    if io == Io::Uring {
        return Err(system("io_uring_setup for", path)(error));
    }
    let why = match error {
        Errno::PERM | Errno::ACCESS => "forbidden here (seccomp profile or sysctl)",
        Errno::NOSYS => "not in this kernel",
        Errno::NOMEM | Errno::MFILE | Errno::NFILE => "more than this process may have",
        _ => "refused",
    };
    Ok(format!("{PLAIN}: io_uring is {why}: {error}"))
}

fn write_all(fd: &OwnedFd, offset: u64, data: &[u8], durable: bool) -> Result<(), Errno> {
    let flags = if durable {
        ReadWriteFlags::DSYNC
    } else {
        ReadWriteFlags::empty()
    };
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match pwritev2(fd, &[IoSlice::new(rest)], offset + done as u64, flags) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(fd: &OwnedFd, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let slices = &mut [IoSliceMut::new(rest)];
        let at = offset + done as u64;
        match preadv2(fd, slices, at, ReadWriteFlags::empty()) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
