//! The one loop of a volume's slices: waits for what happens, gives it to the membership, does what
//! it asks for.

use super::attempts::Ways;
use super::weave::Weave;
use crate::layers::mirror::{Flow, Mirror, Report};
use crate::membership::{Access, Action, Assignment, Event, Membership, Phase, Rebuild, Testimony};
use crate::network::Network;
use crate::rebuild::RemoteSlice;
use crate::slice_link::canonical;
use crate::way::Way;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{Config, SliceRecord};
use weft_spec::ids::{DocumentGeneration, FencePair, SliceUid};

/// How long a member may be away before the others go on without it. A bound on the pause that a
/// host sees, never on what is safe.
const PATIENCE: Duration = Duration::from_millis(1500);

/// How an assembly ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A newer pair is in force: nothing may start this engine again.
    Parked,
    /// Another start of this engine has to decide anew.
    Again,
}

/// An association that lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wire {
    /// This end of the association.
    pub local: SocketAddr,
    /// The same as the drive sees it.
    pub seen_by_drive: SocketAddr,
    /// SUBNQN that the drive answered.
    pub identity: String,
}

/// What is told of it.
#[derive(Clone, PartialEq, Debug)]
pub struct State {
    /// Its pair; boot 0 before the fence was raised.
    pub pair: FencePair,
    /// Where the membership is on its way.
    pub phase: Phase,
    /// What hosts may do.
    pub access: Access,
    /// The newest document whose hosts may connect.
    pub admitted: Option<DocumentGeneration>,
    /// A newer document than the one at hand is durable at the slices: nobody is admitted before it
    /// comes.
    pub outdated: Option<DocumentGeneration>,
    /// The record in force.
    pub record: Option<SliceRecord>,
    /// Slices with an association.
    pub wires: BTreeMap<SliceUid, Wire>,
    /// It does nothing more.
    pub end: Option<End>,
}

/// The slices of a volume, and the one disk that they make.
pub struct Members {
    /// That disk.
    pub mirror: Arc<Mirror>,
    /// What is told.
    pub state: watch::Receiver<State>,
    assignments: watch::Sender<(Assignment, Vec<Way>)>,
    _loop: AbortOnDropHandle<()>,
}

impl Members {
    /// Begins with the first document; `fenced` is cancelled when a newer pair is met.
    pub fn start(
        network: Arc<dyn Network>,
        assignment: Assignment,
        ways: Vec<Way>,
        fenced: CancellationToken,
    ) -> Self {
        let mirror = Arc::new(Mirror::new(fenced.clone()));
        let (membership, actions) = Membership::new(assignment.clone());
        let state = watch::Sender::new(told(&membership));
        let (assignments, assigned) = watch::channel((assignment, ways.clone()));
        let receiver = state.subscribe();
        let assembly = Assembly {
            network,
            mirror: mirror.clone(),
            membership,
            state,
            fenced,
            weave: Weave::default(),
            ways: watch::Sender::new(by_slice(ways)),
            links: BTreeMap::new(),
            waits: BTreeMap::new(),
            serial: Serial::default(),
            readers: BTreeSet::new(),
            patience: BTreeMap::new(),
            judged: BTreeSet::new(),
            rebuilds: Vec::new(),
            is_resending: false,
            admitted: None,
            is_draining: false,
            is_paused: true,
            tasks: JoinSet::new(),
        };
        Self {
            mirror,
            state: receiver,
            assignments,
            _loop: AbortOnDropHandle::new(tokio::spawn(assembly.run(actions, assigned))),
        }
    }

    /// Takes a newer document.
    pub fn assign(&self, assignment: Assignment, ways: Vec<Way>) {
        self.assignments.send_replace((assignment, ways));
    }
}

fn by_slice(ways: Vec<Way>) -> Ways {
    let named = ways.into_iter().map(|way| (way.member.slice, way));
    named.collect()
}

fn told(membership: &Membership) -> State {
    State {
        pair: membership.pair(),
        phase: membership.phase().clone(),
        access: membership.access(),
        admitted: None,
        outdated: membership.outdated(),
        record: membership.record().cloned(),
        wires: BTreeMap::new(),
        end: None,
    }
}

/// One association of many.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Serial(u64);

pub(super) struct Link {
    pub(super) slice: Arc<RemoteSlice>,
    pub(super) serial: Serial,
    seen_by_drive: SocketAddr,
}

/// Over which association, under which config a slice is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Copied(Option<Serial>, Config);

pub(super) enum Happened {
    Event(Event),
    /// With the address of this end as the drive sees it.
    Connected(SliceUid, Arc<RemoteSlice>, Testimony, SocketAddr),
    /// That association is lost.
    Closed(SliceUid, Serial),
    /// Nobody waits any longer for who has had no association since then.
    Patience(SliceUid, Serial),
    /// What came of what a slice was asked for over that association.
    Done(SliceUid, Serial, Result<Event, DiskError>),
    /// A slice was brought up to date, or was not.
    Rebuilt(SliceUid, Copied, bool),
    /// What might have differed is the same on all members, and they know.
    Equal,
    /// The mirror has told something.
    Mirror,
    Assigned(Box<(Assignment, Vec<Way>)>),
    Fenced,
}

pub(super) struct Assembly {
    pub(super) network: Arc<dyn Network>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) membership: Membership,
    pub(super) state: watch::Sender<State>,
    pub(super) fenced: CancellationToken,
    pub(super) weave: Weave,
    pub(super) ways: watch::Sender<Ways>,
    pub(super) links: BTreeMap<SliceUid, Link>,
    /// Inspections and Connects under way.
    pub(super) waits: BTreeMap<SliceUid, AbortHandle>,
    pub(super) serial: Serial,
    /// Members that may be read.
    pub(super) readers: BTreeSet<SliceUid>,
    /// Since when each slice without an association is waited for.
    pub(super) patience: BTreeMap<SliceUid, Serial>,
    /// Associations over which a member has failed.
    pub(super) judged: BTreeSet<(SliceUid, Serial)>,
    /// Begin with the next composition.
    pub(super) rebuilds: Vec<Rebuild>,
    /// The mirror sends again what did not end well under the composition before.
    pub(super) is_resending: bool,
    /// The newest document whose hosts may connect.
    pub(super) admitted: Option<DocumentGeneration>,
    /// The membership waits for the mirror to drain.
    pub(super) is_draining: bool,
    /// Hosts may not even read.
    pub(super) is_paused: bool,
    pub(super) tasks: JoinSet<Happened>,
}

impl Assembly {
    async fn run(
        mut self,
        first: Vec<Action>,
        mut assigned: watch::Receiver<(Assignment, Vec<Way>)>,
    ) {
        let slices: Vec<_> = self.ways.borrow().keys().copied().collect();
        slices.into_iter().for_each(|slice| self.be_patient(slice));
        self.perform(first);
        let mut report = self.mirror.report();
        while self.state.borrow().end.is_none() {
            let happened = self.wait(&mut report, &mut assigned).await;
            let actions = self.apply(happened);
            self.perform(actions);
        }
    }

    async fn wait(
        &mut self,
        report: &mut watch::Receiver<Report>,
        assigned: &mut watch::Receiver<(Assignment, Vec<Way>)>,
    ) -> Happened {
        loop {
            // The fence first: it ends all answers. The same order each time, for simulations.
            tokio::select! {
                biased;
                () = self.fenced.cancelled() => return Happened::Fenced,
                Ok(()) = report.changed() => return Happened::Mirror,
                Ok(()) = assigned.changed() => {
                    return Happened::Assigned(Box::new(assigned.borrow_and_update().clone()));
                }
                Some(task) = self.tasks.join_next() => match task {
                    Ok(happened) => return happened,
                    // Given up for a newer one.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
            }
        }
    }

    fn apply(&mut self, happened: Happened) -> Vec<Action> {
        match happened {
            Happened::Event(event) => self.membership.step(event),
            Happened::Connected(uid, slice, testimony, peer) => {
                self.keep(uid, slice, peer);
                self.membership.step(Event::Promised(uid, testimony))
            }
            Happened::Closed(slice, serial) if self.serial_of(slice) == Some(serial) => {
                self.closed(slice)
            }
            Happened::Patience(slice, since)
                if self.serial_of(slice).is_none() && self.is_newest(slice, since) =>
            {
                self.membership.step(Event::GivenUp(slice))
            }
            Happened::Done(slice, _, Err(error)) if error.kind() == ErrorKind::Fenced => {
                self.membership.step(Event::Fenced(slice))
            }
            Happened::Done(slice, serial, done) if self.serial_of(slice) == Some(serial) => {
                match done {
                    Ok(event) => self.membership.step(event),
                    Err(error) => {
                        tracing::warn!(%slice, %error, "a slice did not do what it was asked for");
                        self.lose(slice)
                    }
                }
            }
            Happened::Rebuilt(slice, copied, true) if copied == self.copied(slice) => {
                self.membership.step(Event::Rebuilt(slice))
            }
            Happened::Rebuilt(slice, copied, false) if copied == self.copied(slice) => {
                let mut actions = self.lose(slice);
                actions.extend(self.membership.step(Event::GivenUp(slice)));
                actions
            }
            Happened::Mirror => self.mirror_told(),
            Happened::Assigned(next) => {
                let (assignment, ways) = *next;
                self.take_ways(by_slice(ways));
                self.membership.step(Event::Assigned(assignment))
            }
            Happened::Fenced => {
                let any = self.ways.borrow().keys().next().copied();
                any.map_or(Vec::new(), |slice| {
                    self.membership.step(Event::Fenced(slice))
                })
            }
            // Of what is not any more.
            Happened::Closed(..)
            | Happened::Done(..)
            | Happened::Equal
            | Happened::Patience(..)
            | Happened::Rebuilt(..) => Vec::new(),
        }
    }

    /// Whoever tries to reach a slice goes the newer way; one that is new is waited for.
    fn take_ways(&mut self, next: Ways) {
        let before = self.ways.borrow().clone();
        let new = next.keys().copied();
        let new: Vec<_> = new.filter(|slice| !before.contains_key(slice)).collect();
        self.ways
            .send_if_modified(|ways| std::mem::replace(ways, next.clone()) != next);
        new.into_iter().for_each(|slice| self.be_patient(slice));
    }

    fn serial_of(&self, slice: SliceUid) -> Option<Serial> {
        self.links.get(&slice).map(|link| link.serial)
    }

    /// How a slice is brought up to date now, if it is.
    pub(super) fn copied(&self, slice: SliceUid) -> Copied {
        Copied(self.serial_of(slice), self.weave.config())
    }

    /// An association of a slice that promises.
    fn keep(&mut self, uid: SliceUid, slice: Arc<RemoteSlice>, seen_by_drive: SocketAddr) {
        self.serial.0 += 1;
        let serial = self.serial;
        let closed = slice.disk().closed();
        self.tasks.spawn(async move {
            closed.await;
            Happened::Closed(uid, serial)
        });
        let link = Link {
            slice,
            serial,
            seen_by_drive,
        };
        self.links.insert(uid, link);
    }

    /// An association has ended. Who fell silent was waited for already.
    fn closed(&mut self, slice: SliceUid) -> Vec<Action> {
        let link = self.links.get(&slice);
        let fell_silent = link.is_some_and(|link| link.slice.disk().fell_silent());
        let mut actions = self.lose(slice);
        if fell_silent {
            actions.extend(self.membership.step(Event::GivenUp(slice)));
        }
        actions
    }

    /// The association does not count any more; what was sent over it has no answer.
    pub(super) fn lose(&mut self, slice: SliceUid) -> Vec<Action> {
        if let Some(link) = self.links.remove(&slice) {
            // Before there is another: the drive shuts this one out then, and may say so to what still
            // comes over it, which says nothing of a newer engine.
            link.slice.disk().abandon();
        }
        self.be_patient(slice);
        self.membership.step(Event::Lost(slice))
    }

    /// From now on a slice without an association is waited for, but not for ever.
    fn be_patient(&mut self, slice: SliceUid) {
        self.serial.0 += 1;
        let since = self.serial;
        self.patience.insert(slice, since);
        self.tasks.spawn(async move {
            sleep(PATIENCE).await;
            Happened::Patience(slice, since)
        });
    }

    fn is_newest(&self, slice: SliceUid, since: Serial) -> bool {
        self.patience.get(&slice) == Some(&since)
    }

    /// Who has failed, and how far the composition is.
    fn mirror_told(&mut self) -> Vec<Action> {
        let report = self.mirror.report().borrow().clone();
        let mut actions = Vec::new();
        if self.is_resending && report.flow == Flow::Open {
            self.is_resending = false;
            actions.extend(self.membership.step(Event::Resent));
        }
        let gone = report
            .failed
            .iter()
            .filter(|failed| !failed.failure.is_of_path());
        for failed in gone {
            if let Some(serial) = self.serial_of(failed.slice)
                && self.judged.insert((failed.slice, serial))
            {
                tracing::warn!(slice = %failed.slice, reason = failed.message, "a member has failed");
                actions.extend(self.lose(failed.slice));
                // It answers, and would answer the same again.
                actions.extend(self.membership.step(Event::GivenUp(failed.slice)));
            }
        }
        actions
    }

    pub(super) fn is_drained(&self) -> bool {
        self.mirror.report().borrow().flow == Flow::Drained
    }

    /// Tells people of another record in force.
    fn say(&self, record: Option<&SliceRecord>) {
        let before = self.state.borrow().record.clone();
        let Some(record) = record.filter(|record| Some(*record) != before.as_ref()) else {
            return;
        };
        let config = record.config.0;
        match record.out_of_sync.as_slice() {
            [] => tracing::info!(config, "all members are in-sync"),
            out => tracing::warn!(config, ?out, "one member fewer, or more: goes on without"),
        }
    }

    /// Tells what is so now.
    pub(super) fn publish(&mut self) {
        let wire = |(slice, link): (&SliceUid, &Link)| {
            let wire = Wire {
                local: canonical(link.slice.disk().local()),
                seen_by_drive: link.seen_by_drive,
                identity: link.slice.disk().subsystem().to_owned(),
            };
            (*slice, wire)
        };
        let wires = self.links.iter().map(wire).collect();
        let (pair, access) = (self.membership.pair(), self.membership.access());
        // With the record in one word: whoever admits hosts must know of a loss.
        let admitted = self.admitted;
        let (phase, outdated, record) = (
            self.membership.phase().clone(),
            self.membership.outdated(),
            self.membership.record().cloned(),
        );
        self.say(record.as_ref());
        self.state.send_if_modified(|state| {
            let next = State {
                pair,
                phase,
                access,
                admitted,
                outdated,
                record,
                wires,
                ..state.clone()
            };
            std::mem::replace(state, next.clone()) != next
        });
    }
}
