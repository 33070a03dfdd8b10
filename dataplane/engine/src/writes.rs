//! The writes in flight, as far as membership goes: what a write waits for, what is held, drained
//! and sent again, and up to where all members are equal and flushed (design sections 5 and 6.6).
//! It holds no bytes; discards and zeroings are writes.
//!
//! ```text
//!              adopt                  all sent again have ended, open
//! Draining ────────────► Resending ──────────────────────────────────► Open
//!    ▲                       │                                          │
//!    └───────────────────────┴─────────────────── drain ────────────────┘
//! ```
//!
//! The mirror keeps this table, and the model of the membership searches it: what is found there
//! holds of both.

use crate::membership::rules::left_out;
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Grows with each write of one (term, boot); begins with 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct WriteNumber(pub u64);

/// A write that may be sent to [`Writes::targets`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Begun {
    /// Its number.
    pub number: WriteNumber,
    /// The config it carries.
    pub config: Config,
}

/// Which writes may be sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    /// None; those under way end.
    Draining,
    /// Those that did not end well under the composition before.
    Resending,
    /// Also new ones.
    Open,
}

/// Whether a write that is not under way has to be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Due {
    /// No.
    Not,
    /// In any case: a member has left that had not acknowledged it.
    Again,
    /// When its asker says so: no member had room for it.
    Later,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Pending {
    number: WriteNumber,
    /// Members that have not acknowledged it.
    waits: Vec<SliceUid>,
    /// Slices being rebuilt that have not.
    trails: Vec<SliceUid>,
    due: Due,
}

impl Pending {
    fn complete(&self) -> bool {
        self.waits.is_empty() && self.due == Due::Not
    }

    fn is_under_way(&self) -> bool {
        !(self.waits.is_empty() && self.trails.is_empty())
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Writes {
    config: Config,
    in_sync: Vec<SliceUid>,
    rebuilding: Vec<SliceUid>,
    stage: Stage,
    last: WriteNumber,
    /// In order of their numbers, at most as many as the queues of the export are deep.
    pending: Vec<Pending>,
    checkpoint: WriteNumber,
    #[cfg(test)]
    left_out: Option<crate::membership::rules::Rule>,
}

impl Default for Writes {
    fn default() -> Self {
        Self {
            config: Config(0),
            in_sync: Vec::new(),
            rebuilding: Vec::new(),
            stage: Stage::Draining,
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
    pub(crate) fn without(self, rule: Option<crate::membership::rules::Rule>) -> Self {
        Self {
            left_out: rule,
            ..self
        }
    }

    /// Begins a write; none while writes are held.
    pub fn begin(&mut self) -> Option<Begun> {
        if self.stage != Stage::Open && !left_out!(self, WritesHeld) {
            return None;
        }
        let number = self.number();
        self.pending.push(Pending {
            number,
            waits: self.in_sync.clone(),
            trails: self.rebuilding.clone(),
            due: Due::Not,
        });
        let config = self.config;
        Some(Begun { number, config })
    }

    /// Sends a write again that is not under way; none before the next [`Writes::adopt`], if writes
    /// are being drained.
    pub fn again(&mut self, number: WriteNumber) -> Option<Begun> {
        if self.stage == Stage::Draining {
            return None;
        }
        let (waits, trails) = (self.in_sync.clone(), self.rebuilding.clone());
        let write = self.find(number)?;
        (write.waits, write.trails, write.due) = (waits, trails, Due::Not);
        let config = self.config;
        Some(Begun { number, config })
    }

    /// A number for what goes to one slice alone and all others have already.
    pub fn number(&mut self) -> WriteNumber {
        self.last.0 += 1;
        self.last
    }

    /// Where a write is sent that begins now.
    pub fn targets(&self) -> impl Iterator<Item = SliceUid> {
        self.in_sync.iter().chain(&self.rebuilding).copied()
    }

    fn find(&mut self, number: WriteNumber) -> Option<&mut Pending> {
        let at = self.pending.binary_search_by_key(&number, |w| w.number);
        at.ok().and_then(|at| self.pending.get_mut(at))
    }

    /// A slice has done a write. True if the host may be told now.
    pub fn acknowledged(&mut self, slice: SliceUid, number: WriteNumber) -> bool {
        let Some(write) = self.find(number) else {
            return false;
        };
        let before = write.complete();
        write.waits.retain(|waits| *waits != slice);
        write.trails.retain(|trails| *trails != slice);
        let told = !before && write.complete();
        if write.complete() && !write.is_under_way() {
            self.forget_done();
        }
        told
    }

    /// No answer to a write counts, and there will be no other: no member has room for it, or nobody
    /// waits any more. It stays open until it is sent [again](Writes::again).
    pub fn set_back(&mut self, number: WriteNumber) {
        if let Some(write) = self.find(number)
            && write.is_under_way()
        {
            (write.waits, write.trails, write.due) = (Vec::new(), Vec::new(), Due::Later);
        }
    }

    /// For `Action::Drain`: begins no more, and lets go of the slices not named. Gives the writes
    /// that hosts may be told of now.
    pub fn drain(&mut self, survivors: &[SliceUid]) -> Vec<WriteNumber> {
        self.stage = Stage::Draining;
        self.rebuilding.retain(|slice| survivors.contains(slice));
        let mut told = Vec::new();
        for write in &mut self.pending {
            let before = write.complete();
            let missed = write.waits.iter().any(|slice| !survivors.contains(slice));
            if missed && !left_out!(self, InForceFirst) {
                write.due = Due::Again;
            }
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
        !self.pending.iter().any(Pending::is_under_way)
    }

    /// For `Action::Adopt`, once drained: gives the writes to be sent [again](Writes::again) to all
    /// members, under this config.
    pub fn adopt(&mut self, config: Config, in_sync: &[SliceUid]) -> Vec<WriteNumber> {
        self.stage = Stage::Resending;
        self.config = config;
        self.in_sync = in_sync.to_vec();
        self.rebuilding.clear();
        for write in &mut self.pending {
            (write.waits, write.trails, write.due) = (Vec::new(), Vec::new(), Due::Again);
        }
        self.pending.iter().map(|write| write.number).collect()
    }

    /// Whether all that had to be sent again has ended: done, or set back.
    pub fn resent(&self) -> bool {
        let mut pending = self.pending.iter();
        self.stage == Stage::Resending && pending.all(|write| write.due == Due::Later)
    }

    /// Lets new writes begin, unless they are being drained. Whoever begins them asks
    /// [`Access`](crate::membership::Access) first: it may be paused meanwhile.
    pub fn open(&mut self) {
        if self.stage == Stage::Resending {
            self.stage = Stage::Open;
        }
    }

    /// Whether new writes begin.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether no write is sent, new or not.
    pub fn is_draining(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// For `Action::Reconnected`: the writes to be sent to the slice again.
    pub fn unanswered(&self, slice: SliceUid) -> Vec<WriteNumber> {
        let waits = |write: &&Pending| write.waits.contains(&slice);
        let unanswered = self.pending.iter().filter(waits);
        unanswered.map(|write| write.number).collect()
    }

    /// For `Action::Rebuild`: writes go to the slice too from now on. What it lacks may be asked for
    /// once all writes up to the number given are over.
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
            .retain(|write| write.is_under_way() || !write.complete());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    const A: SliceUid = SliceUid(Uuid::from_u128(1));
    const B: SliceUid = SliceUid(Uuid::from_u128(2));

    fn open() -> Writes {
        let mut writes = Writes::default();
        assert_eq!(writes.begin(), None);
        writes.adopt(Config(1), &[A, B]);
        assert!(writes.resent());
        writes.open();
        writes
    }

    fn begin(writes: &mut Writes) -> WriteNumber {
        writes.begin().unwrap().number
    }

    #[test]
    fn a_write_under_way_keeps_the_checkpoint_below_itself() {
        let mut writes = open();
        let (first, second) = (begin(&mut writes), begin(&mut writes));
        assert!(!writes.acknowledged(A, second) && writes.acknowledged(B, second));
        writes.flushed(writes.complete());
        assert_eq!(writes.checkpoint(), WriteNumber(0));
        assert!(!writes.acknowledged(B, first) && writes.acknowledged(A, first));
        assert_eq!(writes.checkpoint(), WriteNumber(0), "not flushed");
        writes.flushed(writes.complete());
        assert_eq!(writes.checkpoint(), second);
    }

    #[test]
    fn what_a_member_has_missed_is_sent_again_before_anything_new_begins() {
        let mut writes = open();
        let number = begin(&mut writes);
        assert_eq!(writes.drain(&[A]), []);
        assert!(!writes.drained());
        assert!(
            !writes.acknowledged(A, number),
            "not under a config in force"
        );
        assert!(writes.drained() && writes.again(number).is_none());
        assert_eq!(writes.adopt(Config(2), &[A]), [number]);
        writes.open();
        // A second failure before it was sent.
        writes.drain(&[A]);
        assert!(writes.drained(), "nothing was sent");
        writes.adopt(Config(3), &[A]);
        let config = Config(3);
        assert_eq!(writes.again(number), Some(Begun { number, config }));
        assert!(!writes.resent());
        assert!(writes.acknowledged(A, number) && writes.resent());
    }

    #[test]
    fn a_write_that_nobody_has_room_for_holds_nothing_up_but_the_checkpoint() {
        let mut writes = open();
        let number = begin(&mut writes);
        writes.set_back(number);
        assert!(writes.drained());
        let other = begin(&mut writes);
        writes.acknowledged(A, other);
        writes.acknowledged(B, other);
        assert_eq!(writes.complete(), WriteNumber(number.0 - 1));
        writes.drain(&[A, B]);
        writes.adopt(Config(2), &[A, B]);
        assert!(!writes.resent(), "it is tried once more");
        writes.again(number);
        writes.set_back(number);
        assert!(writes.resent());
    }

    proptest! {
        #[test]
        fn what_is_complete_has_nothing_open_below(order in prop::collection::vec(0usize..8, 1..80)) {
            let mut writes = open();
            let (mut open, mut last) = (BTreeSet::new(), 0);
            for step in order {
                if step < 4 || open.is_empty() {
                    last = begin(&mut writes).0;
                    open.insert(last);
                } else {
                    let number = *open.iter().nth(step % open.len()).unwrap();
                    open.remove(&number);
                    writes.acknowledged(A, WriteNumber(number));
                    prop_assert!(writes.acknowledged(B, WriteNumber(number)));
                }
                let expected = open.first().map_or(last, |open| open - 1);
                prop_assert_eq!(writes.complete(), WriteNumber(expected));
            }
        }
    }
}
