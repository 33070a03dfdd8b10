//! Pauses before attempts that follow each other: none before the first, then longer and longer ones.
//! Pure.

use std::time::Duration;

/// See the module.
#[derive(Clone, Debug)]
pub struct Pauses {
    next: Duration,
    first: Duration,
    longest: Duration,
}

impl Pauses {
    /// The second attempt comes after `first`; each pause is twice the one before, up to the longest.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self {
            next: Duration::ZERO,
            first,
            longest,
        }
    }

    /// Before the next attempt.
    pub fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).clamp(self.first, self.longest);
        pause
    }

    /// The next attempt is a first one again.
    pub fn begin_anew(&mut self) {
        self.next = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempt_is_at_once_and_pauses_double_up_to_the_longest() {
        let millis = Duration::from_millis;
        let mut pauses = Pauses::new(millis(50), millis(150));
        let four: Vec<_> = (0..4).map(|_| pauses.next()).collect();
        assert_eq!(four, [0, 50, 100, 150].map(millis));
        pauses.begin_anew();
        assert_eq!(pauses.next(), Duration::ZERO);
    }
}
