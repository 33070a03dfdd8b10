//! The FUSE protocol, as much of it as three files need.
//!
//! A FUSE library owns the session from mount to unmount, in one process; here the session
//! outlives the process that serves it, so the protocol is spoken directly
//! (`docs/decisions/004-own-fuse-protocol.md`).
//!
//! | file | what |
//! | --- | --- |
//! | [`abi`] | the kernel's structures and numbers |
//! | [`request`] | a message taken apart, pure |
//! | [`channel`] | reading requests, writing answers |
//! | [`handshake`] | mount, INIT, unmount |

pub mod abi;
pub mod channel;
pub mod handshake;
pub mod request;

/// Greatest write and read: what one NVMe command carries as well (MDTS).
pub const MAX_WRITE: u32 = 1 << 20;
/// The same in pages.
pub const MAX_PAGES: u16 = (MAX_WRITE / 4096) as u16;
