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
//! | file or block device | `file.rs` | O_DIRECT, plain preadv/pwritev threads |
//! | memory | `memory.rs` | for tests and benchmarks |
//! | fault-injecting | `fault.rs` | wraps any disk; fails, delays, by script |

mod disk;
mod error;

pub use disk::{BLOCK, Disk, Write};
pub use error::{DiskError, ErrorKind};
