//! What `up` tells while it works: a step a line, with the time it took.

use std::time::Instant;

/// Prints the steps of one command.
#[derive(Debug)]
pub(crate) struct Steps {
    begin: Instant,
    last: Instant,
    quiet: bool,
}

impl Steps {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            begin: now,
            last: now,
            quiet,
        }
    }

    /// The step that ended now.
    pub(crate) fn done(&mut self, what: &str) {
        let now = Instant::now();
        if !self.quiet {
            eprintln!(
                "  {:6.2} s  +{:5.2} s  {what}",
                (now - self.begin).as_secs_f64(),
                (now - self.last).as_secs_f64()
            );
        }
        self.last = now;
    }

    /// Seconds since the first.
    pub(crate) fn total(&self) -> f64 {
        self.begin.elapsed().as_secs_f64()
    }
}
