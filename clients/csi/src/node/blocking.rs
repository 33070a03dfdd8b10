//! System calls that may take long, away from the threads that answer.

use super::connect_kernel::KernelError;
use super::connect_user::UserError;
use super::filesystem::FsError;
use super::loopdev::LoopError;
use super::mount::MountError;
use std::time::{Duration, Instant};
use tonic::Status;

/// Between two looks at what tells nobody of a change, growing to the longer.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// What can go wrong on a node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A mount.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A loop device.
    #[error(transparent)]
    Loop(#[from] LoopError),
    /// A file system.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The kernel's initiator.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The user-space initiator.
    #[error(transparent)]
    User(#[from] UserError),
    /// A device that has not grown in time.
    #[error(
        "block device {device} has {size} bytes, {wanted} are expected: the engine has not told this node's \
         initiator yet, or there is no path to it; it is tried again"
    )]
    Small {
        /// Which.
        device: String,
        /// Bytes that it has.
        size: u64,
        /// Bytes that it is to have.
        wanted: u64,
    },
    /// A device that the kernel does not describe.
    #[error("block device {0} is not in /sys: was the volume disconnected meanwhile?")]
    Vanished(String),
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Self {
        let text = error.to_string();
        match error {
            // They pass by themselves, or tell of somebody who does not let go: tried again.
            NodeError::Kernel(KernelError::Missing { .. }) => Self::failed_precondition(text),
            NodeError::Kernel(_)
            | NodeError::User(_)
            | NodeError::Vanished(_)
            | NodeError::Small { .. } => Self::unavailable(text),
            NodeError::Fs(
                FsError::Occupied { .. } | FsError::BlankReadOnly | FsError::TooSmall { .. },
            ) => Self::failed_precondition(text),
            NodeError::Mount(MountError::InUse { .. }) | NodeError::Loop(LoopError::InUse(_)) => {
                Self::failed_precondition(text)
            }
            NodeError::Mount(MountError::Option(_)) => Self::invalid_argument(text),
            NodeError::Mount(_) | NodeError::Loop(_) | NodeError::Fs(_) => Self::internal(text),
        }
    }
}

/// Looks again and again, where nobody tells, until something is found or the end has come.
pub fn look_until<T>(end: Instant, look: impl Fn() -> Option<T>) -> Option<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() > end {
            return found;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Runs `work` on a thread where it may wait.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|error| Status::internal(format!("a node operation stopped: {error}")))??)
}

/// Like [`run`], but gives up waiting after a time; the work itself cannot be taken back and
/// ends when the kernel lets it. `what` is told to the caller.
pub async fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> Result<T, NodeError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::time::timeout(limit, run(work)).await {
        Ok(done) => done,
        Err(_) => Err(Status::unavailable(format!("{what} within {limit:?}"))),
    }
}
