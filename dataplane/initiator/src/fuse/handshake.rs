//! Mounting, and the INIT exchange.
//!
//! The kernel sends INIT once per mount. PID 1 answers it, before the first worker exists, always
//! with the same values: a worker that is started later need not know what was agreed.

use super::abi::{self, init};
use super::{MAX_PAGES, MAX_WRITE, channel};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use zerocopy::{FromBytes, IntoBytes};

/// `FUSE_MIN_READ_BUFFER`: a read with less room is refused.
pub const MIN_READ_BUFFER: usize = 8192;

/// Asynchronous requests that the kernel has open at once. The loop device's reads and writes all
/// are, so this times [`MAX_WRITE`] bounds the memory of a worker under load; 32 keep a drive
/// behind two network hops busy.
const MAX_BACKGROUND: u16 = 32;

/// Why there is no file system.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The device node.
    #[error(
        "cannot open /dev/fuse: the initiator needs it (a privileged pod has it, `modprobe fuse` on the node)"
    )]
    Device(#[source] Errno),
    /// The directory.
    #[error("cannot make the mount point {0}")]
    Directory(PathBuf, #[source] std::io::Error),
    /// An old mount.
    #[error("cannot detach what an earlier initiator left on {0}")]
    Stale(PathBuf, #[source] Errno),
    /// The path cannot be given to the kernel.
    #[error("mount point {0} is not an absolute path without zero bytes")]
    Path(PathBuf),
    /// mount(2).
    #[error("cannot mount FUSE on {0}: the initiator needs CAP_SYS_ADMIN")]
    Mount(PathBuf, #[source] Errno),
    /// The exchange.
    #[error("the kernel's FUSE handshake did not go as expected: {0}")]
    Handshake(String),
}

/// Mounts on `mount_point` and answers INIT. The device is what all workers talk to.
pub fn mount(mount_point: &Path, source: &str) -> Result<OwnedFd, MountError> {
    if !mount_point.is_absolute() {
        return Err(MountError::Path(mount_point.to_owned()));
    }
    detach_stale(mount_point)?;
    std::fs::create_dir_all(mount_point)
        .map_err(|error| MountError::Directory(mount_point.to_owned(), error))?;
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(MountError::Device)?;
    let options = CString::new(format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,max_read={MAX_WRITE}",
        rustix::fd::AsRawFd::as_raw_fd(&device),
    ))
    .map_err(|_| MountError::Path(mount_point.to_owned()))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
    rustix::mount::mount(source, mount_point, "fuse.weft", flags, options.as_c_str())
        .map_err(|errno| MountError::Mount(mount_point.to_owned(), errno))?;
    if let Err(error) = exchange(&device) {
        let _ = detach(mount_point);
        return Err(error);
    }
    Ok(device)
}

/// Takes the file system off its mount point now; who has it open keeps it until he closes it.
pub fn detach(mount_point: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(mount_point, UnmountFlags::DETACH)
}

/// Takes the file system off its mount point unless somebody uses it.
pub fn unmount(mount_point: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(mount_point, UnmountFlags::empty())
}

/// An initiator that was killed whole leaves a mount whose every use ends in `ENOTCONN`.
fn detach_stale(mount_point: &Path) -> Result<(), MountError> {
    // Bounded: one mount per earlier initiator, and each detach takes one away.
    for _ in 0..64 {
        match rustix::fs::stat(mount_point) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => detach(mount_point)
                .map_err(|errno| MountError::Stale(mount_point.to_owned(), errno))?,
            _ => return Ok(()),
        }
        tracing::info!(mount_point = %mount_point.display(), "detached the mount of an earlier initiator");
    }
    Err(MountError::Stale(mount_point.to_owned(), Errno::NOTCONN))
}

fn exchange(device: &OwnedFd) -> Result<(), MountError> {
    let mut message = [0u8; MIN_READ_BUFFER];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(device, &mut message))
        .map_err(|errno| MountError::Handshake(format!("reading INIT: {errno}")))?;
    let message = message.get(..length).unwrap_or_default();
    let (header, body) = abi::InHeader::read_from_prefix(message)
        .map_err(|_| MountError::Handshake(format!("INIT of {length} bytes")))?;
    if header.opcode != abi::opcode::INIT {
        let text = format!("opcode {} came before INIT", header.opcode);
        return Err(MountError::Handshake(text));
    }
    let (asked, _) = abi::InitIn::read_from_prefix(body)
        .map_err(|_| MountError::Handshake("INIT without the second word of flags".to_owned()))?;
    let answer = agree(&asked)?;
    channel::send(device.as_fd(), header.unique, 0, answer.as_bytes())
        .map_err(|errno| MountError::Handshake(format!("answering INIT: {errno}")))
}

fn agree(asked: &abi::InitIn) -> Result<abi::InitOut, MountError> {
    // ASYNC_READ, ASYNC_DIO, PARALLEL_DIROPS: the loop device keeps many requests in flight.
    // BIG_WRITES, MAX_PAGES: one request carries up to a MiB.
    let needed = init::ASYNC_READ
        | init::BIG_WRITES
        | init::ASYNC_DIO
        | init::PARALLEL_DIROPS
        | init::MAX_PAGES
        | init::INIT_EXT;
    if asked.major != abi::KERNEL_VERSION || asked.flags & needed != needed {
        return Err(MountError::Handshake(format!(
            "kernel speaks FUSE {}.{} with flags {:#x}; this needs 7.36 or newer",
            asked.major, asked.minor, asked.flags
        )));
    }
    let resend = asked.flags2 & init::HAS_RESEND;
    if resend == 0 {
        tracing::warn!(
            "this kernel (older than 6.9) cannot send unanswered requests again: I/O in flight \
             when the worker dies will hang until the pod is restarted"
        );
    }
    Ok(abi::InitOut {
        major: abi::KERNEL_VERSION,
        minor: abi::KERNEL_MINOR_VERSION.min(asked.minor),
        max_readahead: 0,
        flags: needed,
        flags2: resend,
        max_background: MAX_BACKGROUND,
        congestion_threshold: MAX_BACKGROUND,
        max_write: MAX_WRITE,
        time_gran: 1,
        max_pages: MAX_PAGES,
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_agreed_does_not_depend_on_the_kernel_beyond_resend() {
        let newest = abi::InitIn {
            major: 7,
            minor: 45,
            max_readahead: 131_072,
            flags: !0,
            flags2: !0,
        };
        let older = abi::InitIn {
            minor: 39,
            flags2: 0,
            ..newest
        };
        let (new, old) = (agree(&newest).unwrap(), agree(&older).unwrap());
        assert_eq!(
            (new.max_write, new.max_pages, new.flags),
            (old.max_write, old.max_pages, old.flags)
        );
        assert_eq!((new.flags2, old.flags2), (init::HAS_RESEND, 0));
    }

    #[test]
    fn a_kernel_without_asynchronous_direct_io_is_refused_with_its_version() {
        let old = abi::InitIn {
            major: 7,
            minor: 20,
            max_readahead: 0,
            flags: init::BIG_WRITES,
            flags2: 0,
        };
        assert!(agree(&old).unwrap_err().to_string().contains("FUSE 7.20"));
    }

    #[test]
    fn a_relative_mount_point_is_refused() {
        let error = mount(Path::new("here"), "weft").unwrap_err();
        assert!(matches!(error, MountError::Path(_)));
    }
}
