//! One association: an admin queue and one I/O queue.

use super::ConnectError;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use uuid::Uuid;
use weft_block::{Disk, DiskError, ErrorKind, Write};

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Where the target listens.
    pub address: SocketAddr,
    /// SUBNQN.
    pub subsystem: String,
    /// HOSTNQN: a secret, never logged.
    pub host: String,
    /// HOSTID.
    pub host_id: Uuid,
    /// Entries of the I/O queue.
    pub queue_size: u16,
    /// Keep Alive Timeout.
    pub keep_alive_ms: u32,
    /// CRC32C over each header.
    pub header_digest: bool,
    /// CRC32C over the data of each PDU.
    pub data_digest: bool,
}

impl ConnectOptions {
    /// Options with a queue of 128, a keep-alive of 15 s and no digests.
    pub fn new(
        address: SocketAddr,
        subsystem: impl Into<String>,
        host: impl Into<String>,
        host_id: Uuid,
    ) -> Self {
        Self {
            address,
            subsystem: subsystem.into(),
            host: host.into(),
            host_id,
            queue_size: 128,
            keep_alive_ms: 15_000,
            header_digest: false,
            data_digest: false,
        }
    }
}

/// A namespace behind one association. When the association is lost, requests pending and later
/// fail with [`ErrorKind::Gone`]; the object is then of no more use.
pub struct RemoteDisk {
    local: SocketAddr,
    subsystem: String,
    uuid: Uuid,
    size: u64,
    closed: CancellationToken,
}

impl RemoteDisk {
    /// Runs the whole sequence until the namespace is identified.
    pub async fn connect(options: ConnectOptions) -> Result<RemoteDisk, ConnectError> {
        Err(ConnectError::Protocol(format!(
            "nothing connects to {} yet",
            options.address
        )))
    }

    /// Local address of the admin queue's socket.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// SUBNQN that Identify Controller answered.
    pub fn subsystem(&self) -> &str {
        &self.subsystem
    }

    /// UUID of the namespace.
    pub fn namespace_uuid(&self) -> Uuid {
        self.uuid
    }

    /// Vendor specific admin command, controller to host: `length` bytes.
    pub async fn vendor_get(
        &self,
        _opcode: u8,
        _cdw10: u32,
        _length: u32,
    ) -> Result<Bytes, DiskError> {
        Err(gone())
    }

    /// Vendor specific admin command, host to controller.
    pub async fn vendor_put(
        &self,
        _opcode: u8,
        _cdw10: u32,
        _data: Bytes,
    ) -> Result<(), DiskError> {
        Err(gone())
    }

    /// Resolves when the association is lost or ended.
    pub fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// Ends the association in order (CC.SHN, then the sockets).
    pub async fn disconnect(&self) {
        self.closed.cancel();
    }
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "association lost")
}

#[async_trait]
impl Disk for RemoteDisk {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, _offset: u64, _into: &mut BytesMut) -> Result<(), DiskError> {
        Err(gone())
    }

    async fn write(&self, _offset: u64, _data: Bytes, _mode: Write) -> Result<(), DiskError> {
        Err(gone())
    }

    async fn flush(&self) -> Result<(), DiskError> {
        Err(gone())
    }

    async fn write_zeroes(&self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Err(gone())
    }

    async fn discard(&self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Err(gone())
    }
}
