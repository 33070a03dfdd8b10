//! The user-space initiator: a pod of its own that shows one volume as a file.
//!
//! The whole conversation is three files in its FUSE directory: `volume`, `status` (read)
//! and `path` (written when the volume moved). Its worker may be starting again at any
//! moment, and then a read of these files waits, so all of this runs where waiting is
//! allowed and with an end.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::ids::VolumeUid;
use weft_spec::initiator::{InitiatorStatus, VolumePath};

/// Between two looks at a directory that nothing tells about.
const PAUSE: Duration = Duration::from_millis(50);

/// What went wrong with the user-space initiator.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// Nothing there yet.
    #[error(
        "the initiator pod {pod} does not show the volume yet ({source}): see kubectl -n weft-system describe pod {pod}"
    )]
    Absent {
        /// Name of the pod.
        pod: String,
        /// What reading its status answered.
        source: io::Error,
    },
    /// There, without a connection.
    #[error("the initiator pod {pod} is not connected to the engine at {address}: {reason}")]
    NotConnected {
        /// Name of the pod.
        pod: String,
        /// The engine.
        address: std::net::SocketAddr,
        /// What it waits for.
        reason: String,
    },
    /// It shows something else.
    #[error("the initiator pod {pod} shows volume {found} where {wanted} was expected")]
    Mixed {
        /// Name of the pod.
        pod: String,
        /// What it shows.
        found: VolumeUid,
        /// What it should show.
        wanted: VolumeUid,
    },
    /// It speaks another version.
    #[error(
        "the initiator pod {pod} reports in version {version} and the node plugin reads {DOCUMENT_VERSION}: delete the pod to have it made again"
    )]
    Version {
        /// Name of the pod.
        pod: String,
        /// Its version.
        version: u32,
    },
    /// The new path was not taken.
    #[error("the initiator pod {pod} did not take the engine's new address {address}: {source}")]
    Path {
        /// Name of the pod.
        pod: String,
        /// The engine.
        address: std::net::SocketAddr,
        /// What writing answered.
        source: io::Error,
    },
}

/// One initiator pod, by the directory it mounts.
#[derive(Clone, Debug)]
pub struct UserInitiator {
    pod: String,
    directory: PathBuf,
}

impl UserInitiator {
    /// The initiator of this pod below the attachments' root.
    pub fn new(root: &Path, pod: &str) -> Self {
        Self {
            pod: pod.to_owned(),
            directory: root.join(pod),
        }
    }

    /// The file that is the volume.
    pub fn volume(&self) -> PathBuf {
        self.directory.join("volume")
    }

    /// What it reports now.
    pub fn status(&self) -> Result<InitiatorStatus, UserError> {
        let absent = |source| UserError::Absent {
            pod: self.pod.clone(),
            source,
        };
        let text = std::fs::read(self.directory.join("status")).map_err(absent)?;
        let status: InitiatorStatus =
            serde_json::from_slice(&text).map_err(|error| absent(error.into()))?;
        match status.version {
            DOCUMENT_VERSION => Ok(status),
            version => Err(UserError::Version {
                pod: self.pod.clone(),
                version,
            }),
        }
    }

    /// Waits until it is connected to the volume and knows its size.
    pub fn wait_until_ready(
        &self,
        volume: VolumeUid,
        end: Instant,
    ) -> Result<InitiatorStatus, UserError> {
        loop {
            let problem = match self.status() {
                Ok(status) if status.volume != volume => {
                    let (found, wanted) = (status.volume, volume);
                    return Err(UserError::Mixed {
                        pod: self.pod.clone(),
                        found,
                        wanted,
                    });
                }
                Ok(status) if status.connected && status.size > 0 => return Ok(status),
                Ok(status) => UserError::NotConnected {
                    pod: self.pod.clone(),
                    address: status.path.address,
                    reason: status.reason,
                },
                Err(error @ UserError::Version { .. }) => return Err(error),
                Err(error) => error,
            };
            if Instant::now() > end {
                return Err(problem);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// An error once this time is over.
    pub fn refuse_after(&self, end: Instant) -> Result<(), UserError> {
        match Instant::now() > end {
            true => Err(UserError::Absent {
                pod: self.pod.clone(),
                source: io::ErrorKind::TimedOut.into(),
            }),
            false => Ok(()),
        }
    }

    /// Tells it where the volume is now. True if that was news. A lower term than the one it
    /// has is never told: it comes from a status that was read too early.
    pub fn follow(&self, path: VolumePath) -> Result<bool, UserError> {
        let known = self.status()?.path;
        if known == path || path.term < known.term {
            return Ok(false);
        }
        let write = || {
            // Not truncated: the file is a mailbox, and one write is one message.
            let mut file = OpenOptions::new()
                .write(true)
                .open(self.directory.join("path"))?;
            file.write_all(&serde_json::to_vec(&path)?)
        };
        write().map_err(|source| UserError::Path {
            pod: self.pod.clone(),
            address: path.address,
            source,
        })?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_spec::ids::Term;

    fn path(term: u64, address: &str) -> VolumePath {
        VolumePath {
            term: Term(term),
            address: address.parse().unwrap(),
        }
    }

    fn status(volume: VolumeUid, connected: bool) -> InitiatorStatus {
        InitiatorStatus {
            version: DOCUMENT_VERSION,
            volume,
            connected,
            path: path(3, "10.0.0.1:4420"),
            local: Some("10.0.0.2:50000".parse().unwrap()),
            identity: Some(weft_spec::nqn::volume(volume)),
            size: 1 << 20,
            reason: if connected {
                String::new()
            } else {
                "connection refused".to_owned()
            },
        }
    }

    fn pod(shown: &InitiatorStatus) -> (tempfile::TempDir, UserInitiator) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a-0001");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("status"), serde_json::to_vec(shown).unwrap()).unwrap();
        std::fs::write(dir.join("path"), "").unwrap();
        let initiator = UserInitiator::new(root.path(), "a-0001");
        (root, initiator)
    }

    #[test]
    fn a_connected_initiator_is_ready_and_others_say_what_they_wait_for() {
        let volume = VolumeUid::random();
        let now = Instant::now();
        let (_root, ready) = pod(&status(volume, true));
        assert_eq!(ready.wait_until_ready(volume, now).unwrap().size, 1 << 20);
        let other = ready.wait_until_ready(VolumeUid::random(), now);
        assert!(matches!(other, Err(UserError::Mixed { .. })));
        let (_root, lost) = pod(&status(volume, false));
        let error = lost.wait_until_ready(volume, now).unwrap_err();
        assert!(error.to_string().contains("connection refused"), "{error}");
        let absent = UserInitiator::new(Path::new("/nonexistent"), "b");
        let error = absent.wait_until_ready(volume, now).unwrap_err();
        assert!(matches!(error, UserError::Absent { .. }));
    }

    #[test]
    fn only_news_of_no_lower_term_is_told() {
        let (root, pod) = pod(&status(VolumeUid::random(), true));
        let told = || std::fs::read_to_string(root.path().join("a-0001/path")).unwrap();
        for old in [path(3, "10.0.0.1:4420"), path(2, "10.0.0.9:4420")] {
            assert!(!pod.follow(old).unwrap());
            assert_eq!(told(), "");
        }
        let new = path(4, "10.0.0.3:4420");
        assert!(pod.follow(new).unwrap());
        assert_eq!(serde_json::from_str::<VolumePath>(&told()).unwrap(), new);
    }

    #[test]
    fn another_version_is_not_guessed_at() {
        let volume = VolumeUid::random();
        let (_root, pod) = pod(&InitiatorStatus {
            version: 99,
            ..status(volume, true)
        });
        let error = pod.wait_until_ready(volume, Instant::now()).unwrap_err();
        assert!(matches!(error, UserError::Version { version: 99, .. }));
    }
}
