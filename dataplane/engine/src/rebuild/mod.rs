//! The rebuild: makes a target of the mirror equal to the in-sync members (design 6.8).
//!
//! A target gets what the current members changed since it was last in-sync, told by the stamps at
//! their drives, and every region of its own hot set. Nothing of it is decided by what the target
//! says of its own bytes.
//!
//! | file | what | waits |
//! | --- | --- | --- |
//! | `slice.rs` | what is asked of a slice beside its bytes | |
//! | `remote.rs` | the same over an association | for answers |
//! | `frontier.rs` | since which config each part is to be copied: what is done | no |
//! | `pace.rs` | how long to stand back, when it will end | no |
//! | `copy.rs` | one piece: kept, read, written, flushed, compared | for answers |
//! | `run.rs` | one piece after the other | for pieces |
//!
//! # How its user drives it
//!
//! 1. Compose the mirror with the target, under a config raised for it: writes that it misses after
//!    it is lost again are then told from those that it got.
//! 2. Run [`Rebuild::run`] until it ends. If it fails, the volume is as before; keep
//!    [`Rebuild::frontier`], and begin with it again when the target is back, of the same
//!    incarnation and under another config.
//! 3. When it has ended well: hold the mirror; once drained, see that the target has not failed, flush
//!    it once more, record it as in-sync, compose.

mod copy;
mod frontier;
mod pace;
mod remote;
mod run;
mod slice;

#[cfg(test)]
mod tests;

pub use frontier::Frontier;
pub use pace::{Limits, Progress, Stage};
pub use remote::RemoteSlice;
pub use run::{Options, Rebuild, RebuildError};
pub use slice::{Changes, ChunkIndex, HotRegions, RangeHash, Region, Slice, Source, hot_set};
