//! Who is in-sync, and who may say so: a state machine without sockets, clock or tasks (design
//! section 6).
//!
//! ```text
//! Inspecting ──► Fencing ──► Recording ──► Serving
//!      ▲            │            │            │
//!      └── a pair ──┘            │            │
//!         taken twice            ▼            ▼
//!                             StartAgain, Parked
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`event`] | what it is told, what it asks for |
//! | [`votes`] | order and majority |
//! | `start.rs` | from the first inspection to the first record |
//! | `change.rs` | the next record: a member fails, returns, is added or removed; voters change |
//! | `peers.rs` | what is known of each slice |
//! | `marks.rs` | the document's generation, durable before hosts are admitted |
//! | [`writes`](crate::writes) | the writes in flight, as the mirror keeps them: what is held, drained, sent again, acknowledged |
//! | `rules.rs`, `model/` | only for tests: the rules left out, and the model that finds it |

pub mod event;
pub mod votes;

mod change;
mod marks;
mod peers;
pub(crate) mod rules;
mod start;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use event::{Access, Action, Assignment, Event, Rebuild, Recovery, Region, Testimony, View};

use change::Stage;
use peers::Peers;
use rules::left_out;
use weft_spec::drive::SliceRecord;
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, SliceUid};

/// Where the engine is on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// Waits for what the obstacle names; has raised nothing.
    Inspecting(Obstacle),
    /// Raises the fence.
    Fencing,
    /// Puts its first record in force.
    Recording,
    /// A record of its own is in force.
    Serving,
    /// A newer pair was met; known only when an inspection told it. Final.
    Parked(Option<FencePair>),
    /// Ends, to be started again.
    Ended,
}

/// Why an engine does not raise the fence.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Obstacle {
    /// None so far.
    None,
    /// No majority of the voters answers: these do not.
    NoMajority(Vec<SliceUid>),
    /// No member that answers may lead: one of these must.
    NoLeader(Vec<SliceUid>),
    /// Acknowledged writes are lost, and a newer document than the one at hand has been in force: only
    /// it tells which hosts have to hear of that.
    Outdated(DocumentGeneration),
    /// The slices are empty, but the volume is not new or these slices did not answer.
    NotFormed(Vec<SliceUid>),
}

/// The membership of one volume, as its engine has it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Membership {
    assignment: Assignment,
    phase: Phase,
    boot: Boot,
    peers: Peers,
    /// The last record in force, or the one taken over.
    base: Option<SliceRecord>,
    /// Was asked for and may be durable somewhere.
    proposal: Option<SliceRecord>,
    stage: Stage,
    access: Access,
    /// Members that the mirror was told to read.
    readers: Vec<SliceUid>,
    marks: marks::Marks,
    #[cfg(test)]
    left_out: Option<rules::Rule>,
}

impl Membership {
    /// At the start of an engine, and the first things to do.
    pub fn new(assignment: Assignment) -> (Self, Vec<Action>) {
        let membership = Self {
            peers: Peers::default(),
            assignment,
            phase: Phase::Inspecting(Obstacle::None),
            boot: Boot(0),
            base: None,
            proposal: None,
            stage: Stage::Idle,
            access: Access::Paused,
            readers: Vec::new(),
            marks: marks::Marks::default(),
            #[cfg(test)]
            left_out: None,
        };
        let actions = membership.slices().into_iter().map(Action::Inspect);
        let actions = actions.collect();
        (membership, actions)
    }

    /// The same, with a rule left out.
    #[cfg(test)]
    fn without(self, rule: Option<rules::Rule>) -> Self {
        Self {
            left_out: rule,
            ..self
        }
    }

    /// Where it is on its way.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What hosts may do.
    pub fn access(&self) -> Access {
        self.access
    }

    /// The last record in force, or the one taken over.
    pub fn record(&self) -> Option<&SliceRecord> {
        self.base.as_ref()
    }

    /// Its fence pair; boot 0 before the fence was raised.
    pub fn pair(&self) -> FencePair {
        FencePair {
            term: self.assignment.term,
            boot: self.boot,
        }
    }

    /// Takes one event; gives what follows from it, to be done in this order.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        if matches!(self.phase, Phase::Parked(_) | Phase::Ended) {
            return Vec::new();
        }
        let mut actions = self.take(event);
        if !matches!(self.phase, Phase::Parked(_) | Phase::Ended) {
            self.advance(&mut actions);
        }
        self.tell_access(&mut actions);
        actions
    }

    fn take(&mut self, event: Event) -> Vec<Action> {
        match event {
            Event::Inspected(slice, testimony) => self.inspected(slice, testimony),
            Event::Promised(slice, testimony) => self.promised(slice, testimony),
            Event::Refused(slice, testimony) => self.refused(slice, testimony),
            Event::Lost(slice) => self.lost(slice),
            Event::GivenUp(slice) => self.given_up(slice),
            Event::Fenced(slice) if left_out!(self, FencedParks) => self.lost(slice),
            Event::Fenced(_) => self.park(None),
            Event::Recorded(slice) => self.recorded(slice),
            Event::Marked(slice, generation) => self.marked(slice, generation),
            Event::Drained => self.drained(),
            Event::Resent => self.resent(),
            Event::Rebuilt(slice) => self.rebuilt(slice),
            Event::Flushed(slice) => self.flushed(slice),
            Event::Assigned(assignment) => self.assigned(assignment),
        }
    }

    /// What follows from all that is known, whichever event told it.
    fn advance(&mut self, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Inspecting(_) => self.begin_fencing(actions),
            Phase::Fencing => self.take_over(actions),
            Phase::Recording | Phase::Serving => self.advance_change(actions),
            Phase::Parked(_) | Phase::Ended => {}
        }
    }

    /// Every slice that the document or the record names.
    fn slices(&self) -> Vec<SliceUid> {
        let mut slices = self.assignment.data.clone();
        slices.extend(&self.assignment.voters);
        if let Some(base) = &self.base {
            slices.extend(base.voters.iter().chain(&base.old_voters));
        }
        slices.sort_unstable();
        slices.dedup();
        slices
    }

    fn park(&mut self, by: Option<FencePair>) -> Vec<Action> {
        self.phase = Phase::Parked(by);
        vec![Action::Park]
    }

    fn start_again(&mut self, actions: &mut Vec<Action>) {
        self.phase = Phase::Ended;
        actions.push(Action::StartAgain);
    }
}
