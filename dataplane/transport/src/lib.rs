//! Sockets around the protocol of `weft-nvme`: a target that serves [`weft_block::Disk`]s and
//! an initiator that is one.
//!
//! | file | what |
//! | --- | --- |
//! | [`target`] | accepts connections, asks a [`target::Gate`] at each Connect, runs commands on the admitted disk |
//! | [`initiator`] | connects, and offers the remote namespace as a `Disk` |
//! | [`polling`] | keeps a busy process from sleeping, where that is asked for |
//! | `spin` | asks one socket while it is spun for |
//! | `socket` | the socket options and the vectored write that both share |

pub mod initiator;
pub mod polling;
mod socket;
mod spin;
pub mod target;

pub use initiator::{
    ConnectError, ConnectOptions, PathState, Probe, ReconnectingDisk, RemoteDisk, discover,
};
pub use target::{
    Admission, AnaState, ConnectRequest, DISCOVERY_SUBSYSTEM, Discovery, DiscoveryRecord, Events,
    Export, Gate, Limits, Refusal, Vendor, VendorError, serve,
};
