//! The state that is searched: drives, processes of engines, one host; and what each step does.

use super::broken::{Breakage, Broken};
use super::drive::{Command, Drive, What};
use super::engine::{Around, Drives, Engine, drive};
use super::host::Host;
use super::steps::{Memory, Pod, Step};
use super::{Budget, ProcessId, Setup, Value, Violation, slice};
use crate::membership::{Assignment, Event, Phase, Recovery, Region};
use crate::writes::WriteNumber;
use std::collections::BTreeSet;
use std::sync::Arc;
use uuid::Uuid;
use weft_spec::ids::{AttachGeneration, DocumentGeneration, SliceUid, Term, VolumeUid};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    pub drives: Drives,
    /// By process; none for one that has ended.
    pub engines: Vec<Option<Arc<Engine>>>,
    pub host: Host,
    pub left: Budget,
    pub term: Term,
    pub revoked: bool,
    pub forced: bool,
    pub violations: BTreeSet<Violation>,
}

impl World {
    pub fn new(setup: &Setup) -> Self {
        let drives = (0..setup.slices).map(|n| (slice(n), Arc::new(Drive::blank(setup.regions))));
        Self {
            drives: drives.collect(),
            engines: Vec::new(),
            host: Host::new(setup.regions),
            left: setup.budget,
            term: Term(0),
            revoked: false,
            forced: setup.recovery.is_some(),
            violations: BTreeSet::new(),
        }
    }

    pub fn engine(&self, process: ProcessId) -> Option<&Engine> {
        self.engines.get(usize::from(process.0))?.as_deref()
    }

    pub fn alive(&self) -> impl Iterator<Item = &Engine> {
        self.engines.iter().flatten().map(Arc::as_ref)
    }

    /// The world after a step; none if the step does nothing.
    pub fn after(&self, step: Step, setup: &Setup) -> Option<Self> {
        let mut world = self.clone();
        world.take(step, setup)?;
        world.check(setup);
        Some(world)
    }

    fn take(&mut self, step: Step, setup: &Setup) -> Option<()> {
        let broken = &setup.broken;
        match step {
            Step::Start { pod, stale } => self.start(pod, stale, setup),
            Step::Kill(id) => {
                self.left.kills -= 1;
                self.end(id);
                Some(())
            }
            Step::Inspect(id, but) => self.inspect(id, but, broken),
            Step::Connect(id, slice) => self.connect(id, slice, broken),
            Step::GiveUp(id, slice) => {
                let (engine, mut around) = self.with(id, broken)?;
                let starting = *engine.core.phase() == Phase::Fencing;
                engine.given_up.insert(slice);
                engine.tell(Event::GivenUp(slice), &mut around);
                self.left.absences -= u8::from(starting);
                Some(())
            }
            Step::Lose(id, slice) => {
                self.left.losses -= 1;
                let (engine, mut around) = self.with(id, broken)?;
                engine.lost(slice, &mut around);
                Some(())
            }
            Step::Notice(id, slice) => {
                let (engine, mut around) = self.with(id, broken)?;
                engine.fenced(slice, &mut around);
                Some(())
            }
            Step::Deliver(slice, at) => self.deliver(slice, at, broken),
            Step::Crash(slice) => {
                self.left.crashes -= 1;
                drive(&mut self.drives, slice)?.crash(broken);
                self.closed(slice, broken)
            }
            Step::Die(slice) => {
                self.left.deaths -= 1;
                drive(&mut self.drives, slice)?.die(broken);
                self.closed(slice, broken)
            }
            Step::Fold(slice) => {
                self.left.folds -= 1;
                drive(&mut self.drives, slice)?.fold(broken);
                Some(())
            }
            Step::Blank(slice) => {
                self.left.blanks -= 1;
                let drive = drive(&mut self.drives, slice)?;
                let incarnation = drive.incarnation + 1;
                *drive = Drive {
                    incarnation,
                    ..Drive::blank(setup.regions)
                };
                self.closed(slice, broken)
            }
            Step::Attach(id, memory) => self.attach(id, memory, broken),
            Step::Write(region, hole) => self.write(region, hole, broken),
            Step::Flush => {
                self.left.flushes -= 1;
                let (_, path) = self.host.path?;
                let (engine, mut around) = self.with(path, broken)?;
                engine.flush(setup.checkpoints, &mut around)
            }
            Step::Read(path, region, member) => self.read(path, region, member, setup),
            Step::Equalise(id, region) => {
                let (engine, mut around) = self.with(id, broken)?;
                engine.equalise(region, &mut around)
            }
            Step::List(id) => {
                let (engine, mut around) = self.with(id, broken)?;
                engine.list(&mut around)
            }
            Step::RebuildNext(id) => {
                let (engine, mut around) = self.with(id, broken)?;
                engine.rebuild_next(&mut around)
            }
            Step::Revoke(id) | Step::Voters(id) => {
                self.left.revokes -= 1;
                let assignment = self.assignment(setup, DocumentGeneration(2));
                let (engine, mut around) = self.with(id, broken)?;
                engine.tell(Event::Assigned(assignment), &mut around);
                Some(())
            }
        }
    }

    /// One process apart from everything else.
    fn with<'a>(
        &'a mut self,
        id: ProcessId,
        broken: &'a Breakage,
    ) -> Option<(&'a mut Engine, Around<'a>)> {
        let others = self.engines.iter().flatten();
        let others = others.filter(|engine| engine.id != id && engine.serving());
        let newest = others.filter_map(|engine| Some((engine.core.pair(), engine.found.clone()?)));
        let newest = newest.max();
        let engine = self.engines.get_mut(usize::from(id.0))?.as_mut()?;
        let engine = Arc::make_mut(engine);
        let around = Around {
            drives: &mut self.drives,
            host: &mut self.host,
            violations: &mut self.violations,
            broken,
            newest,
            revoked: self.revoked,
            forced: self.forced,
        };
        Some((engine, around))
    }

    fn assignment(&self, setup: &Setup, generation: DocumentGeneration) -> Assignment {
        let voters = match &setup.voters {
            Some(voters) if generation > DocumentGeneration(1) => voters.clone(),
            _ => (0..3).map(slice).collect(),
        };
        Assignment {
            volume: VolumeUid(Uuid::from_u128(0xA)),
            term: self.term,
            generation,
            attachments: AttachGeneration(1),
            formed: setup.formed,
            lineage: Uuid::from_u128(0xB),
            data: vec![slice(0), slice(1)],
            voters,
            recovery: setup.recovery.map(|from| Recovery {
                from: slice(from),
                lineage: Uuid::from_u128(0xC),
            }),
        }
    }

    pub fn start(&mut self, pod: Pod, stale: bool, setup: &Setup) -> Option<()> {
        self.left.starts = self.left.starts.checked_sub(1)?;
        if pod == Pod::New {
            self.term.0 += 1;
        }
        let id = ProcessId(self.engines.len() as u8);
        let newest = if self.revoked && !stale { 2 } else { 1 };
        let assignment = self.assignment(setup, DocumentGeneration(newest));
        let mut around = Around {
            drives: &mut self.drives,
            host: &mut self.host,
            violations: &mut self.violations,
            broken: &setup.broken,
            newest: None,
            revoked: self.revoked,
            forced: self.forced,
        };
        let engine = Engine::start(id, assignment, &mut around);
        self.engines.push(Some(Arc::new(engine)));
        Some(())
    }

    fn end(&mut self, id: ProcessId) {
        for drive in self.drives.values_mut() {
            if !drive.inbox.iter().any(|command| command.by == id) {
                continue;
            }
            let drive = Arc::make_mut(drive);
            let mine = drive.inbox.iter_mut().filter(|command| command.by == id);
            mine.for_each(|command| command.late = true);
            drive.inbox.sort_by_key(Command::key);
        }
        if let Some(engine) = self.engines.get_mut(usize::from(id.0)) {
            *engine = None;
        }
    }

    fn inspect(&mut self, id: ProcessId, but: Option<SliceUid>, broken: &Breakage) -> Option<()> {
        self.left.absences -= u8::from(but.is_some());
        let (engine, mut around) = self.with(id, broken)?;
        let before = engine.core.phase().clone();
        for slice in std::mem::take(&mut engine.inspecting) {
            if Some(slice) == but {
                engine.inspecting.insert(slice);
                engine.tell(Event::GivenUp(slice), &mut around);
                continue;
            }
            let testimony = around.drives.get(&slice)?.testimony();
            engine.tell(Event::Inspected(slice, testimony), &mut around);
        }
        let raises = before != Phase::Fencing && *engine.core.phase() == Phase::Fencing;
        if raises && !self.forced {
            self.check_able(id);
        }
        Some(())
    }

    /// Who raises the fence has heard a majority of those with a record, and somebody who leads.
    fn check_able(&mut self, id: ProcessId) -> Option<()> {
        let engine = self.engine(id)?;
        let mut asked = engine.core.slices();
        asked.retain(|slice| !engine.inspecting.contains(slice));
        let answers = asked.iter().filter_map(|slice| self.drives.get(slice));
        let records: Vec<_> = answers.filter_map(|drive| drive.record.as_ref()).collect();
        let greatest = records
            .iter()
            .max_by_key(|record| (record.fence, record.config))?;
        let mut members = greatest.in_sync.iter();
        let leads = members.any(|member| asked.contains(&member.slice));
        if 2 * records.len() <= greatest.voters.len() || !leads {
            self.violations.insert(Violation::FencedInVain);
        }
        Some(())
    }

    fn connect(&mut self, id: ProcessId, slice: SliceUid, broken: &Breakage) -> Option<()> {
        let (engine, mut around) = self.with(id, broken)?;
        engine.connecting.remove(&slice);
        let pair = engine.core.pair();
        let drive = drive(around.drives, slice)?;
        if drive.connect(pair, id, broken) {
            if engine.met_newer {
                around.violations.insert(Violation::ParkedRaises);
            }
            let testimony = drive.testimony();
            engine.live.insert(slice);
            engine.tell(Event::Promised(slice, testimony), &mut around);
        } else {
            engine.met_newer |= drive.fence > pair;
            let testimony = drive.testimony();
            engine.tell(Event::Refused(slice, testimony), &mut around);
        }
        Some(())
    }

    /// The drive has closed its associations.
    fn closed(&mut self, slice: SliceUid, broken: &Breakage) -> Option<()> {
        let ids: Vec<_> = self.alive().map(|engine| engine.id).collect();
        for id in ids {
            let (engine, mut around) = self.with(id, broken)?;
            if engine.live.contains(&slice) {
                engine.lost(slice, &mut around);
            }
        }
        Some(())
    }

    fn deliver(&mut self, slice: SliceUid, at: usize, broken: &Breakage) -> Option<()> {
        let drive = drive(&mut self.drives, slice)?;
        let command = drive.inbox.remove(at);
        let (by, late) = (command.by, command.late);
        if !drive.admits(by, broken) {
            let (engine, mut around) = self.with(by, broken)?;
            if !late {
                engine.fenced(slice, &mut around);
            }
            return Some(());
        }
        let done = match &command.what {
            What::Write(write) => drive.write(*write, broken),
            What::Put(swap) => drive.put(swap, broken),
            What::Mark(generation) => {
                drive.generation = drive.generation.max(*generation);
                true
            }
            What::Checkpoint(number) => {
                drive.checkpoint(*number, broken);
                true
            }
        };
        if late {
            return Some(());
        }
        let (engine, mut around) = self.with(by, broken)?;
        if !done {
            // Who was being rebuilt may have been let go with the write still on its way.
            let member = |view: &crate::membership::View| view.in_sync.contains(&slice);
            let member = engine.view.as_ref().is_some_and(member);
            if member && matches!(command.what, What::Write(_)) {
                around.violations.insert(Violation::WrongConfig);
            }
            return Some(());
        }
        match command.what {
            What::Write(write) => {
                engine.acknowledged_write(slice, WriteNumber(write.number), &mut around);
            }
            What::Put(_) => engine.tell(Event::Recorded(slice), &mut around),
            What::Mark(generation) => engine.tell(Event::Marked(slice, generation), &mut around),
            What::Checkpoint(_) => {}
        }
        Some(())
    }

    fn attach(&mut self, id: ProcessId, memory: Memory, broken: &Breakage) -> Option<()> {
        let before = self.host.path.map(|(_, path)| path);
        self.host.path = Some((self.engine(id)?.core.pair(), id));
        self.host.old_path = before.filter(|_| broken.has(Broken::TwoPaths));
        for at in 0..self.host.regions.len() {
            let region = Region(at as u32);
            if memory == Memory::Lost {
                self.host.region(region).outstanding = None;
            }
            let expected = *self.host.region(region);
            let (engine, mut around) = self.with(id, broken)?;
            if let Some(hole) = expected.outstanding {
                engine.begin(region, expected.issued, hole, &mut around);
            }
        }
        Some(())
    }

    fn write(&mut self, region: Region, hole: bool, broken: &Breakage) -> Option<()> {
        if hole {
            self.left.discards -= 1;
        } else {
            self.left.writes -= 1;
        }
        let (_, path) = self.host.path?;
        let expected = self.host.region(region);
        expected.issued = Value(expected.issued.0 + 1);
        expected.outstanding = Some(hole);
        let value = expected.issued;
        let (engine, mut around) = self.with(path, broken)?;
        engine.begin(region, value, hole, &mut around);
        Some(())
    }

    fn read(
        &mut self,
        path: ProcessId,
        region: Region,
        member: SliceUid,
        setup: &Setup,
    ) -> Option<()> {
        let value = self.would_read(setup, path, region, member)?;
        let expected = *self.host.region(region);
        if value < expected.acknowledged.min(expected.floor) || value < expected.flushed {
            self.violations.insert(Violation::LostWrite);
        }
        if value < expected.floor {
            self.violations.insert(Violation::ReadWentBack);
        }
        self.host.region(region).floor = expected.floor.max(value);
        Some(())
    }

    /// What must hold in every state, and what ends by itself.
    fn check(&mut self, setup: &Setup) {
        let ended: Vec<_> = self.alive().filter(|e| e.ended()).map(|e| e.id).collect();
        ended.into_iter().for_each(|id| self.end(id));
        let newest = self.alive().filter(|engine| engine.serving());
        let newest = newest.max_by_key(|engine| engine.core.pair());
        if newest.is_some_and(|engine| engine.differs(&self.drives, setup.regions)) {
            self.violations.insert(Violation::Unequal);
        }
        if setup.voters.is_none() {
            let admitted = self.alive().map(|e| e.core.admitted()).max();
            self.revoked |= admitted >= Some(DocumentGeneration(2));
        }
    }
}
