//! Under which composition a request runs, and what its answers mean. Decides at once; what waits
//! is in [`Gate::enter`].
//!
//! ```text
//!            compose                 what was sent again has ended
//! Drained ───────────► Resending ───────────────────────────────────► Open
//!    ▲                     │                                           │
//!    │                     └───── an in-sync member fails, hold ───────┤
//!    └───── what began under it has ended ───── Draining ◄─────────────┘
//! ```
//!
//! From all of them a fence leads to silence, for good. Which change goes where is in the table of
//! [writes](crate::writes) that the model of the membership searches.

use super::asked::Answered;
use super::composition::{ComposeError, Composition, Current, Peer};
use super::report::{Failed, Failure, Flow, Report, Role};
use crate::writes::{Begun, WriteNumber, Writes};
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
    /// Reads wait too.
    is_paused: bool,
    /// Requests that run under the composition: also of members that do not count any more, as long
    /// as they are waited for.
    under_way: usize,
    fenced: bool,
    writes: Writes,
    /// As it was told last.
    flow: Flow,
}

impl State {
    /// The composition now, if it may be asked for anything.
    fn readable(&self) -> Option<&Arc<Current>> {
        let readable = !self.is_paused && !self.fenced;
        self.current.as_ref().filter(|_| readable)
    }

    fn is_drained(&self) -> bool {
        self.under_way == 0 && self.writes.drained()
    }

    fn flow(&self) -> Flow {
        if self.writes.is_open() {
            Flow::Open
        } else if !self.writes.is_draining() {
            Flow::Resending
        } else if self.is_drained() {
            Flow::Drained
        } else {
            Flow::Draining
        }
    }

    /// Nothing new is sent, and whose answers do not count is not waited for.
    fn drain(&mut self) {
        let peers = self.current.iter().flat_map(|current| &current.peers);
        let counts = peers.filter(|peer| !peer.has_failed());
        let counts: Vec<_> = counts.map(|peer| peer.slice).collect();
        // A change ends with all its answers at once, so none can be told of by this.
        self.writes.drain(&counts);
    }
}

/// See the module.
pub struct Gate {
    state: Mutex<State>,
    turned: Notify,
    report: watch::Sender<Report>,
    /// Told to whoever parks.
    fence: CancellationToken,
}

/// A request that runs under a composition.
pub struct Entry {
    gate: Arc<Gate>,
    /// That composition.
    pub current: Arc<Current>,
    /// The change that it is; none for a flush or a copy.
    number: Option<WriteNumber>,
}

impl Entry {
    /// What these answers to a change mean.
    pub fn judge(&self, answers: &[Answered]) -> Verdict {
        let verdict = self.gate.judge(answers);
        let (Verdict::Done | Verdict::Again, Some(number)) = (verdict, self.number) else {
            return verdict;
        };
        let mut state = self.gate.state();
        let mut told = false;
        for (peer, done) in answers {
            if done.is_ok() && !peer.has_failed() {
                told |= state.writes.acknowledged(peer.slice, number);
            }
        }
        if told { Verdict::Done } else { Verdict::Again }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        state.under_way -= 1;
        if let Some(number) = self.number {
            state.writes.set_back(number);
        }
        self.gate.settle(&mut state);
    }
}

impl Gate {
    pub fn new(fence: CancellationToken) -> Self {
        Self {
            state: Mutex::new(State {
                current: None,
                is_paused: true,
                under_way: 0,
                fenced: false,
                writes: Writes::default(),
                flow: Flow::default(),
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
        if !state.is_drained() {
            return Err(ComposeError::InFlight);
        }
        let next = Arc::new(Current::follow(state.current.as_deref(), next, size)?);
        let (in_sync, targets) = next.peers.split_at(next.in_sync().len());
        let in_sync: Vec<_> = in_sync.iter().map(|peer| peer.slice).collect();
        state.writes.adopt(next.config, &in_sync);
        for target in targets {
            state.writes.rebuild(target.slice);
        }
        (state.current, state.is_paused) = (Some(next.clone()), false);
        self.open_if_resent(&mut state);
        let flow = state.flow();
        state.flow = flow;
        self.tell(|report| {
            report.config = next.config;
            report.flow = flow;
            report.failed.clear();
        });
        drop(state);
        self.turned.notify_waiters();
        Ok(next)
    }

    /// Lets new changes begin once all that was sent again has ended, and tells how far it is.
    fn settle(&self, state: &mut State) {
        self.open_if_resent(state);
        let flow = state.flow();
        if std::mem::replace(&mut state.flow, flow) != flow {
            self.tell(|report| report.flow = flow);
        }
    }

    fn open_if_resent(&self, state: &mut State) {
        if state.writes.resent() {
            state.writes.open();
            self.turned.notify_waiters();
        }
    }

    /// Lets nothing new begin until the next composition.
    pub fn hold(&self, what: Hold) {
        let mut state = self.state();
        state.is_paused |= what == Hold::Everything;
        state.drain();
        self.settle(&mut state);
    }

    /// Waits until a change may begin, or be sent again if it has a number.
    pub async fn enter(self: &Arc<Self>, number: Option<WriteNumber>) -> (Entry, Begun) {
        self.entered(|state| {
            let begun = match number {
                None => state.writes.begin(),
                Some(number) => state.writes.again(number),
            }?;
            Some((Some(begun.number), begun))
        })
        .await
    }

    /// Waits until something may begin that is no change: a flush, or a copy to one member.
    pub async fn enter_beside(self: &Arc<Self>) -> Entry {
        let entered = self.entered(|state| state.writes.is_open().then_some((None, ())));
        entered.await.0
    }

    async fn entered<T>(
        self: &Arc<Self>,
        begin: impl Fn(&mut State) -> Option<(Option<WriteNumber>, T)>,
    ) -> (Entry, T) {
        loop {
            let turned = self.turned();
            if let Some(entered) = self.try_enter(&begin) {
                return entered;
            }
            turned.await;
        }
    }

    fn try_enter<T>(
        self: &Arc<Self>,
        begin: impl Fn(&mut State) -> Option<(Option<WriteNumber>, T)>,
    ) -> Option<(Entry, T)> {
        let mut state = self.state();
        let current = state.readable()?.clone();
        let (number, begun) = begin(&mut state)?;
        state.under_way += 1;
        let gate = self.clone();
        let entry = Entry {
            gate,
            current,
            number,
        };
        Some((entry, begun))
    }

    /// Waits until a read may begin.
    pub async fn enter_read(&self) -> Arc<Current> {
        loop {
            let turned = self.turned();
            let current = self.state().readable().cloned();
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
        let state = self.state();
        state.writes.is_open() && state.readable().is_some()
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
            match peer.role {
                Role::InSync => state.drain(),
                Role::Target => state.writes.abandon(peer.slice),
            }
            self.settle(&mut state);
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

    /// A number for what goes to one member alone and all others have already.
    pub fn number(&self) -> WriteNumber {
        self.state().writes.number()
    }

    /// What holds of all members now.
    pub fn checkpoint(&self) -> WriteNumber {
        self.state().writes.checkpoint()
    }

    /// Every change up to this one was acknowledged.
    pub fn complete(&self) -> WriteNumber {
        self.state().writes.complete()
    }

    /// A flush that began when `mark` was [complete](Gate::complete) is done everywhere.
    pub fn flushed(&self, mark: WriteNumber) {
        self.state().writes.flushed(mark);
    }

    /// One more, or one fewer, change that nobody has room for.
    pub fn count_full(&self, step: isize) {
        self.tell(|report| report.full = report.full.saturating_add_signed(step));
    }
}
