//! A drive as the model has it: one slice, whose regions are one chunk each. What it owes is in
//! design section 5; each rule can be left out.

use super::broken::{Breakage, Broken};
use super::engine::record_summary;
use super::{ProcessId, Value};
use crate::membership::{Region, Testimony};
use uuid::Uuid;
use weft_spec::drive::{Config, RecordSwap, SliceRecord};
use weft_spec::ids::{DocumentGeneration, FencePair};

/// Sender of what an earlier process of the drive has left in the kernel.
const ORPHAN: ProcessId = ProcessId(u8::MAX);

/// What a chunk holds. A hole is a value too, so that one oracle serves writes and discards.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Chunk {
    pub value: Value,
    pub stamp: Config,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hot {
    pair: FencePair,
    number: u64,
    inherited: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    pub now: Chunk,
    pub durable: Chunk,
    pub hole: bool,
    pub hot: Option<Hot>,
}

/// A command in an association's socket or under way at the drive.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Command {
    pub by: ProcessId,
    /// Its sender does not wait for an answer any more.
    pub late: bool,
    pub what: What,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum What {
    Write(Write),
    Put(Box<RecordSwap>),
    Mark(DocumentGeneration),
    Checkpoint(u64),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Write {
    pub region: Region,
    pub value: Value,
    pub hole: bool,
    pub number: u64,
    pub config: Config,
}

impl Command {
    /// Commands have no order among themselves: worlds that differ in it alone are one.
    pub fn key(&self) -> impl Ord + use<> {
        let what = match &self.what {
            What::Write(write) => (0, write.number, write.config.0),
            What::Put(swap) => (1, swap.record.config.0, 0),
            What::Mark(generation) => (2, generation.0, 0),
            What::Checkpoint(number) => (3, *number, 0),
        };
        (self.by, self.late, what)
    }
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Drive {
    pub fence: FencePair,
    pub process: ProcessId,
    pub admitted: Option<ProcessId>,
    pub record: Option<SliceRecord>,
    pub incarnation: u8,
    pub generation: DocumentGeneration,
    pub places: Vec<Place>,
    pub inbox: Vec<Command>,
}

impl Drive {
    pub fn blank(regions: u8) -> Self {
        Self {
            fence: FencePair::default(),
            process: ORPHAN,
            admitted: None,
            record: None,
            incarnation: 0,
            generation: DocumentGeneration(1),
            places: vec![Place::default(); usize::from(regions)],
            inbox: Vec::new(),
        }
    }

    /// For who reads how something came about.
    pub fn summary(&self) -> String {
        let places = self.places.iter();
        let places: Vec<_> = places
            .map(|p| {
                (
                    p.now.value.0,
                    p.now.stamp.0,
                    p.durable.value.0,
                    p.hot.is_some(),
                )
            })
            .collect();
        format!(
            "{} admits {:?}, incarnation {}, record {}, {places:?}, {} commands",
            self.fence,
            self.admitted.map(|process| process.0),
            self.incarnation,
            self.record.as_ref().map_or(String::new(), record_summary),
            self.inbox.len(),
        )
    }

    pub fn incarnation(&self) -> Uuid {
        Uuid::from_u128(0x1000 + u128::from(self.incarnation))
    }

    pub fn testimony(&self) -> Testimony {
        let hot = self.places.iter().enumerate();
        let hot = hot.filter(|(_, place)| place.hot.is_some());
        Testimony {
            fence: self.fence,
            record: self.record.clone(),
            incarnation: self.incarnation(),
            hot: hot.map(|(region, _)| Region(region as u32)).collect(),
            generation: self.generation,
        }
    }

    /// Admits a process, or not. What lies in older sockets is over: it has run before this step,
    /// or never will.
    pub fn connect(&mut self, pair: FencePair, by: ProcessId, broken: &Breakage) -> bool {
        let same = self.process == by || broken.has(Broken::EqualPairAdmitted);
        if pair < self.fence || pair == self.fence && !same {
            return false;
        }
        (self.fence, self.process, self.admitted) = (pair, by, Some(by));
        if broken.has(Broken::FenceWithoutDrain) {
            self.inbox
                .iter_mut()
                .for_each(|command| command.late = true);
        } else {
            self.inbox.retain(|command| command.by == ORPHAN);
        }
        if !broken.has(Broken::InheritedCools) {
            self.inherit();
        }
        true
    }

    fn inherit(&mut self) {
        let hot = self
            .places
            .iter_mut()
            .filter_map(|place| place.hot.as_mut());
        hot.for_each(|hot| hot.inherited = true);
    }

    /// Whether a command of that process may run.
    pub fn admits(&self, by: ProcessId, broken: &Breakage) -> bool {
        let passes = broken.has(Broken::FenceWithoutDrain) || broken.has(Broken::OldCommandsPass);
        self.admitted == Some(by) || passes || by == ORPHAN
    }

    /// Nothing if it is refused for its config.
    pub fn write(&mut self, write: Write, broken: &Breakage) -> bool {
        let config = self.record.as_ref().map(|record| record.config);
        if config.is_some_and(|config| config != write.config) && !broken.has(Broken::AnyConfig) {
            return false;
        }
        let pair = self.fence;
        let Some(place) = self.places.get_mut(write.region.0 as usize) else {
            return false;
        };
        let inherited = place.hot.is_some_and(|hot| hot.inherited);
        place.hot = Some(Hot {
            pair,
            number: write.number,
            inherited: inherited || write.number == 0,
        });
        let unstamped = write.hole && broken.has(Broken::HolesUnstamped);
        place.now = Chunk {
            value: write.value,
            stamp: if unstamped { Config(0) } else { write.config },
        };
        place.hole = write.hole;
        true
    }

    pub fn put(&mut self, swap: &RecordSwap, broken: &Breakage) -> bool {
        let order = |record: &SliceRecord| (record.fence, record.config);
        let before = swap.expected.as_ref().map(order);
        if self.record != swap.expected
            || before >= Some(order(&swap.record)) && !broken.has(Broken::RecordsUnordered)
        {
            return false;
        }
        self.record = Some(swap.record.clone());
        let oldest = swap.record.out_of_sync.iter().map(|out| out.since).min();
        let oldest = oldest.unwrap_or(Config(u64::MAX));
        for place in self.places.iter_mut().filter(|place| place.hole) {
            if place.now.stamp < oldest || broken.has(Broken::HolesForgotten) {
                place.now.stamp = Config(0);
                place.durable.stamp = Config(0);
            }
        }
        true
    }

    pub fn flush(&mut self) {
        for place in &mut self.places {
            place.durable = place.now;
        }
    }

    /// Makes everything durable on its own account.
    pub fn fold(&mut self, broken: &Breakage) {
        self.flush();
        if broken.has(Broken::CoolsUnasked) {
            self.places.iter_mut().for_each(|place| place.hot = None);
        }
    }

    pub fn checkpoint(&mut self, number: u64, broken: &Breakage) {
        let pair = self.fence;
        for place in &mut self.places {
            let Some(hot) = place.hot else { continue };
            let passed = hot.number <= number && hot.pair == pair;
            let passed = passed || broken.has(Broken::CheckpointOvertaken);
            let passed = passed || hot.pair != pair && broken.has(Broken::InheritedCools);
            let durable = place.now == place.durable || broken.has(Broken::CoolsBeforeDurable);
            if passed && !hot.inherited && durable {
                place.hot = None;
            }
        }
    }

    pub fn equal(&mut self, region: Region) {
        if let Some(place) = self.places.get_mut(region.0 as usize)
            && place.now == place.durable
        {
            place.hot = None;
        }
    }

    /// The process dies alone: what it was doing ends in the kernel or never begins.
    pub fn die(&mut self, broken: &Breakage) {
        self.admitted = None;
        if broken.has(Broken::NoHold) {
            let inbox = self.inbox.iter_mut();
            inbox.for_each(|command| (command.by, command.late) = (ORPHAN, true));
        } else {
            self.inbox.clear();
        }
        self.inherit();
    }

    /// Power is lost, and with it all that was not flushed.
    pub fn crash(&mut self, broken: &Breakage) {
        self.die(broken);
        let hot = self.places.iter().any(|place| place.hot.is_some());
        for place in &mut self.places {
            place.now = place.durable;
            if broken.has(Broken::HeatNotDurable) {
                place.hot = None;
            }
        }
        if hot && !broken.has(Broken::IncarnationKept) {
            self.incarnation += 1;
        }
    }
}
