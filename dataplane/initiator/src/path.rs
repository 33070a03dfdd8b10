//! The files `path` and `status`: where the volume is, and how it goes.

use crate::kept::{Keeper, Kept};
use crate::volume::Volume;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::ids::{Term, VolumeUid};
use weft_spec::initiator::{InitiatorStatus, VolumePath};
use weft_transport::initiator::{PathState, ReconnectingDisk};

/// Why a path was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// Not a path.
    #[error("what was written to `path` is not {{\"term\": number, \"address\": \"ip:port\"}}")]
    Malformed(#[from] serde_json::Error),
    /// The volume has moved on.
    #[error("term {offered} is older than the present term {present}")]
    Older {
        /// What was written.
        offered: Term,
        /// What is in force.
        present: Term,
    },
    /// The next worker would not know it.
    #[error("the path could not be kept for the next worker")]
    NotKept(#[from] std::io::Error),
}

/// The path in force, and everything that follows it.
pub struct Path {
    kept: Mutex<Kept>,
    keeper: Keeper,
    disk: Arc<ReconnectingDisk>,
    volume: Arc<Volume>,
    uid: VolumeUid,
}

impl Path {
    /// Begins with what is kept.
    pub fn new(
        kept: Kept,
        keeper: Keeper,
        disk: Arc<ReconnectingDisk>,
        volume: Arc<Volume>,
        uid: VolumeUid,
    ) -> Self {
        Self {
            kept: Mutex::new(kept),
            keeper,
            disk,
            volume,
            uid,
        }
    }

    /// What `path` reads as.
    pub fn present(&self) -> VolumePath {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .path
    }

    /// What a write to `path` does. The same term with another address is a pod that got a new
    /// one; a lower term is an engine that must not be talked to any more.
    pub fn switch(&self, text: &[u8]) -> Result<(), SwitchError> {
        let next: VolumePath = serde_json::from_slice(text)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if next.term < kept.path.term {
            let present = kept.path.term;
            return Err(SwitchError::Older {
                offered: next.term,
                present,
            });
        }
        if next == kept.path {
            return Ok(());
        }
        let changed = Kept {
            path: next,
            ..*kept
        };
        self.keeper.store(&changed)?;
        *kept = changed;
        tracing::info!(term = %next.term, address = %next.address, "volume moved");
        self.disk.set_address(next.address);
        self.volume.path_changed();
        Ok(())
    }

    /// What `status` reads as.
    pub fn status(&self) -> InitiatorStatus {
        let state = self.disk.state().borrow().clone();
        status(
            self.uid,
            self.present(),
            self.volume.size(),
            self.volume.held(),
            state,
        )
    }

    /// Follows the association: keeps a size that grew, and logs each change, for ever.
    pub async fn follow(&self) {
        let mut states: watch::Receiver<PathState> = self.disk.state();
        let mut was: Option<bool> = None;
        loop {
            let state = states.borrow_and_update().clone();
            self.grow(state.size);
            if was.replace(state.connected) != Some(state.connected) {
                told(&state);
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Kept first: a worker that is started after this one must not show the volume smaller than the
    /// kernel has seen it. The kernel asks for the size anew at each look, so nobody has to tell it.
    fn grow(&self, size: u64) {
        if size <= self.volume.size() {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.size = size;
        if let Err(error) = self.keeper.store(&kept) {
            tracing::error!(%error, "the size could not be kept for the next worker");
        }
        tracing::info!(size, "the volume's size");
        self.volume.grow(size);
    }
}

fn told(state: &PathState) {
    let address: SocketAddr = state.address;
    if state.connected {
        tracing::info!(%address, local = ?state.local, size = state.size, "connected");
    } else {
        tracing::info!(%address, reason = state.reason.as_deref(), "not connected, I/O waits");
    }
}

fn status(
    volume: VolumeUid,
    path: VolumePath,
    size: u64,
    held: Option<String>,
    state: PathState,
) -> InitiatorStatus {
    let waiting = if state.connected {
        String::new()
    } else if state.invalid_host {
        "the engine does not admit this host: the Attachment was revoked, or the engine has not \
         heard of it yet"
            .to_owned()
    } else {
        state
            .reason
            .unwrap_or_else(|| format!("connecting to {}", state.address))
    };
    InitiatorStatus {
        version: DOCUMENT_VERSION,
        volume,
        connected: state.connected,
        path,
        local: state.local,
        identity: state.subsystem,
        size,
        reason: held.unwrap_or(waiting),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use weft_transport::initiator::ConnectOptions;

    fn path(term: u64, port: u16) -> VolumePath {
        VolumePath {
            term: Term(term),
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }

    fn state() -> PathState {
        PathState {
            connected: true,
            address: path(1, 1).address,
            local: None,
            subsystem: None,
            namespace_uuid: None,
            size: 4096,
            invalid_host: false,
            ana: weft_transport::AnaState::Optimized,
            reason: None,
        }
    }

    fn begun() -> (Path, Arc<Volume>) {
        let options = ConnectOptions::new(path(3, 1).address, "nqn.test", "nqn.host", Uuid::nil());
        let disk = ReconnectingDisk::start(options, None);
        let volume = Arc::new(Volume::new(disk.clone(), 0));
        let kept = Kept {
            path: path(3, 1),
            size: 0,
        };
        let keeper = Keeper::create().unwrap();
        (
            Path::new(kept, keeper, disk, volume.clone(), VolumeUid::random()),
            volume,
        )
    }

    #[tokio::test]
    async fn a_path_of_a_lower_term_changes_nothing() {
        let (begun, _volume) = begun();
        let older = serde_json::to_vec(&path(2, 2)).unwrap();
        assert!(matches!(
            begun.switch(&older),
            Err(SwitchError::Older { .. })
        ));
        assert!(matches!(
            begun.switch(b"{}"),
            Err(SwitchError::Malformed(_))
        ));
        assert_eq!(begun.present(), path(3, 1));
    }

    #[tokio::test]
    async fn a_taken_path_and_a_greater_size_reach_the_next_worker() {
        let (begun, volume) = begun();
        begun
            .switch(&serde_json::to_vec(&path(3, 9)).unwrap())
            .unwrap();
        begun
            .switch(&serde_json::to_vec(&path(4, 2)).unwrap())
            .unwrap();
        begun.grow(8192);
        begun.grow(4096);
        assert_eq!(volume.size(), 8192);
        assert_eq!(
            begun.keeper.load(),
            Some(Kept {
                path: path(4, 2),
                size: 8192
            })
        );
    }

    #[test]
    fn a_status_says_what_it_waits_for() {
        let ask = |held: Option<&str>, state| {
            let held = held.map(str::to_owned);
            status(VolumeUid::random(), path(1, 1), 4096, held, state).reason
        };
        assert_eq!(ask(None, state()), "");
        assert_eq!(ask(Some("fenced"), state()), "fenced");
        let away = PathState {
            connected: false,
            ..state()
        };
        assert!(ask(None, away.clone()).contains("127.0.0.1:1"));
        let revoked = PathState {
            invalid_host: true,
            ..away
        };
        assert!(ask(None, revoked).contains("Attachment"));
    }
}
