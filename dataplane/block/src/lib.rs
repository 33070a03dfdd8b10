//! Blocks: the [`Disk`] trait that every layer, back-end and remote slice implements.
//!
//! A layer knows this trait and nothing else; a mirror does not know that its members are
//! remote, an export does not know what it serves.
//!
//! # I/O model
//!
//! All addresses are byte offsets that are multiples of [`BLOCK`]; all lengths are multiples
//! of [`BLOCK`] and not zero. The caller has checked the range against [`Disk::size`]; a disk
//! checks again and answers [`ErrorKind::OutOfRange`]. A request answered with `Ok` was done
//! whole. Requests in flight at the same time on overlapping ranges have no order.
//! Written bytes are durable only after a later [`Disk::flush`] or with [`Write::Durable`].
//!
//! | disk | file | what |
//! | --- | --- | --- |
//! | [`FileMedium`] | `file.rs` | a file or a block device, held exclusively; O_DIRECT; io_uring (`uring.rs`) or plain preadv and pwritev, as [`Io`] says |
//! | [`ThreadedDisk`] | `threaded.rs` | any [`Medium`] as a [`Disk`]: on its ring, or on blocking threads that end when idle |
//! | [`MemoryDisk`] | `memory.rs` | for tests and benchmarks |
//! | [`FaultDisk`] | `fault.rs` | wraps any disk; fails, lies, delays, holds, by script |
//! | [`FaultMedium`] | `fault_medium.rs` | wraps any medium; loses, misdirects, tears, cuts, flips, shows old bytes, fails, by script |
//! | [`PowerDisk`] | `power.rs` | a medium whose power can be cut at any request |

mod aligned;
mod disk;
mod error;
mod fault;
mod fault_medium;
mod file;
mod medium;
mod memory;
mod power;
mod threaded;
mod uring;

pub use aligned::AlignedBuf;
pub use disk::{Answer, BLOCK, Disk, Stamp, Write};
pub use error::{DiskError, ErrorKind};
pub use fault::{Fault, FaultDisk, Operation, Request};
pub use fault_medium::{FaultMedium, Harm};
pub use file::{FileMedium, Io, OpenError};
pub use medium::Medium;
pub use memory::MemoryDisk;
pub use power::PowerDisk;
pub use threaded::ThreadedDisk;
