//! What several kinds share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One word for where an object stands. Conditions carry the truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Not there yet; goes on by itself or says in a condition what it waits for.
    #[default]
    Pending,
    /// Does all that it should.
    Ready,
    /// Works with less than was asked for.
    Degraded,
    /// Worked before and waits now; consumers wait with it.
    Paused,
    /// Needs a person.
    Failed,
    /// Being taken down.
    Deleting,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether a slice holds the data of its volume or only votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum SliceRole {
    /// It has the bytes, and votes.
    #[default]
    Data,
    /// A few KiB that hold the record of who is in-sync, so that the number of votes is odd.
    Witness,
}

/// The fence pair that a slice has heard (design: term from the operator, boot from the process).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub struct Fence {
    /// Raised each time an engine pod is made.
    pub term: i64,
    /// Raised by each start of the engine's process within the term.
    pub boot: i64,
}
