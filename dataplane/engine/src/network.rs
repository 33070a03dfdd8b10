//! The way out of the process: how slices are reached and how the export is opened. The product has
//! NVMe/TCP there, the simulation its own network with faults (`docs/decisions/023-simulation.md`).

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use weft_block::{Disk, DiskError};
use weft_transport::{ConnectError, ConnectOptions, Gate, Limits, RemoteDisk};

/// One association with a slice. When it is lost, requests pending and later fail with
/// [`Gone`](weft_block::ErrorKind::Gone); the object is then of no more use.
#[async_trait]
pub trait Association: Disk {
    /// Vendor specific admin command, controller to host: `length` bytes.
    async fn vendor_get(&self, opcode: u8, cdw10: u32, length: u32) -> Result<Bytes, DiskError>;

    /// Vendor specific admin command, host to controller.
    async fn vendor_put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), DiskError>;

    /// Ends it in order: nothing of it is done any more when this returns, if the drive answers.
    async fn disconnect(&self);

    /// Ends it without a word: nothing that is under way gets an answer any more.
    fn abandon(&self);

    /// Resolves when it is lost or ended.
    fn closed(&self) -> BoxFuture<'static, ()>;

    /// Whether it has ended because its drive answered nothing, a keep-alive not either.
    fn fell_silent(&self) -> bool;

    /// Address of this end.
    fn local(&self) -> SocketAddr;

    /// SUBNQN that the drive answered.
    fn subsystem(&self) -> &str;
}

/// See the module.
#[async_trait]
pub trait Network: Send + Sync {
    /// Makes an association.
    async fn connect(&self, options: ConnectOptions) -> Result<Arc<dyn Association>, ConnectError>;

    /// Opens the export; what it gives serves until it is dropped.
    async fn listen(
        &self,
        port: u16,
        gate: Arc<dyn Gate>,
    ) -> anyhow::Result<BoxFuture<'static, io::Result<()>>>;
}

#[async_trait]
impl Association for RemoteDisk {
    async fn vendor_get(&self, opcode: u8, cdw10: u32, length: u32) -> Result<Bytes, DiskError> {
        self.vendor_get(opcode, cdw10, length).await
    }

    async fn vendor_put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), DiskError> {
        self.vendor_put(opcode, cdw10, data).await
    }

    async fn disconnect(&self) {
        self.disconnect().await;
    }

    fn abandon(&self) {
        self.abandon();
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        self.closed().boxed()
    }

    fn fell_silent(&self) -> bool {
        self.fell_silent()
    }

    fn local(&self) -> SocketAddr {
        self.local()
    }

    fn subsystem(&self) -> &str {
        self.subsystem()
    }
}

/// NVMe/TCP over the sockets of this machine.
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, options: ConnectOptions) -> Result<Arc<dyn Association>, ConnectError> {
        Ok(Arc::new(RemoteDisk::connect(options).await?))
    }

    async fn listen(
        &self,
        port: u16,
        gate: Arc<dyn Gate>,
    ) -> anyhow::Result<BoxFuture<'static, io::Result<()>>> {
        let listener = listen(port).await?;
        Ok(weft_transport::serve(listener, gate, Limits::default()).boxed())
    }
}

/// On all addresses, of both families where there are two.
pub(crate) async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("cannot listen on port {port}")),
    }
}
