//! Which steps may follow on a world.

use super::engine::Engine;
use super::world::World;
use super::{ProcessId, Setup, Value, slice};
use crate::membership::{Access, Phase, Region};
use weft_spec::ids::SliceUid;

/// One step.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Step {
    /// A process starts, in a new pod or in the last one; perhaps with an older document.
    Start {
        pod: Pod,
        stale: bool,
    },
    Kill(ProcessId),
    /// Everybody who is asked answers, but one.
    Inspect(ProcessId, Option<SliceUid>),
    Connect(ProcessId, SliceUid),
    GiveUp(ProcessId, SliceUid),
    /// The association is lost as its engine sees it; what is in its socket may still run.
    Lose(ProcessId, SliceUid),
    /// A drive that has admitted another tells so.
    Notice(ProcessId, SliceUid),
    /// One command runs, and is answered if anybody waits for that.
    Deliver(SliceUid, usize),
    Crash(SliceUid),
    Die(SliceUid),
    Fold(SliceUid),
    /// The drive is replaced by an empty one under the same name.
    Blank(SliceUid),
    /// The host follows to this engine; it sends again what it waits for, or was started anew and
    /// knows of nothing.
    Attach(ProcessId, Memory),
    Write(Region, bool),
    Flush,
    Read(ProcessId, Region, SliceUid),
    Equalise(ProcessId, Region),
    List(ProcessId),
    RebuildNext(ProcessId),
    /// The operator puts a newer document, which takes a right away.
    Revoke(ProcessId),
    /// The operator puts a newer document, which lists other voters.
    Voters(ProcessId),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Memory {
    Kept,
    Lost,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Pod {
    New,
    Same,
}

impl World {
    /// Every step that may follow.
    pub fn steps(&self, setup: &Setup, steps: &mut Vec<Step>) {
        self.internal_steps(steps);
        self.host_steps(setup, steps);
        self.faults(setup, steps);
    }

    /// What goes on by itself.
    pub fn internal_steps(&self, steps: &mut Vec<Step>) {
        for engine in self.alive() {
            let id = engine.id;
            if !engine.inspecting.is_empty() {
                steps.push(Step::Inspect(id, None));
            }
            steps.extend(
                engine
                    .connecting
                    .iter()
                    .map(|slice| Step::Connect(id, *slice)),
            );
            for slice in &engine.live {
                if self.drives[slice].admitted != Some(id) {
                    steps.push(Step::Notice(id, *slice));
                }
            }
            if engine.core.access() == Access::Open {
                let unequal = engine
                    .unequal
                    .iter()
                    .filter(|region| !engine.locked(**region));
                steps.extend(unequal.map(|region| Step::Equalise(id, *region)));
            }
            match engine
                .rebuild
                .as_ref()
                .map(|rebuild| rebuild.todo.is_some())
            {
                Some(true) => steps.push(Step::RebuildNext(id)),
                Some(false) => steps.push(Step::List(id)),
                None => {}
            }
        }
        for (slice, drive) in &self.drives {
            steps.extend((0..drive.inbox.len()).map(|at| Step::Deliver(*slice, at)));
        }
    }

    fn host_steps(&self, setup: &Setup, steps: &mut Vec<Step>) {
        let serving = self
            .alive()
            .filter(|engine| engine.core.access() == Access::Open);
        let newer = |engine: &&Engine| {
            self.host
                .path
                .is_none_or(|(pair, _)| pair < engine.core.pair())
        };
        let waits = self
            .host
            .regions
            .iter()
            .any(|region| region.outstanding.is_some());
        for engine in serving.filter(newer) {
            steps.push(Step::Attach(engine.id, Memory::Kept));
            if waits && setup.forgets {
                steps.push(Step::Attach(engine.id, Memory::Lost));
            }
        }
        let regions = (0..setup.regions).map(|region| Region(u32::from(region)));
        for region in regions.clone() {
            let quiet = self.host.regions[region.0 as usize].outstanding.is_none();
            let open = self.path().is_some_and(|engine| {
                engine.core.access() == Access::Open && !engine.locked(region)
            });
            if quiet && open && self.left.writes > 0 {
                steps.push(Step::Write(region, false));
            }
            if quiet && open && self.left.discards > 0 {
                steps.push(Step::Write(region, true));
            }
        }
        let open = self.path().is_some_and(|e| e.core.access() == Access::Open);
        if self.left.flushes > 0 && open {
            steps.push(Step::Flush);
        }
        let paths = [self.host.path.map(|(_, path)| path), self.host.old_path];
        // Another host, whose engine knows that it is alone: for it the keep-alives are over.
        let alone = |engine: &&Engine| 2 * engine.live.len() <= 3;
        let alone = self.alive().filter(alone).map(|engine| engine.id);
        for path in paths.into_iter().flatten().chain(alone) {
            for (region, member) in regions
                .clone()
                .flat_map(|r| self.drives.keys().map(move |d| (r, *d)))
            {
                if self.would_read(setup, path, region, member).is_some() {
                    steps.push(Step::Read(path, region, member));
                }
            }
        }
    }

    fn path(&self) -> Option<&Engine> {
        self.engine(self.host.path?.1)
    }

    /// What a read gives, if it tells the oracle anything.
    pub fn would_read(
        &self,
        setup: &Setup,
        path: ProcessId,
        region: Region,
        member: SliceUid,
    ) -> Option<Value> {
        let engine = self.engine(path)?;
        let value = engine.read(region, member, &self.drives, &setup.broken);
        let floor = self.host.regions.get(region.0 as usize)?.floor;
        value.filter(|value| *value != floor)
    }

    fn faults(&self, setup: &Setup, steps: &mut Vec<Step>) {
        let left = &self.left;
        let alive = self.alive().count();
        if left.starts > 0 && alive < 2 {
            if !setup.api_unreachable {
                steps.push(Step::Start {
                    pod: Pod::New,
                    stale: false,
                });
            }
            if alive == 0 || setup.twins {
                steps.push(Step::Start {
                    pod: Pod::Same,
                    stale: false,
                });
            }
            if self.revoked {
                steps.push(Step::Start {
                    pod: Pod::Same,
                    stale: true,
                });
            }
        }
        for engine in self.alive() {
            let id = engine.id;
            if left.kills > 0 {
                steps.push(Step::Kill(id));
            }
            if left.absences > 0 && engine.inspecting.len() > 1 {
                steps.extend(
                    engine
                        .inspecting
                        .iter()
                        .map(|s| Step::Inspect(id, Some(*s))),
                );
            }
            for slice in &engine.connecting {
                let starting = *engine.core.phase() == Phase::Fencing;
                let member = engine
                    .view
                    .as_ref()
                    .is_some_and(|view| view.in_sync.contains(slice));
                let waits = if starting { left.absences > 0 } else { member };
                if waits && !engine.given_up.contains(slice) {
                    steps.push(Step::GiveUp(id, *slice));
                }
            }
            if left.losses > 0 {
                steps.extend(engine.live.iter().map(|slice| Step::Lose(id, *slice)));
            }
            if left.revokes > 0 && engine.core.access() == Access::Open && setup.voters.is_none() {
                steps.push(Step::Revoke(id));
            }
            if left.revokes > 0 && engine.core.access() == Access::Open && setup.voters.is_some() {
                steps.push(Step::Voters(id));
            }
        }
        for slice in self.drives.keys() {
            if left.crashes > 0 {
                steps.push(Step::Crash(*slice));
            }
            if left.deaths > 0 {
                steps.push(Step::Die(*slice));
            }
            if left.folds > 0 {
                steps.push(Step::Fold(*slice));
            }
        }
        if left.blanks > 0 {
            steps.push(Step::Blank(slice(setup.blanked)));
        }
    }
}
