//! Weft's own evidence that an engine's node is lost: Kubernetes takes most of a minute. Pure.
//!
//! Nothing is asked while nothing happens. A drive says by itself when the last connection to a slice
//! has ended; when a majority of a volume's drives has said so of an engine that says it serves,
//! that engine is asked. One whose node answers at all (be it with a refusal: its process starts
//! again) is left alone; of one from which nothing comes, the next term is started. The
//! fence makes a false alarm harmless.

use super::plan::{self, Observed};
use std::time::Duration;
use weft_crds::VolumeStatus;
use weft_spec::drive::{DriveStatus, SliceStatus};

/// How long an engine that its drives miss is waited for.
pub const ANSWER: Duration = Duration::from_secs(2);
/// When an engine that its drives miss and that has answered is looked at again.
pub const AGAIN: Duration = Duration::from_secs(2);

/// Whether a majority of the drives has no connection of the engine of the present term, which says
/// that it serves.
pub fn is_missed(o: &Observed, status: &VolumeStatus) -> bool {
    let serves = status.engine.as_ref().is_some_and(|e| e.serving);
    let misses =
        |word: &&SliceStatus| word.connections == 0 && plan::term(word.fence.term) == status.term;
    let missing = o.heard.iter().filter(misses).count();
    serves && missing * 2 > status.members.len()
}

/// What a drive says of the slice with that uid.
pub fn word_of<'a>(said: &'a DriveStatus, slice: &str) -> Option<&'a SliceStatus> {
    let same = |s: &&SliceStatus| s.slice.to_string() == slice;
    said.slices.iter().find(same)
}
