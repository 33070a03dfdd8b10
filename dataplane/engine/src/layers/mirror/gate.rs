//! Under which composition a request runs, and what its answers mean. Decides at once; what waits
//! is in [`Gate::enter`].
//!
//! ```text
//!            compose              an in-sync member fails, hold
//! Drained ───────────► Open ─────────────────────────────────► Draining
//!    ▲                                                             │
//!    └─────────────── what began under it has ended ───────────────┘
//! ```
//!
//! From all of them a fence leads to silence, for good.

use super::asked::Answered;
use super::composition::{ComposeError, Composition, Current, Peer};
use super::numbers::{ChangeNumber, Numbers};
use super::report::{Failed, Failure, Flow, Report, Role};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_block::{DiskError, ErrorKind};
use weft_spec::ids::SliceUid;

/// What is kept from beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Changes and flushes.
    Changes,
    /// Reads too (design 6.11).
    Everything,
}

/// Which requests wait for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Read,
    /// Also flushes.
    Change,
}

/// What the answers of all members to a change or a flush mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// All have done it.
    Done,
    /// Send it again under the next composition.
    Again,
    /// Nobody has room for it.
    Full,
    /// Never to be answered.
    Fenced,
}

struct State {
    current: Option<Arc<Current>>,
    held: Option<Hold>,
    in_flight: usize,
    fenced: bool,
    numbers: Numbers,
}

/// See the module.
pub struct Gate {
    state: Mutex<State>,
    turned: Notify,
    report: watch::Sender<Report>,
    /// Told to whoever parks.
    fence: CancellationToken,
}

/// A change or a flush that runs under a composition.
pub struct Entry {
    gate: Arc<Gate>,
    /// That composition.
    pub current: Arc<Current>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.in_flight -= 1;
        if state.in_flight == 0 && state.held.is_some() {
            self.gate.tell(|report| report.flow = Flow::Drained);
        }
    }
}

impl Gate {
    pub fn new(fence: CancellationToken) -> Self {
        Self {
            state: Mutex::new(State {
                current: None,
                held: Some(Hold::Everything),
                in_flight: 0,
                fenced: false,
                numbers: Numbers::default(),
            }),
            turned: Notify::new(),
            report: watch::Sender::default(),
            fence,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, change: impl FnOnce(&mut Report)) {
        self.report.send_if_modified(|report| {
            let before = report.clone();
            change(report);
            *report != before
        });
    }

    /// Told at each change.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.report.subscribe()
    }

    /// Resolves at the next composition, release, giving up or fence after this call.
    pub fn turned(&self) -> Notified<'_> {
        self.turned.notified()
    }

    /// Puts a composition in force.
    pub fn compose(&self, next: Composition, size: u64) -> Result<Arc<Current>, ComposeError> {
        let mut state = self.state();
        if state.fenced {
            return Err(ComposeError::Fenced);
        }
        if state.in_flight > 0 {
            return Err(ComposeError::InFlight);
        }
        let next = Arc::new(Current::follow(state.current.as_deref(), next, size)?);
        state.current = Some(next.clone());
        state.held = None;
        self.tell(|report| {
            report.config = next.config;
            report.flow = Flow::Open;
            report.failed.clear();
        });
        drop(state);
        self.turned.notify_waiters();
        Ok(next)
    }

    /// Lets nothing new begin until the next composition.
    pub fn hold(&self, what: Hold) {
        let mut state = self.state();
        self.hold_locked(&mut state, what);
    }

    fn hold_locked(&self, state: &mut State, what: Hold) {
        if state.held != Some(Hold::Everything) {
            state.held = Some(what);
        }
        let flow = match state.in_flight {
            0 => Flow::Drained,
            _ => Flow::Draining,
        };
        self.tell(|report| report.flow = flow);
    }

    /// The composition now, if a request of this kind may begin.
    fn open(state: &State, kind: Kind) -> Option<&Arc<Current>> {
        let is_held = match kind {
            Kind::Read => state.held == Some(Hold::Everything),
            Kind::Change => state.held.is_some(),
        };
        state.current.as_ref().filter(|_| !is_held && !state.fenced)
    }

    /// Waits until a change may begin.
    pub async fn enter(self: &Arc<Self>) -> Entry {
        loop {
            let turned = self.turned();
            {
                let mut state = self.state();
                if let Some(current) = Self::open(&state, Kind::Change).cloned() {
                    state.in_flight += 1;
                    let gate = self.clone();
                    return Entry { gate, current };
                }
            }
            turned.await;
        }
    }

    /// Waits until a read may begin.
    pub async fn enter_read(&self) -> Arc<Current> {
        loop {
            let turned = self.turned();
            let current = Self::open(&self.state(), Kind::Read).cloned();
            match current {
                Some(current) => return current,
                None => turned.await,
            }
        }
    }

    /// The composition now.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.state().current.clone()
    }

    /// Whether a change may begin.
    pub fn is_open(&self) -> bool {
        Self::open(&self.state(), Kind::Change).is_some()
    }

    /// Returns an answer unless it must never be given.
    pub async fn answer<T>(&self, answer: T) -> T {
        if self.state().fenced {
            std::future::pending::<()>().await;
        }
        answer
    }

    /// A newer engine is in force.
    pub fn fence(&self) {
        let mut state = self.state();
        state.fenced = true;
        self.tell(|report| report.fenced = true);
        drop(state);
        self.fence.cancel();
        self.turned.notify_waiters();
    }

    /// What a member says does not count any more: it has failed in this way. True if that was news.
    pub fn fail(&self, peer: &Peer, error: &DiskError) -> bool {
        match Failure::of(error) {
            None => {
                self.fence();
                false
            }
            Some(failure) => self.fail_as(peer, failure, error.to_string()),
        }
    }

    fn fail_as(&self, peer: &Peer, failure: Failure, message: String) -> bool {
        let mut state = self.state();
        if !peer.fail(failure) {
            return false;
        }
        let failed = Failed {
            slice: peer.slice,
            role: peer.role,
            failure,
            message,
        };
        // A late word about an earlier composition changes nothing of this one.
        let current = state.current.as_ref();
        let is_now = |peer: &Peer| {
            let same = |other: &Arc<Peer>| std::ptr::eq(&**other, peer);
            current.is_some_and(|current| current.peers.iter().any(same))
        };
        if is_now(peer) {
            self.tell(|report| report.failed.push(failed));
            if peer.role == Role::InSync {
                self.hold_locked(&mut state, Hold::Changes);
            }
        }
        true
    }

    /// Waits for this member's answers no longer.
    pub fn give_up(&self, slice: SliceUid) {
        let current = self.current();
        if let Some(peer) = current.as_ref().and_then(|current| current.peer(slice)) {
            self.fail_as(peer, Failure::GivenUp, "not waited for any more".to_owned());
            // It may have failed otherwise before.
            peer.fail(Failure::GivenUp);
            self.turned.notify_waiters();
        }
    }

    /// What these answers mean, to a request that entered; failures but a lack of room are noted.
    /// Room that others had is a failure of who has none.
    pub fn judge(&self, answers: &[Answered]) -> Verdict {
        let is_in_sync = |(peer, _): &&Answered| peer.role == Role::InSync;
        let no_room = || {
            let answers = answers.iter();
            let errors = answers.filter_map(|(peer, done)| Some((peer, done.as_ref().err()?)));
            errors.filter(|(_, error)| error.kind() == ErrorKind::NoSpace)
        };
        let some_has_room = answers
            .iter()
            .filter(is_in_sync)
            .any(|(_, done)| done.is_ok());
        let is_full = |peer: &Peer| peer.role == Role::InSync && !some_has_room;
        for (peer, error) in no_room().filter(|(peer, _)| !is_full(peer)) {
            self.fail(peer, error);
        }
        // An answer of a member that failed meanwhile counts for nothing either: it may have lost
        // what it had taken (`replication.md` rule 10).
        let mut in_sync = answers.iter().filter(is_in_sync);
        if self.state().fenced {
            Verdict::Fenced
        } else if in_sync.any(|(peer, _)| peer.has_failed()) {
            Verdict::Again
        } else if no_room().any(|(peer, _)| is_full(peer)) {
            Verdict::Full
        } else {
            Verdict::Done
        }
    }

    /// A number for a change, and the checkpoint to send with it.
    pub fn number(&self) -> ChangeNumber {
        self.state().numbers.take()
    }

    /// What holds of all members now.
    pub fn checkpoint(&self) -> ChangeNumber {
        self.state().numbers.checkpoint()
    }

    /// Every change up to this one was acknowledged.
    pub fn acknowledged(&self) -> ChangeNumber {
        self.state().numbers.acknowledged()
    }

    /// A change is done everywhere.
    pub fn acknowledge(&self, number: ChangeNumber) {
        self.state().numbers.acknowledge(number);
    }

    /// A flush that began when `mark` was acknowledged is done everywhere.
    pub fn flushed(&self, mark: ChangeNumber) {
        self.state().numbers.flushed(mark);
    }

    /// One more, or one fewer, change that nobody has room for.
    pub fn count_full(&self, step: isize) {
        self.tell(|report| report.full = report.full.saturating_add_signed(step));
    }
}
