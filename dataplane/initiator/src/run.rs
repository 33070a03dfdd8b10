//! From a document to a served volume, and back.

use crate::fuse::channel::Channel;
use crate::fuse::handshake;
use crate::kept;
use crate::path::Path;
use crate::session::{Session, SessionError};
use crate::volume::Volume;
use crate::worker::Worker;
use rustix::io::Errno;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use weft_spec::initiator::InitiatorDocument;
use weft_spec::{DOCUMENT_VERSION, nqn};
use weft_transport::initiator::{ConnectOptions, ReconnectingDisk};

/// Between attempts to unmount a volume that is still in use, at first and at most.
const UNMOUNT_RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Why an initiator does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The document's file.
    #[error("cannot read the document {0}")]
    Read(PathBuf, #[source] std::io::Error),
    /// The document's text.
    #[error("{0} is not an initiator's document")]
    Parse(PathBuf, #[source] serde_json::Error),
    /// Written by another version.
    #[error("{0} has version {1}, this initiator understands {DOCUMENT_VERSION}")]
    Version(PathBuf, u32),
    /// Mount or descriptors.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// `/dev/fuse` or signals.
    #[error("the FUSE session broke")]
    Io(#[from] std::io::Error),
    /// At the end.
    #[error("cannot unmount {0}")]
    Unmount(PathBuf, #[source] Errno),
}

/// Reads and checks a document.
pub fn load(path: &FilePath) -> Result<InitiatorDocument, RunError> {
    let text = std::fs::read(path).map_err(|error| RunError::Read(path.to_owned(), error))?;
    let document: InitiatorDocument =
        serde_json::from_slice(&text).map_err(|error| RunError::Parse(path.to_owned(), error))?;
    if document.version != DOCUMENT_VERSION {
        return Err(RunError::Version(path.to_owned(), document.version));
    }
    Ok(document)
}

/// Serves until SIGTERM came **and** nobody uses the volume any more: I/O does not end because a
/// pod is asked to. Needs a current-thread tokio runtime.
pub async fn run(document: InitiatorDocument, session: Session) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let begin = kept::begin(document.path, session.keeper.load());
    let mut options = ConnectOptions::new(
        begin.path.address,
        nqn::volume(document.volume),
        document.host.expose(),
        document.host.host_id(),
    );
    options.header_digest = document.header_digest;
    options.data_digest = document.data_digest;
    let disk = ReconnectingDisk::start(options, None);
    let volume = Arc::new(Volume::new(disk.clone(), begin.size));
    let path = Arc::new(Path::new(
        begin,
        session.keeper,
        disk.clone(),
        volume.clone(),
        document.volume,
    ));
    tracing::info!(
        attachment = %document.attachment, volume = %document.volume, host = %document.host,
        term = %begin.path.term, address = %begin.path.address,
        mount_point = %document.mount_point.display(), "serving"
    );

    let follower = path.clone();
    tokio::spawn(async move { follower.follow().await });
    let channel = Channel::new(session.device)?;
    if let Err(errno) = channel.resend() {
        tracing::warn!(%errno, "requests of an earlier worker cannot be asked for again");
    }
    let serving = Worker::new(channel, volume, path).serve();
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        _ = terminate.recv() => {
            tokio::select! {
                served = &mut serving => served,
                left = leave(document.mount_point) => {
                    left?;
                    serving.await
                }
            }
        }
    };
    disk.stop().await;
    served?;
    tracing::info!("unmounted, nobody uses the volume any more");
    Ok(())
}

/// Unmounts as soon as nobody uses the file system.
async fn leave(mount_point: PathBuf) -> Result<(), RunError> {
    let mut pause = UNMOUNT_RETRY.0;
    let mut told = false;
    loop {
        let place = mount_point.clone();
        // On a thread of its own: the kernel may ask this worker something meanwhile.
        let unmounted = tokio::task::spawn_blocking(move || handshake::unmount(&place)).await;
        match unmounted.unwrap_or(Err(Errno::AGAIN)) {
            // EINVAL: somebody else has unmounted it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(Errno::BUSY | Errno::AGAIN) => {
                if !told {
                    tracing::info!(
                        "asked to end while the volume is in use: serving until it is not"
                    );
                    told = true;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(UNMOUNT_RETRY.1);
            }
            Err(errno) => return Err(RunError::Unmount(mount_point, errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("document.json");
        std::fs::write(&path, text).unwrap();
        load(&path).unwrap_err().to_string()
    }

    #[test]
    fn a_document_that_is_none_or_of_another_version_is_refused_by_name() {
        assert!(refused("{}").contains("document.json is not an initiator's document"));
        let newer = serde_json::json!({
            "version": 9, "volume": uuid::Uuid::nil(), "attachment": "a", "host": "nqn.h",
            "path": {"term": 1, "address": "127.0.0.1:4420"}, "mountPoint": "/m"
        });
        assert!(refused(&newer.to_string()).contains("has version 9"));
        let missing = load(FilePath::new("/no/such/document.json")).unwrap_err();
        assert!(
            missing
                .to_string()
                .contains("cannot read the document /no/such")
        );
    }
}
