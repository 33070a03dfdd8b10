//! What happens to a namespace while hosts use it, told by whoever serves it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;
use weft_nvme::log::AnaState;

/// ANA state in bits 7:0, count of its changes above: read by every I/O command.
#[derive(Debug)]
struct Shared {
    ana: AtomicU64,
    sizes: AtomicU64,
    happened: watch::Sender<()>,
}

/// A handle on one namespace: clones are the same. A new one is optimized.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

/// How often each thing has happened, and the ANA state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub ana: AnaState,
    pub ana_changes: u64,
    pub sizes: u64,
}

impl Events {
    /// Of a namespace that is optimized.
    pub fn new() -> Self {
        Self(Arc::new(Shared {
            ana: AtomicU64::new(packed(AnaState::Optimized, 0)),
            sizes: AtomicU64::new(0),
            happened: watch::Sender::new(()),
        }))
    }

    /// The disk has another size than before: hosts are told to look (Namespace Attribute Changed).
    pub fn resized(&self) {
        self.0.sizes.fetch_add(1, Ordering::AcqRel);
        self.0.happened.send_replace(());
    }

    /// From now on commands are served in this state, and hosts are told. Unless it is optimized
    /// each new I/O command ends with a path related status and without Do Not Retry: a
    /// multipath host waits, without limit. Commands that run already end as they would have.
    pub fn set_ana(&self, state: AnaState) {
        let changed = self
            .0
            .ana
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                (unpacked(old).0 != state).then(|| packed(state, unpacked(old).1 + 1))
            });
        if changed.is_ok() {
            self.0.happened.send_replace(());
        }
    }

    /// The state of now.
    pub fn ana(&self) -> AnaState {
        unpacked(self.0.ana.load(Ordering::Acquire)).0
    }

    pub(super) fn seen(&self) -> Seen {
        let (ana, ana_changes) = unpacked(self.0.ana.load(Ordering::Acquire));
        Seen {
            ana,
            ana_changes,
            sizes: self.0.sizes.load(Ordering::Acquire),
        }
    }

    pub(super) fn happened(&self) -> watch::Receiver<()> {
        self.0.happened.subscribe()
    }
}

fn packed(state: AnaState, changes: u64) -> u64 {
    changes << 8 | state as u64
}

fn unpacked(value: u64) -> (AnaState, u64) {
    let state = if value & 0xff == AnaState::Optimized as u64 {
        AnaState::Optimized
    } else {
        AnaState::Inaccessible
    };
    (state, value >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_set_again_is_no_change() {
        let events = Events::new();
        let mut happened = events.happened();
        events.set_ana(AnaState::Optimized);
        assert!(!happened.has_changed().unwrap());
        events.set_ana(AnaState::Inaccessible);
        assert!(happened.has_changed().unwrap());
        happened.mark_unchanged();
        assert_eq!(
            (events.ana(), events.seen().ana_changes),
            (AnaState::Inaccessible, 1)
        );
        events.set_ana(AnaState::Optimized);
        assert_eq!(
            (events.ana(), events.seen().ana_changes),
            (AnaState::Optimized, 2)
        );
        events.resized();
        assert_eq!(events.seen().sizes, 1);
    }
}
