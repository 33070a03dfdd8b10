//! Numbers of changes and the checkpoint. Pure.
//!
//! The checkpoint is the greatest number up to which every change was acknowledged by all members
//! and is flushed on all of them (design section 5, Hot regions). A drive forgets by it that a
//! region may differ, so a change that is still under way must never be below it: it is taken
//! from what was acknowledged *before* a flush began, and only when all have flushed.

use std::collections::VecDeque;

/// Number of a change; grows within one (term, boot). The first is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ChangeNumber(pub u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Numbers {
    /// Every change up to this one was acknowledged.
    settled: u64,
    /// Whether each change after it was.
    open: VecDeque<bool>,
    flushed: u64,
}

impl Numbers {
    /// The next number.
    pub fn take(&mut self) -> ChangeNumber {
        self.open.push_back(false);
        ChangeNumber(self.settled + self.open.len() as u64)
    }

    /// Every member has acknowledged this change.
    pub fn acknowledge(&mut self, number: ChangeNumber) {
        let at = number.0.checked_sub(self.settled + 1);
        let at = at.and_then(|at| usize::try_from(at).ok());
        if let Some(done) = at.and_then(|at| self.open.get_mut(at)) {
            *done = true;
        }
        while self.open.front() == Some(&true) {
            self.open.pop_front();
            self.settled += 1;
        }
    }

    /// Every change up to this one was acknowledged by every member.
    pub fn acknowledged(&self) -> ChangeNumber {
        ChangeNumber(self.settled)
    }

    /// A flush that began when `mark` was [`Numbers::acknowledged`] has ended on every member.
    pub fn flushed(&mut self, mark: ChangeNumber) {
        self.flushed = self.flushed.max(mark.0);
    }

    /// See the module.
    pub fn checkpoint(&self) -> ChangeNumber {
        ChangeNumber(self.flushed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_change_under_way_keeps_the_checkpoint_below_itself() {
        let mut numbers = Numbers::default();
        let (first, second) = (numbers.take(), numbers.take());
        numbers.acknowledge(second);
        numbers.flushed(numbers.acknowledged());
        assert_eq!(numbers.checkpoint(), ChangeNumber(0));
        numbers.acknowledge(first);
        assert_eq!(numbers.checkpoint(), ChangeNumber(0), "not flushed");
        numbers.flushed(numbers.acknowledged());
        assert_eq!(numbers.checkpoint(), second);
    }

    proptest! {
        #[test]
        fn what_is_acknowledged_has_nothing_open_below(order in prop::collection::vec(0usize..8, 1..80)) {
            let mut numbers = Numbers::default();
            let (mut open, mut last) = (BTreeSet::new(), 0);
            for step in order {
                if step < 4 || open.is_empty() {
                    last = numbers.take().0;
                    open.insert(last);
                } else {
                    let number = *open.iter().nth(step % open.len()).unwrap();
                    open.remove(&number);
                    numbers.acknowledge(ChangeNumber(number));
                }
                let expected = open.first().map_or(last, |open| open - 1);
                prop_assert_eq!(numbers.acknowledged(), ChangeNumber(expected));
            }
        }
    }
}
