//! The oracle: writes blocks that say what they are, keeps the history of what was acknowledged,
//! and judges every read by it.
//!
//! A volume is an array of registers, one a block. A read must return the last acknowledged
//! write, or one that was concurrent or never answered; and what it returned stays.
//!
//! | file | what |
//! | --- | --- |
//! | [`block`] | what is in a block: volume, place, writer, sequence, checksum, in each sector |
//! | [`history`] | what may be read, after what was begun, acknowledged, flushed and lost. Pure |
//! | `register` | the same for one block |
//! | [`workload`] | requests by seed over any [`weft_block::Disk`], judged as they end |
//! | [`random`] | numbers by seed |
//!
//! Nothing here reads a clock, starts a task or opens a file: the same runs over an initiator, a
//! block device and a simulated disk.

pub mod block;
pub mod history;
pub mod random;
mod register;
pub mod workload;

pub use block::{Block, VolumeMark};
pub use history::{History, Violation};
pub use workload::{Report, Workload};
