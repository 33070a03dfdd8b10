use crate::medium::check;
use crate::{AlignedBuf, BLOCK, DiskError, ErrorKind, Medium, Write};
use rustix::fs::{
    FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, fallocate, fcntl_getfl,
    fcntl_setfl, fdatasync, flock, fstat, fsync, open, seek, stat,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long to wait between two tries to hold a block device: the kernel tells nobody when an
/// exclusive opener closes. Reached only when two processes want one device.
const HOLD_RETRY: Duration = Duration::from_millis(250);

/// A regular file or a block device, held exclusively for life by the very descriptor that does
/// the I/O (design section 5, Hold). O_DIRECT, so that what is acknowledged does not live in this
/// machine's page cache; buffered where the file system refuses, which is logged.
#[derive(Debug)]
pub struct FileMedium {
    fd: OwnedFd,
    path: PathBuf,
    size: u64,
    direct: bool,
    /// Cleared when the kernel refuses RWF_DSYNC: a flush after each durable write instead.
    dsync: AtomicBool,
}

/// Why a medium cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("{call} {path}: {source}")]
    System {
        /// Which.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// It is not what it was said to be.
    #[error(
        "{path} is not a {wanted}: it is {found:?}; name a {wanted} or change the kind of medium"
    )]
    Kind {
        /// What was opened.
        path: PathBuf,
        /// What it must be.
        wanted: &'static str,
        /// What it is.
        found: FileType,
    },
    /// Not even one block.
    #[error("{path} has {size} bytes, less than one block")]
    TooSmall {
        /// What was opened.
        path: PathBuf,
        /// Its size.
        size: u64,
    },
}

impl FileMedium {
    /// Opens the file as it is, or makes and preallocates it with `size` bytes if there is none
    /// or an empty one. Blocks until no other process holds it; `waiting` is called once if it must wait.
    pub fn open_file(path: &Path, size: u64, waiting: impl FnOnce()) -> Result<Self, OpenError> {
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
        Self::of(fd, path)
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
    pub fn open_device(path: &Path, waiting: impl FnOnce()) -> Result<Self, OpenError> {
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
                    return Self::of(fd, path);
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

    fn of(fd: OwnedFd, path: &Path) -> Result<Self, OpenError> {
        let size = end_of(&fd).map_err(system("seek", path))?;
        if size < BLOCK {
            return Err(OpenError::TooSmall {
                path: path.to_owned(),
                size,
            });
        }
        let direct = try_direct(&fd, path);
        tracing::info!(
            path = %path.display(),
            size,
            backend = if direct { "O_DIRECT" } else { "buffered: O_DIRECT is refused here" },
            "medium held; I/O by preadv and pwritev on threads"
        );
        let size = size - size % BLOCK;
        Ok(Self {
            fd,
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
        let wants_dsync = mode == Write::Durable && self.dsync.load(Ordering::Relaxed);
        match self.write_all(offset, data, wants_dsync) {
            Err(Errno::OPNOTSUPP | Errno::INVAL) if wants_dsync => {
                self.dsync.store(false, Ordering::Relaxed);
                self.write_all(offset, data, false)
            }
            done => done,
        }
        .map_err(|cause| self.error(ErrorKind::MediaWrite, "write", offset, cause))?;
        match mode {
            Write::Durable if !self.dsync.load(Ordering::Relaxed) => self.flush(),
            _ => Ok(()),
        }
    }

    fn write_all(&self, offset: u64, data: &[u8], dsync: bool) -> Result<(), Errno> {
        let flags = if dsync {
            ReadWriteFlags::DSYNC
        } else {
            ReadWriteFlags::empty()
        };
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match pwritev2(&self.fd, &[IoSlice::new(rest)], offset + done as u64, flags) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_all(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        let mut done = 0;
        while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let slices = &mut [IoSliceMut::new(rest)];
            match preadv2(
                &self.fd,
                slices,
                offset + done as u64,
                ReadWriteFlags::empty(),
            ) {
                Ok(0) => return Err(Errno::IO),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Medium for FileMedium {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        check("read", self.size, offset, into.len() as u64)?;
        let done = if !self.direct || AlignedBuf::fits(into) {
            self.read_all(offset, into)
        } else {
            let mut buffer = AlignedBuf::zeroed(into.len());
            self.read_all(offset, &mut buffer)
                .map(|()| into.copy_from_slice(&buffer[..into.len()]))
        };
        done.map_err(|cause| self.error(ErrorKind::MediaRead, "read", offset, cause))
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        check("write", self.size, offset, data.len() as u64)?;
        if !self.direct || AlignedBuf::fits(data) {
            return self.write_aligned(offset, data, mode);
        }
        self.write_aligned(offset, &AlignedBuf::copy_of(data), mode)
    }

    fn flush(&self) -> Result<(), DiskError> {
        fdatasync(&self.fd).map_err(|cause| self.error(ErrorKind::MediaWrite, "flush", 0, cause))
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
}

fn system(call: &'static str, path: &Path) -> impl Fn(Errno) -> OpenError + Copy {
    move |source| OpenError::System {
        call,
        path: path.to_owned(),
        source,
    }
}

fn require(
    fd: &OwnedFd,
    path: &Path,
    wanted: FileType,
    name: &'static str,
) -> Result<(), OpenError> {
    let found = fstat(fd).map_err(system("stat", path))?;
    expect(FileType::from_raw_mode(found.st_mode), path, wanted, name)
}

fn expect(
    found: FileType,
    path: &Path,
    wanted: FileType,
    name: &'static str,
) -> Result<(), OpenError> {
    if found == wanted {
        return Ok(());
    }
    Err(OpenError::Kind {
        path: path.to_owned(),
        wanted: name,
        found,
    })
}

/// An flock belongs to the open file: it ends when the last I/O through this descriptor has.
fn hold_file(fd: &OwnedFd, waiting: &mut Option<impl FnOnce()>) -> Result<(), Errno> {
    if flock(fd, FlockOperation::NonBlockingLockExclusive) == Ok(()) {
        return Ok(());
    }
    if let Some(waiting) = waiting.take() {
        waiting();
    }
    loop {
        match flock(fd, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

fn end_of(fd: &OwnedFd) -> Result<u64, Errno> {
    seek(fd, SeekFrom::End(0))
}

/// Sets O_DIRECT on the descriptor that holds the medium, and keeps it if a read passes.
fn try_direct(fd: &OwnedFd, path: &Path) -> bool {
    let Ok(flags) = fcntl_getfl(fd) else {
        return false;
    };
    if fcntl_setfl(fd, flags | OFlags::DIRECT).is_err() {
        return false;
    }
    let mut probe = AlignedBuf::zeroed(BLOCK as usize);
    let slices = &mut [IoSliceMut::new(&mut probe)];
    if preadv2(fd, slices, 0, ReadWriteFlags::empty()) != Err(Errno::INVAL) {
        return true;
    }
    if let Err(error) = fcntl_setfl(fd, flags) {
        tracing::warn!(path = %path.display(), %error, "O_DIRECT cannot be taken back");
    }
    false
}

fn preallocate(fd: &OwnedFd, path: &Path, size: u64) -> Result<(), OpenError> {
    fallocate(fd, FallocateFlags::empty(), 0, size).map_err(system("preallocate", path))?;
    fsync(fd).map_err(system("sync", path))?;
    sync_directory(path).map_err(system("sync the directory of", path))
}

fn sync_directory(path: &Path) -> Result<(), Errno> {
    let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    fsync(open(
        parent,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Disk, ThreadedDisk};
    use bytes::{Bytes, BytesMut};
    use std::sync::Arc;

    fn scratch() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    #[test]
    fn a_new_file_is_preallocated_and_reads_as_zeros() {
        let directory = scratch();
        let path = directory.path().join("d0.img");
        let medium = FileMedium::open_file(&path, 1 << 20, || ()).unwrap();
        assert_eq!(medium.size(), 1 << 20);
        let mut bytes = vec![1; 8192];
        medium.read_at(4096, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
        assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
    }

    #[test]
    fn a_file_that_is_there_is_left_as_it_is() {
        let directory = scratch();
        let path = directory.path().join("d0.img");
        std::fs::write(&path, [7; 8192]).unwrap();
        let mut medium = FileMedium::open_file(&path, 1 << 20, || ()).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [7; 8192]);
        assert_eq!(medium.size(), 8192);
        medium.extend(1 << 20).unwrap();
        assert_eq!(medium.size(), 1 << 20);
    }

    #[tokio::test]
    async fn what_is_written_is_read_back_at_any_alignment_of_memory() {
        let directory = scratch();
        let medium =
            FileMedium::open_file(&directory.path().join("d0.img"), 1 << 20, || ()).unwrap();
        let disk = ThreadedDisk::new(Arc::new(medium));
        for (mode, shift) in [(Write::Cached, 1), (Write::Durable, 3)] {
            let data = Bytes::from((0..=255u8).cycle().take(12288 + shift).collect::<Vec<_>>())
                .slice(shift..);
            disk.write(8192, data.clone(), mode).await.unwrap();
            let mut back = BytesMut::zeroed(12288);
            disk.read(8192, &mut back).await.unwrap();
            assert_eq!(back, data);
        }
        disk.flush().await.unwrap();
        disk.write_zeroes(8192, 4096).await.unwrap();
        disk.discard(12288, 4096).await.unwrap();
        let mut back = BytesMut::zeroed(8192);
        disk.read(8192, &mut back).await.unwrap();
        assert!(back.iter().all(|byte| *byte == 0));
    }

    #[tokio::test]
    async fn requests_beyond_the_end_or_between_blocks_are_out_of_range() {
        let directory = scratch();
        let medium =
            FileMedium::open_file(&directory.path().join("d0.img"), 1 << 20, || ()).unwrap();
        let disk = ThreadedDisk::new(Arc::new(medium));
        for (offset, length) in [
            (1 << 20, 4096),
            ((1 << 20) - 4096, 8192),
            (512, 4096),
            (0, 100),
            (u64::MAX - 4095, 4096),
        ] {
            let mut into = BytesMut::zeroed(length);
            let error = disk.read(offset, &mut into).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange, "{offset} {length}");
            assert_eq!(into.len(), length, "the buffer is given back");
        }
    }

    #[test]
    fn a_second_holder_waits_until_the_first_is_gone() {
        let directory = scratch();
        let path = directory.path().join("d0.img");
        let first = FileMedium::open_file(&path, 1 << 20, || ()).unwrap();
        let (told, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            FileMedium::open_file(&path, 1 << 20, || told.send(()).unwrap())
                .unwrap()
                .size()
        });
        waits.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(!second.is_finished());
        drop(first);
        assert_eq!(second.join().unwrap(), 1 << 20);
    }

    #[test]
    fn a_file_is_no_block_device() {
        let directory = scratch();
        let path = directory.path().join("d0.img");
        std::fs::write(&path, [0; 4096]).unwrap();
        assert!(matches!(
            FileMedium::open_device(&path, || ()),
            Err(OpenError::Kind { .. })
        ));
        assert!(matches!(
            FileMedium::open_file(directory.path(), 4096, || ()),
            Err(OpenError::System { .. })
        ));
    }
}
