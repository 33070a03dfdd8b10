//! NVMe over TCP without sockets and without a clock: bytes go in, events and bytes come out.
//!
//! Both ends are made from one codec. Section numbers are those of the NVMe TCP Transport
//! Specification 1.0 ("TCP"), the NVMe Base Specification 2.0 ("Base"), the NVM Command Set
//! Specification 1.0 ("NVM") and NVMe over Fabrics 1.1 ("Fabrics").
//!
//! | module | what |
//! | --- | --- |
//! | [`pdu`] | one PDU a file: layout, what is refused and with which Fatal Error Status |
//! | [`command`] | submission and completion entries, typed commands with reserved bits refused |
//! | [`identify`], [`log`], [`feature`] | the data structures that admin commands carry |
//! | [`status`] | status codes |
//! | [`target`] | a target's connection (PDUs to commands) and controller (admin commands) |
//! | [`initiator`] | an initiator's connection (commands to PDUs), and what it demands of a target |
//!
//! Neither end trusts the other: no length received is allocated before it has been compared
//! with a limit, every tag is looked up, and the first breach ends the connection, with a
//! termination request that says which field was wrong.

#![forbid(unsafe_code)]

mod buffers;
pub mod command;
pub mod digest;
pub mod feature;
pub mod identify;
mod inbox;
pub mod initiator;
pub mod log;
mod outbox;
pub mod pdu;
pub mod property;
pub mod status;
pub mod target;
mod text;

pub use outbox::Outbox;
pub use status::Status;

/// Bytes in a logical block: LBADS 12.
pub const BLOCK: u64 = 4096;
/// Exponent of [`BLOCK`].
pub const BLOCK_SHIFT: u32 = 12;
/// MDTS: 2^8 units of 4 KiB (CAP.MPSMIN is 0).
pub const MDTS: u8 = 8;
/// The most data that one command moves.
pub const MAX_TRANSFER: u32 = 4096 << MDTS;
/// Data that a command capsule may carry. On the admin queue the transport fixes 8192 (TCP
/// section 3.3.1), on I/O queues IOCCSZ tells it.
pub const IN_CAPSULE: u32 = 8192;
/// The one namespace.
pub const NSID: u32 = 1;
