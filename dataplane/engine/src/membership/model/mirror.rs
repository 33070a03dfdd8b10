//! What the mirror does beside writes: reads, Flushes, making equal, rebuilding. Each is one step.

use super::Value;
use super::broken::{Breakage, Broken};
use super::drive::{Chunk, What, Write};
use super::engine::{Around, Drives, Engine, Rebuilding, drive};
use crate::membership::{Access, Event, Rebuild, Region};
use std::collections::BTreeSet;
use weft_spec::ids::SliceUid;

impl Engine {
    /// Members and slices being rebuilt, if all of them are connected and would take a command.
    fn reached(&self, around: &Around) -> Option<Vec<SliceUid>> {
        let mut slices = self.view.as_ref()?.in_sync.clone();
        slices.extend(self.rebuild.iter().map(|rebuild| rebuild.task.target));
        let reached = |slice: &SliceUid| {
            let drive = around.drives.get(slice);
            self.live.contains(slice) && drive.is_some_and(|d| d.admitted == Some(self.id))
        };
        slices.iter().all(reached).then_some(slices)
    }

    /// Makes a region equal from the leader.
    pub fn equalise(&mut self, region: Region, around: &mut Around) -> Option<()> {
        let view = self.view.clone()?;
        let targets = self.reached(around)?;
        let from = around
            .drives
            .get(&view.leader)?
            .places
            .get(region.0 as usize)
            .copied()?;
        for slice in targets {
            let stamp = from.now.stamp;
            self.copy(slice, region, from.now.value, from.hole, around);
            if around.broken.has(Broken::NotStampedAnew) {
                let drive = drive(around.drives, slice)?;
                drive.places.get_mut(region.0 as usize)?.now.stamp = stamp;
            }
        }
        self.unequal.remove(&region);
        self.equal.insert(region);
        Some(())
    }

    fn copy(&self, slice: SliceUid, region: Region, value: Value, hole: bool, around: &mut Around) {
        let write = Write {
            region,
            value,
            hole,
            number: 0,
            config: self
                .view
                .as_ref()
                .map(|view| view.config)
                .unwrap_or_default(),
        };
        if let Some(drive) = drive(around.drives, slice) {
            drive.write(write, around.broken);
        }
    }

    /// Asks what the slice being rebuilt lacks.
    pub fn list(&mut self, around: &mut Around) -> Option<()> {
        let leader = self.view.as_ref()?.leader;
        self.reached(around)?;
        let rebuild = self.rebuild.clone()?;
        if rebuild.todo.is_some() {
            return None;
        }
        if !self.writes.over(rebuild.after) && !around.broken.has(Broken::AskedTooEarly) {
            return None;
        }
        let since = rebuild.task.since;
        let source = around.drives.get(&leader)?;
        let changed = source.places.iter().enumerate();
        let changed =
            changed.filter(|(_, place)| place.now.stamp >= since && place.now.stamp.0 > 0);
        let mut todo: BTreeSet<_> = changed.map(|(at, _)| Region(at as u32)).collect();
        if !around.broken.has(Broken::OwnHotSetIgnored) {
            todo.extend(&rebuild.task.hot);
        }
        self.rebuild.as_mut()?.todo = Some(todo);
        self.rebuilt_if_done(around);
        Some(())
    }

    pub fn rebuild_next(&mut self, around: &mut Around) -> Option<()> {
        let leader = self.view.as_ref()?.leader;
        self.reached(around)?;
        let rebuild = self.rebuild.as_ref()?;
        let todo = rebuild.todo.as_ref()?;
        let region = *todo.iter().find(|region| !self.locked(**region))?;
        let target = rebuild.task.target;
        let from = *around.drives.get(&leader)?.places.get(region.0 as usize)?;
        self.copy(target, region, from.now.value, from.hole, around);
        self.rebuild.as_mut()?.todo.as_mut()?.remove(&region);
        self.rebuilt_if_done(around);
        Some(())
    }

    fn rebuilt_if_done(&mut self, around: &mut Around) {
        let done = |rebuild: &Rebuilding| rebuild.todo.as_ref().is_some_and(BTreeSet::is_empty);
        if let Some(rebuild) = &self.rebuild
            && done(rebuild)
        {
            self.tell(Event::Rebuilt(rebuild.task.target), around);
        }
    }

    /// Before anything else is written to who gets a full copy.
    pub fn empty(&self, task: &Rebuild, around: &mut Around) {
        let full = task.since.0 == 0 && !around.broken.has(Broken::NotEmptied);
        let id = Some(self.id);
        let target = drive(around.drives, task.target);
        if let Some(target) = target.filter(|target| full && target.admitted == id) {
            let places = target.places.iter_mut();
            places.for_each(|place| place.now = Chunk::default());
        }
    }

    pub fn flush_one(&mut self, slice: SliceUid, around: &mut Around) {
        let id = self.id;
        if let Some(drive) = drive(around.drives, slice)
            && drive.admitted == Some(id)
            && self.live.contains(&slice)
        {
            drive.flush();
            self.tell(Event::Flushed(slice), around);
        }
    }

    /// A host's Flush, done by all members at once, and what the mirror tells with it.
    pub fn flush(&mut self, checkpoints: bool, around: &mut Around) -> Option<()> {
        let view = self.view.clone()?;
        self.reached(around)?;
        let told = std::mem::take(&mut self.equal);
        for slice in &view.in_sync {
            let drive = drive(around.drives, *slice)?;
            if !around.broken.has(Broken::CheckpointWithoutFlush) {
                drive.flush();
            }
            told.iter()
                .filter(|region| !self.locked(**region))
                .for_each(|r| drive.equal(*r));
        }
        self.writes.flushed(self.writes.complete());
        let number = self.writes.checkpoint();
        for slice in view.in_sync {
            if checkpoints && number.0 > 0 {
                self.send(slice, What::Checkpoint(number.0), around);
            }
        }
        let safe = !around.broken.has(Broken::CheckpointWithoutFlush);
        if safe && view.loss.is_none() || around.broken.has(Broken::LossNotTold) {
            around.host.flushed();
        }
        Some(())
    }

    /// What a read of that member gives, if it is allowed.
    pub fn read(
        &self,
        region: Region,
        member: SliceUid,
        drives: &Drives,
        broken: &Breakage,
    ) -> Option<Value> {
        let allowed = self.core.access() != Access::Paused && self.live.contains(&member);
        let unequal = self.unequal.contains(&region) && !broken.has(Broken::NotEqualFirst);
        let locked = self.locked(region) && !broken.has(Broken::ReadsDoNotWait);
        if !allowed || !self.readable.contains(&member) || unequal || locked {
            return None;
        }
        let drive = drives.get(&member)?;
        let mine = drive.admitted == Some(self.id) || broken.has(Broken::OldCommandsPass);
        let place = drive.places.get(region.0 as usize)?;
        mine.then_some(place.now.value)
    }

    /// Whether the members differ where hosts could see it.
    pub fn differs(&self, drives: &Drives, regions: u8) -> bool {
        let Some(view) = &self.view else { return false };
        if self.core.access() != Access::Open || !self.ios.is_empty() {
            return false;
        }
        let live = view
            .in_sync
            .iter()
            .filter(|slice| self.live.contains(slice));
        let members: Vec<_> = live.filter_map(|slice| drives.get(slice)).collect();
        let mine = members.iter().all(|drive| drive.admitted == Some(self.id));
        (0..regions)
            .map(|region| Region(u32::from(region)))
            .any(|region| {
                let mut values = members
                    .iter()
                    .map(|drive| drive.places[region.0 as usize].now.value);
                let first = values.next();
                let same = values.all(|value| Some(value) == first);
                mine && !self.unequal.contains(&region) && !same
            })
    }
}
