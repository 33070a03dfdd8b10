//! The writes in flight, as far as membership goes: what a write waits for, what is held, drained
//! and sent again, and up to where all members are equal and flushed (design sections 5 and 6.6).
//! It holds no bytes; discards and zeroings are writes.

use super::View;
use super::rules::left_out;
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Grows with each write of one (term, boot); begins with 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WriteNumber(pub u64);

/// A write that may begin.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Begun {
    /// Its number.
    pub number: WriteNumber,
    /// The config it carries.
    pub config: Config,
    /// Where it is sent.
    pub targets: Vec<SliceUid>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Pending {
    number: WriteNumber,
    /// Members that have not acknowledged it.
    waits: Vec<SliceUid>,
    /// Slices being rebuilt that have not.
    trails: Vec<SliceUid>,
    /// A member has left that had not acknowledged it: it is sent again under the next config.
    missed: bool,
}

impl Pending {
    fn complete(&self) -> bool {
        self.waits.is_empty() && !self.missed
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Writes {
    config: Config,
    in_sync: Vec<SliceUid>,
    rebuilding: Vec<SliceUid>,
    held: bool,
    last: WriteNumber,
    /// In order of their numbers, at most as many as the queues of the export are deep.
    pending: Vec<Pending>,
    checkpoint: WriteNumber,
    #[cfg(test)]
    left_out: Option<super::rules::Rule>,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            config: Config(0),
            in_sync: Vec::new(),
            rebuilding: Vec::new(),
            held: true,
            last: WriteNumber(0),
            pending: Vec::new(),
            checkpoint: WriteNumber(0),
            #[cfg(test)]
            left_out: None,
        }
    }
}

impl Writes {
    /// The same, with a rule left out.
    #[cfg(test)]
    pub(super) fn without(self, rule: Option<super::rules::Rule>) -> Self {
        Self {
            left_out: rule,
            ..self
        }
    }

    /// Begins a write; none while writes are held.
    pub fn begin(&mut self) -> Option<Begun> {
        if self.held && !left_out!(self, WritesHeld) {
            return None;
        }
        self.last.0 += 1;
        self.pending.push(Pending {
            number: self.last,
            waits: self.in_sync.clone(),
            trails: self.rebuilding.clone(),
            missed: false,
        });
        Some(Begun {
            number: self.last,
            config: self.config,
            targets: self
                .in_sync
                .iter()
                .chain(&self.rebuilding)
                .copied()
                .collect(),
        })
    }

    /// A slice has done a write. True if the host may be told now.
    pub fn acknowledged(&mut self, slice: SliceUid, number: WriteNumber) -> bool {
        let Some(write) = self.pending.iter_mut().find(|write| write.number == number) else {
            return false;
        };
        let before = write.complete();
        write.waits.retain(|waits| *waits != slice);
        write.trails.retain(|trails| *trails != slice);
        let told = !before && write.complete();
        self.forget_done();
        told
    }

    /// For [`super::Action::Drain`]: begins no more, and lets go of the slices not named. Gives the
    /// writes that hosts may be told of now.
    pub fn drain(&mut self, survivors: &[SliceUid]) -> Vec<WriteNumber> {
        self.held = true;
        self.rebuilding.retain(|slice| survivors.contains(slice));
        let mut told = Vec::new();
        for write in &mut self.pending {
            let before = write.complete();
            let missed = write.waits.iter().any(|slice| !survivors.contains(slice));
            write.missed |= missed && !left_out!(self, InForceFirst);
            write.waits.retain(|slice| survivors.contains(slice));
            write.trails.retain(|slice| survivors.contains(slice));
            if !before && write.complete() {
                told.push(write.number);
            }
        }
        self.forget_done();
        told
    }

    /// Whether no write is in flight anywhere.
    pub fn drained(&self) -> bool {
        let quiet = |write: &Pending| write.waits.is_empty() && write.trails.is_empty();
        self.pending.iter().all(quiet)
    }

    /// For [`super::Action::Adopt`]: gives the writes to be sent to all members, under its config.
    pub fn adopt(&mut self, view: &View) -> Vec<WriteNumber> {
        self.held = true;
        self.config = view.config;
        self.in_sync.clone_from(&view.in_sync);
        self.rebuilding.clear();
        for write in &mut self.pending {
            write.waits.clone_from(&view.in_sync);
            (write.missed, write.trails) = (false, Vec::new());
        }
        self.pending.iter().map(|write| write.number).collect()
    }

    /// Lets writes begin again. Whoever begins them asks [`super::Access`] first: it may be paused
    /// meanwhile.
    pub fn open(&mut self) {
        self.held = false;
    }

    /// For [`super::Action::Reconnected`]: the writes to be sent to the slice again.
    pub fn unanswered(&self, slice: SliceUid) -> Vec<WriteNumber> {
        let waits = |write: &&Pending| write.waits.contains(&slice);
        self.pending
            .iter()
            .filter(waits)
            .map(|write| write.number)
            .collect()
    }

    /// For [`super::Action::Rebuild`]: writes go to the slice too from now on. What it lacks may be
    /// asked for once all writes up to the number given are over.
    pub fn rebuild(&mut self, slice: SliceUid) -> WriteNumber {
        self.rebuilding.push(slice);
        self.last
    }

    /// Whether a slice has not answered a write, be it a member or one being rebuilt: until then
    /// no other write of its range begins, or they could change places there.
    pub fn under_way(&self, number: WriteNumber) -> bool {
        self.pending.iter().any(|write| write.number == number)
    }

    /// Whether every write up to this one is over.
    pub fn over(&self, number: WriteNumber) -> bool {
        self.pending.iter().all(|write| write.number > number)
    }

    /// A slice that was being rebuilt is lost.
    pub fn abandon(&mut self, slice: SliceUid) {
        self.rebuilding.retain(|rebuilding| *rebuilding != slice);
        for write in &mut self.pending {
            write.trails.retain(|trails| *trails != slice);
        }
        self.forget_done();
    }

    /// The greatest number up to which every write is complete: what a Flush that begins now, and
    /// is done by all members, makes a checkpoint of.
    pub fn complete(&self) -> WriteNumber {
        let open = self.pending.iter().find(|write| !write.complete());
        open.map_or(self.last, |write| WriteNumber(write.number.0 - 1))
    }

    /// Every member has done a Flush that began when [`Writes::complete`] was this.
    pub fn flushed(&mut self, complete: WriteNumber) {
        self.checkpoint = self.checkpoint.max(complete);
    }

    /// Every write up to this one is equal on all members and flushed there.
    pub fn checkpoint(&self) -> WriteNumber {
        self.checkpoint
    }

    fn forget_done(&mut self) {
        self.pending
            .retain(|write| !(write.complete() && write.trails.is_empty()));
    }
}
