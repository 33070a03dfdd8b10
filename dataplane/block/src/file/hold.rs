//! A medium is opened, held and made as long as it must be.

use crate::{AlignedBuf, BLOCK};
use rustix::fs::{
    FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, fallocate, fcntl_getfl,
    fcntl_setfl, flock, fstat, fsync, open, seek,
};
use rustix::io::{Errno, ReadWriteFlags, preadv2};
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

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

pub(super) fn system(call: &'static str, path: &Path) -> impl Fn(Errno) -> OpenError + Copy {
    move |source| OpenError::System {
        call,
        path: path.to_owned(),
        source,
    }
}

pub(super) fn require(
    fd: &OwnedFd,
    path: &Path,
    wanted: FileType,
    name: &'static str,
) -> Result<(), OpenError> {
    let found = fstat(fd).map_err(system("stat", path))?;
    expect(FileType::from_raw_mode(found.st_mode), path, wanted, name)
}

pub(super) fn expect(
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
pub(super) fn hold_file(fd: &OwnedFd, waiting: &mut Option<impl FnOnce()>) -> Result<(), Errno> {
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

pub(super) fn end_of(fd: &OwnedFd) -> Result<u64, Errno> {
    seek(fd, SeekFrom::End(0))
}

/// Sets O_DIRECT on the descriptor that holds the medium, and keeps it if a read passes.
pub(super) fn try_direct(fd: &OwnedFd, path: &Path) -> bool {
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

pub(super) fn preallocate(fd: &OwnedFd, path: &Path, size: u64) -> Result<(), OpenError> {
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
