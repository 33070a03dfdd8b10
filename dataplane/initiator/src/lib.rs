//! The user-space initiator: one volume as one file.
//!
//! PID 1 mounts a small FUSE file system and holds `/dev/fuse`; a worker, its one child, answers
//! the kernel and talks to the volume's engine. A worker that dies is started again and asks the
//! kernel for everything that was not answered, so whoever uses the file (a loop device with
//! direct I/O and 4096-byte blocks) sees a pause and no error.
//!
//! ```text
//! ext4 ─ loop device ─ volume (FUSE file) ─ /dev/fuse ─ worker ─ NVMe/TCP ─ engine
//!                                               └ held by PID 1
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | [`fuse`] | the protocol |
//! | [`session`] | mount and descriptors: what outlives a worker |
//! | [`kept`] | path and size: what outlives a worker, too |
//! | [`files`] | the directory, pure |
//! | [`volume`] | the file `volume`: file requests as disk requests |
//! | [`path`] | the files `path` and `status` |
//! | [`worker`] | answers requests |
//! | [`run`](mod@run) | puts it together, and ends it |

pub mod files;
pub mod fuse;
pub mod kept;
pub mod path;
pub mod run;
pub mod session;
pub mod volume;
pub mod worker;
