//! The mounted session: what PID 1 makes and every worker gets.

use crate::fuse::handshake::{self, MountError};
use crate::kept::Keeper;
use rustix::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};
use rustix::io::{Errno, FdFlags};
use weft_spec::initiator::InitiatorDocument;

/// `/dev/fuse` of a mount whose handshake is done, and the memory beside it.
pub struct Session {
    /// The device.
    pub device: OwnedFd,
    /// What workers leave to each other.
    pub keeper: Keeper,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The file system.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// The memory file.
    #[error("cannot make a memory file")]
    Memory(#[source] Errno),
    /// What PID 1 gave is not what was agreed.
    #[error("expected two open descriptors from the supervisor, /dev/fuse and the memory file")]
    Inherited,
}

impl Session {
    /// Mounts the file system of a document.
    pub fn mount(document: &InitiatorDocument) -> Result<Self, SessionError> {
        let keeper = Keeper::create().map_err(SessionError::Memory)?;
        let source = format!("weft:{}", document.volume);
        let device = handshake::mount(&document.mount_point, &source)?;
        Ok(Self { device, keeper })
    }

    /// Gives the descriptors away for good, in the order that [`Session::inherited`] expects.
    pub fn into_fds(self) -> Vec<RawFd> {
        vec![
            self.device.into_raw_fd(),
            self.keeper.into_fd().into_raw_fd(),
        ]
    }

    /// The session that a supervisor handed to this process; `None` without a supervisor.
    pub fn inherited(fds: &[RawFd]) -> Result<Option<Self>, SessionError> {
        match fds {
            [] => Ok(None),
            [device, memory] if device != memory => Ok(Some(Self {
                device: take(*device)?,
                keeper: Keeper::from_fd(take(*memory)?),
            })),
            _ => Err(SessionError::Inherited),
        }
    }
}

#[expect(
    unsafe_code,
    reason = "descriptors handed over by number by the supervisor"
)]
fn take(fd: RawFd) -> Result<OwnedFd, SessionError> {
    if fd <= 2 {
        return Err(SessionError::Inherited);
    }
    // SAFETY: the supervisor opened it for this process and told its number once; nothing else
    // here owns a descriptor that was open before main.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    match rustix::io::fcntl_setfd(&owned, FdFlags::CLOEXEC) {
        Ok(()) => Ok(owned),
        Err(_) => {
            // Not open: it must not be closed either.
            let _not_ours = owned.into_raw_fd();
            Err(SessionError::Inherited)
        }
    }
}
