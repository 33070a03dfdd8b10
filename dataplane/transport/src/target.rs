//! The NVMe/TCP target: one listener, any number of subsystems, each Connect decided by a [`Gate`].

mod admit;
mod association;
mod connection;
mod events;
mod execute;
mod halfopen;
mod listener;
mod news;

pub use events::Events;
pub use listener::serve;
pub use weft_nvme::log::{AnaState, DiscoveryRecord};

use async_trait::async_trait;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::Disk;

/// An admin Connect (NVMe over Fabrics 1.1 section 3.3) that asks to be admitted.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// SUBNQN.
    pub subsystem: String,
    /// HOSTNQN, as received.
    pub host: String,
    /// HOSTID.
    pub host_id: Uuid,
    /// Source address of the admin queue's connection.
    pub peer: SocketAddr,
}

/// Why a Connect is refused: the status that the host gets (`nvme-tcp.md` section 1.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// 0184h Connect Invalid Host with DNR: this host has no right here and will not get it by waiting.
    InvalidHost,
    /// 0182h Connect Invalid Parameters with DNR, offset of SUBNQN in the Connect data (256).
    UnknownSubsystem,
    /// 0181h Connect Controller Busy without DNR: come back later.
    Busy,
}

/// What an admitted host gets.
pub struct Admission {
    /// What is served.
    pub export: Export,
    /// Cancelled by the gate to end this association: commands in flight end first, then the
    /// connections of all its queues are closed.
    pub revoke: CancellationToken,
    /// Dropped by the target when the association has ended: no command of it is running or can
    /// ever start, and its connections are closed.
    pub ended: Box<dyn Send + Sync>,
}

/// One namespace (NSID 1) under one subsystem name.
#[derive(Clone)]
pub struct Export {
    /// The bytes.
    pub disk: Arc<dyn Disk>,
    /// NGUID and UUID of the namespace.
    pub uuid: Uuid,
    /// Serial number, at most 20 ASCII characters, the same for all controllers of the subsystem.
    pub serial: String,
    /// First controller identifier that this process may use; 16 follow. Two processes that can
    /// serve one subsystem at one time never share a range (`nvme-tcp.md` section 1.6).
    pub first_controller: u16,
    /// Writes are refused, and the namespace says so (NSATTR bit 0).
    pub read_only: bool,
    /// Through which hosts hear of changes.
    pub events: Events,
    /// Answers vendor specific admin commands (C0h to FFh), if any.
    pub vendor: Option<Arc<dyn Vendor>>,
}

/// Decides about admin Connects. May wait (a fence drains before it admits).
#[async_trait]
pub trait Gate: Send + Sync {
    /// Admits or refuses.
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal>;

    /// The discovery service behind [`DISCOVERY_SUBSYSTEM`], if there is one.
    fn discovery(&self) -> Option<Arc<dyn Discovery>> {
        None
    }
}

/// The well-known name of every discovery subsystem (Fabrics section 1.5.5).
pub const DISCOVERY_SUBSYSTEM: &str = "nqn.2014-08.org.nvmexpress.discovery";

/// What a discovery controller tells (Fabrics section 5).
pub trait Discovery: Send + Sync {
    /// The subsystems that this host may use; `local` is the address at which it asks.
    fn records(&self, host: &str, local: SocketAddr) -> Vec<DiscoveryRecord>;

    /// A number that grows whenever any answer may have changed (GENCTR).
    fn generation(&self) -> watch::Receiver<u64>;
}

/// Vendor specific admin commands (NVMe Base 2.0 section 5, opcodes C0h to FFh). Bits 1:0 of the
/// opcode give the direction: 01b host to controller, 10b controller to host.
#[async_trait]
pub trait Vendor: Send + Sync {
    /// Host to controller: takes at most 8192 bytes.
    async fn put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), VendorError>;
    /// Controller to host: gives at most `length` bytes; the rest of the host's buffer is zeros.
    async fn get(&self, opcode: u8, cdw10: u32, length: u32) -> Result<Bytes, VendorError>;
}

/// A refused vendor command: the generic status code it ends with (status code type 0h, DNR set).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VendorError {
    /// 01h.
    InvalidOpcode,
    /// 02h.
    InvalidField,
    /// 06h.
    Internal,
    /// 83h Reservation Conflict: a newer fence pair is in force, this association is done.
    Fenced,
    /// Vendor specific 02h: what the command expects to replace is not there.
    SwapLost,
}

/// What a target gives to its peers at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Admitted connections at one time.
    pub connections: usize,
    /// Connections that have not said yet who they are. Beyond, the oldest gives way.
    pub half_open: usize,
    /// The same of one address.
    pub half_open_of_one: usize,
    /// Entries of a queue (CAP.MQES + 1).
    pub queue_size: u16,
    /// I/O queues of one association.
    pub io_queues: u16,
    /// Bytes of data that one queue holds: commands beyond wait for their R2T or their turn.
    pub queue_memory: usize,
    /// Bytes of data that all queues together hold, and one command of each queue beyond.
    pub memory: usize,
    /// From the connection to ICReq, and once more from there to Connect.
    pub handshake: std::time::Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            half_open: 64,
            half_open_of_one: 16,
            queue_size: 128,
            io_queues: 16,
            queue_memory: 4 << 20,
            memory: 64 << 20,
            handshake: std::time::Duration::from_secs(5),
        }
    }
}
