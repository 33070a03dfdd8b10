//! Where an engine is killed: at the n-th of the commands that make something of the membership
//! durable, before its drive has it or before its answer is heard. Pure; `relay.rs` asks.

use crate::setup::Nth;
use std::collections::BTreeSet;

/// What a command makes durable at a slice, or says of what is (`docs/protocol.md`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Step {
    /// Connect of an engine: its pair.
    Fence,
    /// C5h: a record.
    Record,
    /// C1h: the generation of a document.
    Mark,
    /// C9h: a checkpoint of its own.
    Checkpoint,
    /// CDh: regions are equal.
    Equal,
}

/// On which side of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The drive never gets it.
    Before,
    /// The drive has done it, nobody hears of that.
    After,
}

/// See the module.
#[derive(Default)]
pub struct Killpoint {
    armed: Option<(u64, Side)>,
    seen: u64,
    /// Who was told of regions.
    told: BTreeSet<u16>,
    holds: Option<(Nth, Step)>,
}

impl Killpoint {
    /// From now on the n-th step, counted from one, is where the engine is killed.
    pub fn arm(&mut self, nth: u64, side: Side) {
        *self = Self {
            armed: Some((nth, side)),
            ..Self::default()
        };
    }

    /// Nothing is held any more.
    pub fn disarm(&mut self) {
        *self = Self::default();
    }

    /// The step that is held, once it is reached: now is the time.
    pub fn holds(&self) -> Option<(Nth, Step)> {
        self.holds
    }

    /// A step is on its way to a drive. On which side of it there is something to hold, if so.
    pub fn passes(&mut self, nth: Nth, step: Step) -> Option<Side> {
        let (at, side) = self.armed?;
        // A hundred regions are told equal in the same way.
        if step == Step::Equal && !self.told.insert(nth.0) {
            return None;
        }
        self.seen += 1;
        (self.seen == at).then_some(side)
    }

    /// That side is reached.
    pub fn hold(&mut self, nth: Nth, step: Step) {
        // Not what is left of a run before this one.
        if self.armed.is_some() {
            self.holds = Some((nth, step));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_was_asked_for_is_held_and_regions_count_once_for_each_drive() {
        let mut point = Killpoint::default();
        assert_eq!(point.passes(Nth(0), Step::Fence), None);
        point.arm(5, Side::After);
        let steps = [
            (0, Step::Fence),
            (0, Step::Record),
            (0, Step::Record),
            (0, Step::Equal),
            (0, Step::Equal),
            (1, Step::Equal),
        ];
        let sides = steps.map(|(nth, step)| point.passes(Nth(nth), step));
        let mut expected = [None; 6];
        expected[5] = Some(Side::After);
        assert_eq!(sides, expected);
        assert_eq!(point.holds(), None);
        point.hold(Nth(1), Step::Equal);
        assert_eq!(point.holds(), Some((Nth(1), Step::Equal)));
    }
}
