//! How fast a rebuild goes, and how far it has come. Pure: times come in as arguments.

use std::time::Duration;

/// A rest is cut into pieces of this, so that it ends soon after the others do.
const LONGEST_REST: Duration = Duration::from_millis(100);

/// What a rebuild may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Pieces of a MiB that are copied at a time; each keeps changes out of its range.
    pub pieces: usize,
    /// Bytes a second at most; `None` for as fast as it goes.
    pub rate: Option<BytesPerSecond>,
    /// While others use the volume, it rests for so many times as long as it worked.
    pub yields: u32,
}

/// A rate.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct BytesPerSecond(pub u64);

impl Default for Limits {
    /// Four pieces keep both drives busy; more only wait at them. A quarter of the time is enough to
    /// come to an end.
    fn default() -> Self {
        Self {
            pieces: 4,
            rate: None,
            yields: 3,
        }
    }
}

impl Limits {
    /// How long to stand back after a piece of so many bytes took so long, and others made so many
    /// requests meanwhile.
    pub fn rest(&self, worked: Duration, bytes: u64, others: u64) -> Duration {
        let yielding = if others == 0 {
            Duration::ZERO
        } else {
            (worked * self.yields).min(LONGEST_REST)
        };
        let due = self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(bytes as f64 / rate.0.max(1) as f64)
        });
        yielding.max(due.saturating_sub(worked))
    }
}

/// What a rebuild does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Stage {
    /// The in-sync members are made equal first.
    #[default]
    Equalizing,
    /// A full copy empties the target.
    Emptying,
    /// Regions that may differ by the target's own account.
    HotRegions,
    /// What was changed while the target was away.
    Changes,
    /// The target has everything, flushed and verified.
    Done,
}

/// How far a rebuild has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// What it does.
    pub stage: Stage,
    /// Bytes of the volume that were gone through in this stage.
    pub passed: u64,
    /// Bytes of the volume.
    pub size: u64,
    /// Bytes written to the target.
    pub written: u64,
    /// Bytes made to read as zeros at the target.
    pub zeroed: u64,
    /// What is left is likely to take so long; `None` while that cannot be said.
    pub left: Option<Duration>,
}

/// What is left of a way of `whole`, if `passed` of it took so long.
pub fn left(took: Duration, passed: u64, whole: u64) -> Option<Duration> {
    if passed == 0 {
        return None;
    }
    let ratio = whole.saturating_sub(passed) as f64 / passed as f64;
    Duration::try_from_secs_f64(took.as_secs_f64() * ratio).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_only_while_others_work_or_it_is_too_fast() {
        let limits = Limits::default();
        let worked = Duration::from_millis(10);
        assert_eq!(limits.rest(worked, 1 << 20, 0), Duration::ZERO);
        assert_eq!(limits.rest(worked, 1 << 20, 1), worked * 3);
        assert_eq!(limits.rest(worked * 1000, 1 << 20, 1), LONGEST_REST);
        let slow = Limits {
            rate: Some(BytesPerSecond(1 << 20)),
            ..limits
        };
        let second = Duration::from_secs(1);
        assert_eq!(slow.rest(worked, 1 << 20, 0), second - worked);
        assert_eq!(slow.rest(second, 1 << 20, 0), Duration::ZERO);
    }

    #[test]
    fn what_is_left_is_told_by_what_was_passed() {
        let took = Duration::from_secs(10);
        assert_eq!(left(took, 0, 100), None);
        assert_eq!(left(took, 25, 100), Some(took * 3));
        assert_eq!(left(took, 100, 100), Some(Duration::ZERO));
    }
}
