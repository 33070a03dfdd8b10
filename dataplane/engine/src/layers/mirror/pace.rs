//! How fast members read, and when a second read is worth it. Pure: times come in as arguments.
//!
//! Nothing here decides about safety. A read goes to the member that is likely to answer first:
//! what it usually takes, times the reads that it already has. When the answer is later than
//! nearly all of the fastest member's, a second read is started at another one, if the budget has
//! it. Now and then
//! ([`probe`]) a slow member is asked all the same: it may be well again.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A second read costs as much as so many reads: at most 5 % of them are hedged (issue 7).
const HEDGE_COST: u64 = 20;
/// Second reads that can be saved up.
const SAVED: u64 = 16;
/// One read of so many looks at a member that would not be chosen.
const PROBE: u64 = 64;
/// Weight of a new time in the mean: 1/8.
const MEAN_SHIFT: u32 = 3;
/// What a member is taken to need before it was ever asked.
const FIRST: Duration = Duration::from_millis(1);
/// Bounds of what is taken for late: below, a timer costs more than it saves.
const SOONEST: Duration = Duration::from_micros(500);
const LATEST: Duration = Duration::from_secs(2);

/// Read times of one member.
#[derive(Debug)]
pub struct Pace {
    mean: AtomicU64,
    /// Estimate of what 99 of 100 reads stay below.
    late: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            mean: AtomicU64::new(nanos(FIRST)),
            late: AtomicU64::new(nanos(FIRST) * 8),
        }
    }
}

impl Pace {
    /// The same numbers, apart.
    pub fn copy(&self) -> Self {
        Self {
            mean: AtomicU64::new(self.mean.load(Relaxed)),
            late: AtomicU64::new(self.late.load(Relaxed)),
        }
    }

    /// A read took so long, or was given up after it.
    pub fn took(&self, time: Duration) {
        let time = nanos(time);
        let mean = self.mean.load(Relaxed);
        let mean = mean - (mean >> MEAN_SHIFT) + (time >> MEAN_SHIFT);
        self.mean.store(mean.max(1), Relaxed);
        // Moves up by 99 parts when it was too low and down by one when it was not: at rest it is
        // where one of a hundred is above.
        let late = self.late.load(Relaxed);
        let step = late / 1024;
        let late = if time > late {
            late + 99 * step
        } else {
            late - step
        };
        self.late
            .store(late.clamp(nanos(SOONEST), nanos(LATEST)), Relaxed);
    }

    /// What a read is likely to take behind so many others.
    pub fn expected(&self, in_flight: u64) -> u64 {
        self.mean.load(Relaxed).saturating_mul(in_flight + 1)
    }

    /// After this time an answer is later than 99 of 100.
    pub fn late(&self) -> Duration {
        Duration::from_nanos(self.late.load(Relaxed))
    }
}

fn nanos(time: Duration) -> u64 {
    // More than 500 years otherwise.
    time.as_nanos().min(u128::from(u64::MAX)) as u64
}

/// Which reads are hedged: never more than one of [`HEDGE_COST`].
#[derive(Debug, Default)]
pub struct Budget {
    reads: AtomicU64,
    saved: AtomicU64,
}

impl Budget {
    /// A read begins; its number.
    pub fn read(&self) -> u64 {
        let saved = self.saved.load(Relaxed) + 1;
        self.saved.store(saved.min(SAVED * HEDGE_COST), Relaxed);
        self.reads.fetch_add(1, Relaxed)
    }

    /// Reads so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Relaxed)
    }

    /// Takes what a second read costs.
    pub fn take(&self) -> bool {
        let saved = self.saved.load(Relaxed);
        let left = saved.checked_sub(HEDGE_COST);
        if let Some(left) = left {
            self.saved.store(left, Relaxed);
        }
        left.is_some()
    }
}

/// Whether the read of this number looks at a member that would not be chosen, and at which in turn.
pub fn probe(number: u64) -> Option<usize> {
    let turn = usize::try_from(number / PROBE).unwrap_or(0);
    (number % PROBE == PROBE - 1).then_some(turn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_one_of_a_hundred_is() {
        let pace = Pace::default();
        for round in 0..20_000u64 {
            // 1 to 100 milliseconds in an order that does not matter.
            pace.took(Duration::from_millis(1 + round * 37 % 100));
        }
        let late = pace.late().as_millis();
        assert!((85..=115).contains(&late), "{late}");
    }

    #[test]
    fn at_most_one_of_twenty_reads_is_hedged_however_slow_they_are() {
        let budget = Budget::default();
        let mut hedged = 0;
        for reads in 1..=10_000 {
            budget.read();
            hedged += u64::from(budget.take());
            assert!(hedged * HEDGE_COST <= reads);
        }
        assert!(hedged >= 490);
    }

    #[test]
    fn a_member_that_is_slow_is_not_expected_to_be_first_until_the_other_is_busy() {
        let (fast, slow) = (Pace::default(), Pace::default());
        for _ in 0..100 {
            fast.took(Duration::from_millis(1));
            slow.took(Duration::from_millis(10));
        }
        assert!(fast.expected(5) < slow.expected(0));
        assert!(fast.expected(12) > slow.expected(0));
    }
}
