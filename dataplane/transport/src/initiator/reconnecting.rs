//! A disk that outlives its associations.

use super::{ConnectOptions, RemoteDisk};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::watch;
use uuid::Uuid;
use weft_block::{Disk, DiskError, ErrorKind, Write};

/// What a [`ReconnectingDisk`] knows about its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathState {
    /// Whether there is an association now.
    pub connected: bool,
    /// Where it connects to.
    pub address: SocketAddr,
    /// Local address of the admin queue of the newest association.
    pub local: Option<SocketAddr>,
    /// SUBNQN that the target last answered.
    pub subsystem: Option<String>,
    /// UUID of the namespace.
    pub namespace_uuid: Option<Uuid>,
    /// Bytes; 0 until the first association.
    pub size: u64,
    /// The newest attempt was refused with Connect Invalid Host: this host has lost its right.
    pub invalid_host: bool,
    /// Why there is no association.
    pub reason: Option<String>,
}

/// Holds requests while there is no association, connects again without limit, and sends again
/// what was not answered.
pub struct ReconnectingDisk {
    state: watch::Sender<PathState>,
}

impl ReconnectingDisk {
    /// Starts connecting; `first` is an association that exists already, made with these options.
    /// Dropping the last `Arc`, or [`ReconnectingDisk::stop`], ends it.
    pub fn start(options: ConnectOptions, first: Option<RemoteDisk>) -> Arc<Self> {
        let state = PathState {
            connected: false,
            address: options.address,
            local: first.as_ref().map(RemoteDisk::local),
            subsystem: None,
            namespace_uuid: None,
            size: 0,
            invalid_host: false,
            reason: None,
        };
        Arc::new(Self {
            state: watch::Sender::new(state),
        })
    }

    /// From now on connects there; an association with another address is given up.
    pub fn set_address(&self, address: SocketAddr) {
        self.state.send_modify(|state| state.address = address);
    }

    /// The path's state, told at each change.
    pub fn state(&self) -> watch::Receiver<PathState> {
        self.state.subscribe()
    }

    /// The association of now, for vendor specific commands.
    pub fn current(&self) -> Option<Arc<RemoteDisk>> {
        None
    }

    /// Ends it: requests held or sent later fail with [`ErrorKind::Gone`], the association is
    /// ended in order.
    pub async fn stop(&self) {}
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "stopped")
}

#[async_trait]
impl Disk for ReconnectingDisk {
    fn size(&self) -> u64 {
        self.state.borrow().size
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
