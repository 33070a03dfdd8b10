//! One process of an engine: the core and the writes as they ship, and around them what the mirror
//! and the run loop owe, each command one step of the model.

use super::broken::{Breakage, Broken};
use super::drive::{Command, Drive, What, Write};
use super::host::Host;
use super::{ProcessId, Value, Violation};
use crate::membership::View;
use crate::membership::{Access, Action, Assignment, Event, Membership, Phase, Rebuild, Region};
use crate::writes::{WriteNumber, Writes};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_spec::ids::{DocumentGeneration, FencePair, SliceUid};

/// Shared between worlds until one of them changes them.
pub type Drives = BTreeMap<SliceUid, Arc<Drive>>;

/// One drive, to be changed.
pub fn drive(drives: &mut Drives, slice: SliceUid) -> Option<&mut Drive> {
    drives.get_mut(&slice).map(Arc::make_mut)
}

/// A host's write on its way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Io {
    pub number: WriteNumber,
    pub region: Region,
    pub value: Value,
    pub hole: bool,
}

/// A rebuild under way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Rebuilding {
    pub task: Rebuild,
    pub after: WriteNumber,
    pub todo: Option<BTreeSet<Region>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Engine {
    pub id: ProcessId,
    pub core: Membership,
    pub writes: Writes,
    /// Slices to be inspected, slices to be connected to, associations.
    pub inspecting: BTreeSet<SliceUid>,
    pub connecting: BTreeSet<SliceUid>,
    pub live: BTreeSet<SliceUid>,
    /// Slices whose time is over.
    pub given_up: BTreeSet<SliceUid>,
    pub view: Option<View>,
    /// Members that may be read.
    pub readable: Vec<SliceUid>,
    pub ios: Vec<Io>,
    /// Acknowledged, but not by every slice that is being rebuilt.
    trailing: Vec<Io>,
    pub unequal: BTreeSet<Region>,
    /// Equal, to be told so with the next Flush.
    pub equal: BTreeSet<Region>,
    pub rebuild: Option<Rebuilding>,
    draining: bool,
    resending: bool,
    pub met_newer: bool,
    /// What its leader had when it began to serve.
    pub found: Option<Vec<Value>>,
}

/// What an engine touches beside itself.
pub struct Around<'a> {
    pub drives: &'a mut Drives,
    pub host: &'a mut Host,
    pub violations: &'a mut BTreeSet<Violation>,
    pub broken: &'a Breakage,
    /// Greatest pair of another engine that has served, and what it found when it began to.
    pub newest: Option<(FencePair, Vec<Value>)>,
    /// A person has accepted whatever is lost.
    pub forced: bool,
    /// The operator was told that the newer document is in force.
    pub revoked: bool,
}

impl Engine {
    pub fn start(id: ProcessId, assignment: Assignment, around: &mut Around) -> Self {
        let (core, actions) = Membership::new(assignment);
        let mut engine = Self {
            id,
            core: core.without(around.broken.rule()),
            writes: Writes::default().without(around.broken.rule()),
            inspecting: BTreeSet::new(),
            connecting: BTreeSet::new(),
            live: BTreeSet::new(),
            given_up: BTreeSet::new(),
            view: None,
            readable: Vec::new(),
            ios: Vec::new(),
            trailing: Vec::new(),
            unequal: BTreeSet::new(),
            equal: BTreeSet::new(),
            rebuild: None,
            draining: false,
            resending: false,
            met_newer: false,
            found: None,
        };
        engine.perform(actions, around);
        engine
    }

    /// For who reads how something came about.
    pub fn summary(&self) -> String {
        let short = |slice: &SliceUid| slice.0.as_u128().to_string();
        let short = |slices: &[SliceUid]| slices.iter().map(short).collect::<String>();
        let live: Vec<_> = self.live.iter().copied().collect();
        format!(
            "engine {} as {}: {:?}, {:?}, {:?}, live {}, readable {}, record {}",
            self.id.0,
            self.core.pair(),
            self.core.phase(),
            self.core.stage,
            self.core.access(),
            short(&live),
            short(&self.readable),
            self.core.record().map_or(String::new(), record_summary),
        )
    }

    pub fn serving(&self) -> bool {
        *self.core.phase() == Phase::Serving
    }

    pub fn ended(&self) -> bool {
        matches!(self.core.phase(), Phase::Ended | Phase::Parked(_))
    }

    /// Gives an event to the core and does what it asks for.
    pub fn tell(&mut self, event: Event, around: &mut Around) {
        let before = self.core.phase().clone();
        let actions = self.core.step(event);
        if before == Phase::Fencing && *self.core.phase() == Phase::Recording {
            self.check_loss(around);
        }
        self.perform(actions, around);
    }

    fn perform(&mut self, actions: Vec<Action>, around: &mut Around) {
        for action in actions {
            match action {
                Action::Inspect(slice) => {
                    self.inspecting.insert(slice);
                    self.connecting.remove(&slice);
                    self.live.remove(&slice);
                }
                Action::Connect(slice, _) => {
                    self.connecting.insert(slice);
                    self.given_up.remove(&slice);
                }
                Action::Put(slice, swap) => self.send(slice, What::Put(swap), around),
                Action::Mark(slice, generation) => self.send(slice, What::Mark(generation), around),
                Action::Drain(survivors) => self.drain(&survivors, around),
                Action::Flush(slice) => self.flush_one(slice, around),
                Action::Adopt(view) => self.adopt(view, around),
                Action::Reconnected(slice) => {
                    let numbers = self.writes.unanswered(slice);
                    self.send_again(slice, &numbers, around);
                }
                Action::Equalise(regions) => self.unequal.extend(regions),
                Action::Rebuild(task) => {
                    self.empty(&task, around);
                    let after = self.writes.rebuild(task.target);
                    let todo = None;
                    self.rebuild = Some(Rebuilding { task, after, todo });
                }
                Action::Access(Access::Open) => self.open(around),
                Action::Access(_) => {}
                Action::Read(_) if around.broken.has(Broken::FailedMemberRead) => {}
                Action::Read(readers) => self.readable = readers,
                Action::Admit(generation) => {
                    if around.revoked && generation < DocumentGeneration(2) {
                        around.violations.insert(Violation::RevokedHost);
                    }
                }
                Action::Park | Action::StartAgain => {}
            }
        }
    }

    fn open(&mut self, around: &mut Around) {
        self.writes.open();
        if self.found.is_none() {
            let leader = self
                .view
                .as_ref()
                .and_then(|view| around.drives.get(&view.leader));
            let places = leader.iter().flat_map(|leader| &leader.places);
            self.found = Some(places.map(|place| place.now.value).collect());
        }
    }

    /// The taken-over record's members are all known to have lost bytes, if a loss is recorded.
    fn check_loss(&self, around: &mut Around) {
        let Some(from) = self.core.record() else {
            return;
        };
        let Some(first) = &self.core.proposal else {
            return;
        };
        let kept = |member: &weft_spec::drive::InSync| {
            let drive = around.drives.get(&member.slice);
            drive.is_some_and(|drive| drive.incarnation() == member.incarnation)
        };
        if first.loss != from.loss && from.in_sync.iter().any(kept) {
            around.violations.insert(Violation::FalseLoss);
        }
    }

    pub fn send(&self, slice: SliceUid, what: What, around: &mut Around) {
        if !self.live.contains(&slice) {
            return;
        }
        if let Some(drive) = drive(around.drives, slice) {
            let (by, late) = (self.id, false);
            drive.inbox.push(Command { by, late, what });
            drive.inbox.sort_by_key(Command::key);
        }
    }

    fn send_again(&self, slice: SliceUid, numbers: &[WriteNumber], around: &mut Around) {
        for io in self.ios.iter().filter(|io| numbers.contains(&io.number)) {
            self.send(slice, What::Write(self.write_of(io)), around);
        }
    }

    fn write_of(&self, io: &Io) -> Write {
        Write {
            region: io.region,
            value: io.value,
            hole: io.hole,
            number: io.number.0,
            config: self
                .view
                .as_ref()
                .map(|view| view.config)
                .unwrap_or_default(),
        }
    }

    fn drain(&mut self, survivors: &[SliceUid], around: &mut Around) {
        (self.draining, self.resending) = (true, false);
        if let Some(rebuild) = &self.rebuild
            && !survivors.contains(&rebuild.task.target)
        {
            self.rebuild = None;
        }
        let told = self.writes.drain(survivors);
        told.into_iter()
            .for_each(|number| self.done(number, around));
        self.quiet(around);
    }

    fn adopt(&mut self, view: View, around: &mut Around) {
        let first = self.view.is_none();
        let numbers = self.writes.adopt(view.config, &view.in_sync);
        for number in &numbers {
            self.writes.again(*number);
        }
        (self.draining, self.resending, self.rebuild) = (false, true, None);
        self.view = Some(view.clone());
        if around.broken.has(Broken::FailedMemberRead) {
            self.readable.clone_from(&view.in_sync);
        }
        if first {
            self.check_leader(&view, around);
        }
        for slice in &view.in_sync {
            if around.broken.has(Broken::NotSentAgain) {
                for number in &numbers {
                    self.acknowledged_write(*slice, *number, around);
                }
            } else {
                self.send_again(*slice, &numbers, around);
            }
        }
        self.quiet(around);
    }

    /// Who leads has whatever hosts were told of, unless they are told of a loss.
    fn check_leader(&self, view: &View, around: &mut Around) {
        if view.loss.is_some() {
            around.host.told_of_loss(around.forced);
        }
        let live = self.live.contains(&view.leader);
        let Some(leader) = around.drives.get(&view.leader).filter(|_| live) else {
            return;
        };
        let places = leader.places.iter().zip(&around.host.regions);
        for (place, expected) in places {
            if place.now.value < expected.flushed.max(expected.floor) {
                around.violations.insert(Violation::StaleSource);
            }
        }
    }

    /// Answers what the core waits for, once it is so.
    fn quiet(&mut self, around: &mut Around) {
        let writes = &self.writes;
        self.trailing.retain(|io| writes.under_way(io.number));
        if self.draining && self.writes.drained() {
            self.draining = false;
            self.tell(Event::Drained, around);
        }
        if self.resending && self.writes.resent() {
            self.resending = false;
            self.tell(Event::Resent, around);
        }
    }

    pub fn lost(&mut self, slice: SliceUid, around: &mut Around) {
        if let Some(drive) = drive(around.drives, slice) {
            let mine = drive
                .inbox
                .iter_mut()
                .filter(|command| command.by == self.id);
            mine.for_each(|command| command.late = true);
            drive.inbox.sort_by_key(Command::key);
        }
        self.live.remove(&slice);
        if self
            .rebuild
            .as_ref()
            .is_some_and(|rebuild| rebuild.task.target == slice)
        {
            self.rebuild = None;
            self.writes.abandon(slice);
        }
        self.tell(Event::Lost(slice), around);
        self.quiet(around);
    }

    pub fn fenced(&mut self, slice: SliceUid, around: &mut Around) {
        self.met_newer = true;
        self.tell(Event::Fenced(slice), around);
    }

    pub fn acknowledged_write(
        &mut self,
        slice: SliceUid,
        number: WriteNumber,
        around: &mut Around,
    ) {
        if self.writes.acknowledged(slice, number) {
            self.done(number, around);
        }
        self.quiet(around);
    }

    /// The host may be told of a write.
    fn done(&mut self, number: WriteNumber, around: &mut Around) {
        let Some(at) = self.ios.iter().position(|io| io.number == number) else {
            return;
        };
        let io = self.ios.remove(at);
        self.trailing.push(io);
        if self.overtaken(&io, around) {
            around.violations.insert(Violation::TwoEngines);
        }
        if around.host.uses(self.id) {
            around.host.acknowledged(io.region, io.value);
        }
    }

    /// Another engine with a higher pair serves, and did not find this write when it took over.
    fn overtaken(&self, io: &Io, around: &Around) -> bool {
        let newer = around.newest.iter();
        let mut newer = newer.filter(|(pair, _)| *pair > self.core.pair());
        newer.any(|(_, found)| found.get(io.region.0 as usize) < Some(&io.value))
    }

    /// Runs on with a rule left out.
    pub fn leave_out(&mut self, broken: &Breakage) {
        self.core = self.core.clone().without(broken.rule());
        self.writes = self.writes.clone().without(broken.rule());
    }

    pub fn locked(&self, region: Region) -> bool {
        // Also while it is only under way to who is being rebuilt: two writes would else change places.
        let mut ios = self.ios.iter().chain(&self.trailing);
        ios.any(|io| io.region == region)
    }

    pub fn begin(&mut self, region: Region, value: Value, hole: bool, around: &mut Around) {
        let Some(begun) = self.writes.begin() else {
            return;
        };
        let number = begun.number;
        let io = Io {
            number,
            region,
            value,
            hole,
        };
        self.ios.push(io);
        let targets: Vec<_> = self.writes.targets().collect();
        for slice in targets {
            self.send(slice, What::Write(self.write_of(&io)), around);
        }
    }
}

pub fn record_summary(record: &weft_spec::drive::SliceRecord) -> String {
    let members = record.in_sync.iter();
    let members: String = members.map(|m| m.slice.0.as_u128().to_string()).collect();
    let out = record.out_of_sync.iter();
    let out: Vec<_> = out
        .map(|out| (out.slice.0.as_u128(), out.since.0))
        .collect();
    format!(
        "{}/{} in {members} out {out:?}",
        record.fence, record.config.0
    )
}
