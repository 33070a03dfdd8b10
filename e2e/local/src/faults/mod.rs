//! The fault matrix on real processes: one row a file. A row injects one fault under a load that
//! the oracle judges, and tells what it saw and how long the host had no answer.
//!
//! | row | file |
//! | --- | --- |
//! | 1 | `engine_killed.rs` |
//! | 2 | `killpoints.rs` |
//! | 3 | `engine_stopped.rs` |
//! | 4 | `two_engines.rs` |
//! | 5 | `drive_killed.rs` |
//! | 6 | `drive_stopped.rs`, `drive_silent.rs` |
//! | 7 | `last_drive_lost.rs`, `last_member.rs` |
//! | 8 | `two_members.rs`, `member_and_witness.rs` |
//! | 9 | `source_killed.rs` |
//! | 10 | `drive_cut.rs` |
//! | 11 | `answers_lost.rs` |
//! | 12 | `minority.rs` |
//! | 17 | `member_corrupt.rs` |
//! | 18 | `block_corrupt.rs` |
//! | 24 | `flush_fails.rs` |
//! | 32 | `old_drive.rs` |

mod answers_lost;
mod block_corrupt;
mod drive_cut;
mod drive_killed;
mod drive_silent;
mod drive_stopped;
mod engine_killed;
mod engine_stopped;
mod flush_fails;
mod killpoints;
mod last_drive_lost;
mod last_member;
pub mod load;
mod member_and_witness;
mod member_corrupt;
mod minority;
pub mod mirrored;
mod old_drive;
mod source_killed;
mod two_engines;
mod two_members;

pub use load::Load;

use crate::namespace;
use anyhow::{Result, anyhow};
use serde::Serialize;
use std::time::Duration;

/// One fault.
pub struct Row {
    /// Its number in the matrix.
    pub number: u8,
    /// What is done.
    pub injected: &'static str,
    /// What must come of it.
    pub expected: &'static str,
    /// Does it; within the row's own network.
    run: fn() -> Result<Seen>,
}

/// What came of a fault.
pub struct Seen {
    /// In words and numbers.
    pub what: String,
    /// Longest time without any answer while the load was on.
    pub longest_gap: Duration,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Number in the matrix.
    pub row: u8,
    /// What was done.
    pub injected: &'static str,
    /// What had to come of it.
    pub expected: &'static str,
    /// What did.
    pub seen: String,
    /// Longest time without an answer; none when the row failed before its end.
    pub longest_gap_ms: Option<u128>,
    /// Whether that is as expected.
    pub passed: bool,
}

/// All rows, in the order of the matrix.
pub const ROWS: &[Row] = &[
    engine_killed::ROW,
    killpoints::ROW,
    engine_stopped::ROW,
    two_engines::ROW,
    drive_killed::ROW,
    drive_stopped::ROW,
    drive_silent::ROW,
    last_drive_lost::ROW,
    last_member::ROW,
    two_members::ROW,
    two_members::ALONE,
    member_and_witness::ROW,
    source_killed::ROW,
    source_killed::ANOTHER,
    drive_cut::ROW,
    answers_lost::ROW,
    minority::ROW,
    member_corrupt::ROW,
    block_corrupt::ROW,
    flush_fails::ROW,
    old_drive::ROW,
];

impl Row {
    /// Runs on a thread of its own, with which its network and its processes go.
    pub fn find(&self) -> Finding {
        let run = self.run;
        let thread = std::thread::spawn(move || {
            namespace::enter();
            run()
        });
        let seen = thread
            .join()
            .unwrap_or_else(|panic| Err(anyhow!("{}", words(&*panic))));
        let (seen, longest_gap_ms, passed) = match seen {
            Ok(seen) => (seen.what, Some(seen.longest_gap.as_millis()), true),
            Err(error) => (format!("{error:#}"), None, false),
        };
        Finding {
            row: self.number,
            injected: self.injected,
            expected: self.expected,
            seen,
            longest_gap_ms,
            passed,
        }
    }
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}
