//! The engine's decisions: a state machine without sockets, clock or tasks.
//!
//! ```text
//! Inspecting ──► Connecting ──► Recording ──► Serving
//!    │  ▲            │              │            │
//!    │  └─ Outdated  │              │            │
//!    └───────────────┴──────────────┴────────────┴──► Parked
//! ```
//!
//! - *Inspecting*: asks the slice what it has heard; raises nothing.
//! - *Outdated*: the slice has recorded a newer document; admits nobody until it is put.
//! - *Connecting*: raises the fence with (term, boot). From here on older engines are shut out.
//! - *Recording*: makes the document's generation durable at the slice.
//! - *Serving*: the export is open. The path to the drive may be lost and come back: hosts wait.
//! - *Parked*: a newer pair was met. Final.
//!
//! Rights are taken away at once and given only when the generation that gives them is durable.
//! So is a larger size: an engine that started again with an older document would else take
//! blocks back that hosts have seen.

#[cfg(test)]
pub(crate) mod tests;

use crate::document::{self, DocumentError, Verdict};
use std::net::SocketAddr;
use weft_spec::drive::SliceInspection;
use weft_spec::engine::{AllowedHost, EngineDocument};
use weft_spec::ids::{Boot, DocumentGeneration, FencePair};

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A slice answered an inspection.
    Inspected(SliceInspection),
    /// An inspection or the fence Connect did not come through, for this reason.
    Unreachable(String),
    /// The fence Connect is done: the pair is durable at the drive, older ones are drained.
    Connected,
    /// The members of a mirror have a record of this boot in force.
    Assembled(Boot),
    /// This generation is durable at the slice.
    Recorded(DocumentGeneration),
    /// The association to the drive is lost.
    PathLost(String),
    /// There is an association to the drive.
    PathUp,
    /// The drive refuses this host: perhaps a newer pair is in force.
    PathRefused(String),
    /// The drive refused a command because a newer pair is in force.
    Fenced,
    /// So many associations of hosts live now.
    Associations(usize),
    /// The slice has so many bytes now.
    SliceSize(u64),
    /// Asked to end (SIGTERM).
    Terminate,
}

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Ask the slice; gives up an inspection or Connect under way.
    Inspect,
    /// Connect as this pair.
    Connect(FencePair),
    /// Make this generation durable at the slice, however long it takes.
    Record(DocumentGeneration),
    /// Let [`Engine::admitted`] be the hosts that may connect; end the others' associations.
    Admit,
    /// Open the export.
    Serve,
    /// Ask the slice for its size, with [`Event::SliceSize`] as the answer.
    Measure,
    /// Let the export have so many bytes, and tell the hosts.
    Grow(u64),
    /// The drive is elsewhere now.
    Redirect(SocketAddr),
    /// Answer nobody any more, report, and exit so that nothing starts this engine again.
    Park,
    /// Exit in order.
    Leave,
}

/// Where the engine is on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Waits for the slice's answer; the text says why the last attempt did not do.
    Inspecting(Obstacle),
    /// The slice has recorded this generation, newer than the document at hand.
    Outdated(DocumentGeneration),
    /// Raises the fence.
    Connecting,
    /// Makes the generation durable.
    Recording,
    /// The export is open.
    Serving,
    /// A newer pair is in force; known only when an inspection told it.
    Parked(Option<FencePair>),
}

/// Why an inspection has not led on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// None so far.
    None,
    /// No answer.
    Unreachable(String),
    /// The slice there is another one.
    Mismatch(String),
    /// The slice has fewer bytes than the volume.
    TooSmall {
        /// Bytes of the slice.
        slice: u64,
    },
}

/// The path to the drive, once the fence was raised.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Path {
    /// An association lives.
    Up,
    /// It does not, for this reason.
    Lost(String),
}

/// The state of one engine.
#[derive(Clone, Debug)]
pub struct Engine {
    document: EngineDocument,
    phase: Phase,
    path: Path,
    boot: Boot,
    recorded: DocumentGeneration,
    admitted: Vec<AllowedHost>,
    associations: usize,
    terminating: bool,
    /// Bytes that the slice is known to have.
    slice_size: u64,
    /// Bytes that the export has; 0 before the fence was raised.
    size: u64,
}

impl Engine {
    /// An engine at its start, and the first thing to do.
    pub fn new(document: EngineDocument) -> (Self, Vec<Action>) {
        let engine = Self {
            document,
            phase: Phase::Inspecting(Obstacle::None),
            path: Path::Lost(String::new()),
            boot: Boot(0),
            recorded: DocumentGeneration(0),
            admitted: Vec::new(),
            associations: 0,
            terminating: false,
            slice_size: 0,
            size: 0,
        };
        (engine, vec![Action::Inspect])
    }

    /// The newest accepted document.
    pub fn document(&self) -> &EngineDocument {
        &self.document
    }
    /// Where it is on its way.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }
    /// The path to the drive.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The hosts that may connect now.
    pub fn admitted(&self) -> &[AllowedHost] {
        &self.admitted
    }
    /// Greatest generation that this engine made durable.
    pub fn recorded(&self) -> DocumentGeneration {
        self.recorded
    }
    /// Bytes that hosts see; 0 before the fence was raised.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Bytes that the slice has, as far as is known, while they are too few for the document in
    /// force.
    pub fn too_small(&self) -> Option<u64> {
        self.must_grow().then_some(self.slice_size)
    }
    /// Whether it was asked to end.
    pub fn terminating(&self) -> bool {
        self.terminating
    }
    /// Its fence pair; boot 0 before the fence was raised.
    pub fn pair(&self) -> FencePair {
        FencePair {
            term: self.document.term,
            boot: self.boot,
        }
    }

    /// Takes one event; gives what follows from it.
    pub fn step(&mut self, event: Event) -> Vec<Action> {
        if matches!(self.phase, Phase::Parked(_)) {
            return Vec::new();
        }
        match event {
            Event::Inspected(inspection) => self.inspected(&inspection),
            Event::Unreachable(reason) => self.unreachable(reason),
            Event::Connected => self.connected(),
            Event::Assembled(boot) => self.assembled(boot),
            Event::Recorded(generation) => self.record(generation),
            Event::PathLost(reason) => {
                self.path = Path::Lost(reason);
                Vec::new()
            }
            Event::PathUp => {
                self.path = Path::Up;
                self.grow()
            }
            Event::SliceSize(size) => {
                self.slice_size = self.slice_size.max(size);
                self.grow_if_it_fits()
            }
            Event::PathRefused(reason) => {
                self.path = Path::Lost(reason);
                vec![Action::Inspect]
            }
            Event::Fenced => self.park(None),
            Event::Associations(live) => {
                self.associations = live;
                self.leave_if_unused()
            }
            // Asked twice: somebody does not want to wait for the hosts.
            Event::Terminate if self.terminating => vec![Action::Leave],
            Event::Terminate => {
                self.terminating = true;
                self.leave_if_unused()
            }
        }
    }

    /// Takes a document that was put. `Ok` means accepted: it is in force once
    /// [`Engine::in_force`] says so.
    pub fn offer(&mut self, put: EngineDocument) -> Result<Vec<Action>, DocumentError> {
        let known = match self.phase {
            Phase::Parked(_) => return Err(DocumentError::Parked),
            Phase::Outdated(known) => known,
            _ => self.recorded,
        };
        if document::judge(&self.document, known, &put)? == Verdict::Same {
            return Ok(Vec::new());
        }
        let address = |document| document::only_slice(document).map(|slice| slice.address);
        let moved = address(&put).filter(|now| Some(*now) != address(&self.document));
        self.document = put;
        if matches!(
            self.phase,
            Phase::Inspecting(_) | Phase::Outdated(_) | Phase::Connecting
        ) {
            self.phase = Phase::Inspecting(Obstacle::None);
            return Ok(vec![Action::Inspect]);
        }
        let mut actions = Vec::new();
        actions.extend(moved.map(Action::Redirect));
        self.admitted
            .retain(|host| self.document.hosts.contains(host));
        actions.extend([Action::Admit, Action::Record(self.document.generation)]);
        Ok(actions)
    }

    /// Whether this generation, or a later one, is durable and in force.
    pub fn in_force(&self, generation: DocumentGeneration) -> bool {
        self.phase == Phase::Serving && self.recorded >= generation
    }

    fn inspected(&mut self, inspection: &SliceInspection) -> Vec<Action> {
        let own = self.pair();
        // Another slice says nothing about this one's fence.
        let ours = self.mismatch(inspection).is_none();
        if ours && inspection.fence.term > own.term {
            return self.park(Some(inspection.fence));
        }
        match self.phase {
            Phase::Inspecting(_) => self.begin(inspection),
            // Looked again because the drive refused this host: another process has a higher
            // boot, or it is a passing trouble of the path.
            Phase::Recording | Phase::Serving if ours && inspection.fence > own => {
                self.park(Some(inspection.fence))
            }
            Phase::Recording | Phase::Serving if self.path != Path::Up => vec![Action::Inspect],
            _ => Vec::new(),
        }
    }

    fn begin(&mut self, inspection: &SliceInspection) -> Vec<Action> {
        if let Some(obstacle) = self.obstacle(inspection) {
            self.phase = Phase::Inspecting(obstacle);
            return vec![Action::Inspect];
        }
        if inspection.document_generation > self.document.generation {
            self.phase = Phase::Outdated(inspection.document_generation);
            return Vec::new();
        }
        let heard = if inspection.fence.term == self.document.term {
            inspection.fence.boot.0
        } else {
            0
        };
        let Some(boot) = heard.checked_add(1) else {
            return self.park(Some(inspection.fence));
        };
        self.boot = Boot(boot);
        self.slice_size = inspection.size;
        self.phase = Phase::Connecting;
        vec![Action::Connect(self.pair())]
    }

    fn obstacle(&self, inspection: &SliceInspection) -> Option<Obstacle> {
        let small = (inspection.size < self.document.size).then_some(Obstacle::TooSmall {
            slice: inspection.size,
        });
        self.mismatch(inspection).or(small)
    }

    fn mismatch(&self, inspection: &SliceInspection) -> Option<Obstacle> {
        let slice = document::only_slice(&self.document).map(|slice| slice.slice);
        let other = Some(inspection.slice) != slice || inspection.volume != self.document.volume;
        other.then(|| {
            Obstacle::Mismatch(format!(
                "slice {} of volume {} answers there",
                inspection.slice, inspection.volume
            ))
        })
    }

    fn unreachable(&mut self, reason: String) -> Vec<Action> {
        match self.phase {
            Phase::Inspecting(_) | Phase::Connecting => {
                self.phase = Phase::Inspecting(Obstacle::Unreachable(reason));
                vec![Action::Inspect]
            }
            // The path is looked after by itself; only a refusal calls for another look.
            Phase::Recording | Phase::Serving if self.path != Path::Up => vec![Action::Inspect],
            _ => Vec::new(),
        }
    }

    fn connected(&mut self) -> Vec<Action> {
        if self.phase != Phase::Connecting {
            return Vec::new();
        }
        self.phase = Phase::Recording;
        self.path = Path::Up;
        self.size = self.document.size;
        vec![Action::Record(self.document.generation)]
    }

    /// The membership sees to inspection, fence and records.
    fn assembled(&mut self, boot: Boot) -> Vec<Action> {
        if matches!(self.phase, Phase::Inspecting(_)) {
            self.boot = boot;
            self.phase = Phase::Recording;
            self.path = Path::Up;
            self.size = self.document.size;
        }
        Vec::new()
    }

    fn record(&mut self, generation: DocumentGeneration) -> Vec<Action> {
        self.recorded = self.recorded.max(generation);
        if self.recorded < self.document.generation {
            return Vec::new();
        }
        let mut actions = match self.phase {
            Phase::Recording => vec![Action::Admit, Action::Serve],
            Phase::Serving => vec![Action::Admit],
            _ => return Vec::new(),
        };
        self.phase = Phase::Serving;
        self.admitted.clone_from(&self.document.hosts);
        actions.extend(self.grow());
        actions
    }

    fn must_grow(&self) -> bool {
        self.in_force(self.document.generation) && self.size < self.document.size
    }

    /// What the document in force wants more, the slice is asked for: once for each document and
    /// each association, and whenever the drive tells a size by itself.
    fn grow(&mut self) -> Vec<Action> {
        if self.must_grow() && self.slice_size < self.document.size {
            return vec![Action::Measure];
        }
        self.grow_if_it_fits()
    }

    fn grow_if_it_fits(&mut self) -> Vec<Action> {
        if !self.must_grow() || self.slice_size < self.document.size {
            return Vec::new();
        }
        self.size = self.document.size;
        vec![Action::Grow(self.size)]
    }

    fn park(&mut self, by: Option<FencePair>) -> Vec<Action> {
        self.phase = Phase::Parked(by);
        self.path = Path::Lost("a newer engine owns the slice".into());
        self.admitted.clear();
        vec![Action::Park]
    }

    fn leave_if_unused(&self) -> Vec<Action> {
        let leave = self.terminating && self.associations == 0;
        if leave {
            vec![Action::Leave]
        } else {
            Vec::new()
        }
    }
}
