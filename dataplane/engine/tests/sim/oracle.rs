//! The judge: `weft-verify`'s history of registers, and which writes a flush has made durable. Once the
//! volume has recorded a loss, what no flush had made durable may be missing, and nothing else.

use crate::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use weft_spec::drive::RecordSwap;
use weft_spec::ids::{AttachGeneration, FencePair};
use weft_verify::Violation;
use weft_verify::block::{BlockNumber, VolumeMark, Writer};
use weft_verify::history::{Beginning, Flushing, History, Reading, Writing};

/// See the module.
pub struct Oracle {
    world: Arc<World>,
    state: Mutex<State>,
}

struct State {
    history: History,
    writes: BTreeMap<u64, Known>,
    now: u64,
    last: u64,
    /// Greatest generation of which a loss was recorded.
    loss: Option<AttachGeneration>,
    /// Engines that have put a record.
    boots: BTreeSet<FencePair>,
}

/// What is known of one write.
#[derive(Clone, Copy)]
struct Known {
    kind: Kind,
    first: u64,
    count: u64,
    began: u64,
    acknowledged: Option<u64>,
    durable: bool,
    /// It was acknowledged and not durable when a loss was recorded.
    is_lost: bool,
}

/// A change that has begun.
#[must_use]
pub struct Change {
    writing: Writing,
    number: u64,
}

/// A flush that has begun.
#[must_use]
pub struct Flush {
    flushing: Flushing,
    began: u64,
}

/// What a change does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Write,
    Zeroes,
    Discard,
}

impl Oracle {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        let mark = VolumeMark(uuid::Uuid::from_u128(0x700));
        Arc::new(Self {
            world,
            state: Mutex::new(State {
                history: History::new(mark, Beginning::Zeros),
                writes: BTreeMap::new(),
                now: 0,
                last: 0,
                loss: None,
                boots: BTreeSet::new(),
            }),
        })
    }

    /// A change begins; the bytes of a write.
    pub fn begin(&self, kind: Kind, first: u64, count: u64) -> (Change, Vec<u8>) {
        let mut state = self.state.lock().unwrap();
        let at = BlockNumber(first);
        let (writing, bytes) = match kind {
            Kind::Write => state.history.begin_write(Writer(1), at, count),
            Kind::Zeroes => (state.history.begin_zeroes(at, count), vec![]),
            Kind::Discard => (state.history.begin_discard(at, count), vec![]),
        };
        // As the history numbers them.
        state.last += 1;
        state.now += 1;
        let (number, began) = (state.last, state.now);
        let known = Known {
            kind,
            first,
            count,
            began,
            acknowledged: None,
            durable: false,
            is_lost: false,
        };
        state.writes.insert(number, known);
        (Change { writing, number }, bytes)
    }

    pub fn acknowledge(&self, change: &Change, durable: bool) {
        let mut state = self.state.lock().unwrap();
        state.history.acknowledge(&change.writing, durable);
        state.now += 1;
        let now = state.now;
        if let Some(known) = state.writes.get_mut(&change.number) {
            known.acknowledged = Some(now);
            known.durable |= durable;
        }
    }

    /// It ended with an error: it may have been done.
    pub fn lose(&self, change: Change) {
        self.state.lock().unwrap().history.lose(change.writing);
    }

    pub fn begin_flush(&self) -> Flush {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        Flush {
            flushing: state.history.begin_flush(),
            began: state.now,
        }
    }

    pub fn flushed(&self, flush: &Flush) {
        let mut state = self.state.lock().unwrap();
        state.history.flushed(&flush.flushing);
        for known in state.writes.values_mut() {
            let before = known.acknowledged.is_some_and(|at| at < flush.began);
            known.durable |= before && !known.is_lost;
        }
    }

    pub fn begin_read(&self, first: u64) -> Reading {
        self.state
            .lock()
            .unwrap()
            .history
            .begin_read(BlockNumber(first))
    }

    pub fn failed(&self, reading: &Reading) {
        self.state.lock().unwrap().history.failed(reading);
    }

    pub fn judge(&self, reading: &Reading, bytes: &[u8]) {
        let mut state = self.state.lock().unwrap();
        let found = state.history.judge(reading, bytes);
        for violation in found {
            if !(state.loss.is_some() && state.is_excused(violation)) {
                self.world.wrong(violation.to_string());
            }
        }
    }

    /// A record is durable at a slice. If it tells of a loss, what was not durable then never will be.
    pub fn recorded(&self, swap: &RecordSwap) {
        let RecordSwap { expected, record } = swap;
        let before = expected.iter().flat_map(|expected| &expected.in_sync);
        let before: Vec<_> = before.collect();
        // Nobody in it is what it was.
        let anew = !record.in_sync.iter().any(|member| before.contains(&member));
        let mut state = self.state.lock().unwrap();
        let first = state.boots.insert(record.fence);
        let Some(loss) = record.loss.filter(|_| first && anew) else {
            return;
        };
        state.loss = state.loss.max(Some(loss));
        for known in state.writes.values_mut() {
            known.is_lost |= !known.durable && known.acknowledged.is_some();
        }
    }

    /// Hosts of this generation and earlier ones are not told that anything is safe.
    pub fn recorded_loss(&self) -> Option<AttachGeneration> {
        self.state.lock().unwrap().loss
    }
}

impl State {
    /// Whether only what no flush had made durable is missing.
    fn is_excused(&self, violation: Violation) -> bool {
        let (at, found) = match violation {
            Violation::Lost { at, .. } => (at, None),
            Violation::Stale { at, found, .. } => (at, Some(found.0)),
            Violation::Unstable { .. } => return true,
            _ => return false,
        };
        let here = |known: &&Known| (known.first..known.first + known.count).contains(&at.0);
        let here: Vec<_> = self.writes.values().filter(here).collect();
        let ended = |known: &Known| known.acknowledged.unwrap_or(u64::MAX);
        // What is there came from one of these; nothing for what was there at first.
        let source = match found {
            Some(found) => self.writes.get(&found).map(ended),
            None => {
                let zeros = here.iter().filter(|known| known.kind != Kind::Write);
                zeros.map(|known| ended(known)).max()
            }
        };
        let newer = |known: &&Known| source.is_none_or(|source| known.began > source);
        !here.into_iter().any(|known| known.durable && newer(&known))
    }
}
