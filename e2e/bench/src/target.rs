//! The measured process: Weft's own target around a disk that costs little, or around a file.

use anyhow::Context;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, DiskError, FileMedium, Io, MemoryDisk, Stamp, ThreadedDisk, Write};
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Export, Gate, Limits, ReconnectingDisk, Refusal,
    RemoteDisk, polling, serve,
};

/// Name of the only subsystem.
pub const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:bench";
/// Bytes of every disk but a file.
pub const SIZE: u64 = 256 << 20;
/// As many threads as the drive has for its medium.
const IO_THREADS: usize = 16;

/// What is served.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Backing {
    /// Reads give what is in memory, writes are forgotten.
    Null,
    /// A disk in memory.
    Memory,
    /// A file, with O_DIRECT.
    File {
        /// There already.
        path: PathBuf,
        /// auto, plain or io_uring.
        #[arg(long, default_value = "auto")]
        io: Io,
    },
    /// Another such process: two hops.
    Relay {
        /// Of that.
        address: SocketAddr,
    },
}

/// Serves until killed; prints its address first.
pub fn run(backing: &Backing, poll: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(IO_THREADS)
        .build()?;
    runtime.block_on(async {
        polling::set(poll);
        let disk = open(backing).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        serve(listener, Arc::new(OpenGate(disk)), Limits::default()).await?;
        Ok(())
    })
}

async fn open(backing: &Backing) -> anyhow::Result<Arc<dyn Disk>> {
    Ok(match backing {
        Backing::Null => Arc::new(NullDisk),
        Backing::Memory => Arc::new(MemoryDisk::new(SIZE)),
        Backing::File { path, io } => {
            let medium = FileMedium::open_file(path, SIZE, *io, || ())?;
            Arc::new(ThreadedDisk::new(Arc::new(medium)))
        }
        Backing::Relay { address } => {
            let options = options(*address);
            let remote = RemoteDisk::connect(options.clone()).await;
            ReconnectingDisk::start(options, Some(remote.context("the second hop")?))
        }
    })
}

/// How this program connects.
pub fn options(address: SocketAddr) -> ConnectOptions {
    let id = Uuid::new_v4();
    let host = format!("nqn.2014-08.org.nvmexpress:uuid:{id}");
    ConnectOptions {
        // A connection that is not measured is not looked after.
        keep_alive_ms: 0,
        ..ConnectOptions::new(address, SUBSYSTEM, host, id)
    }
}

struct OpenGate(Arc<dyn Disk>);

#[async_trait]
impl Gate for OpenGate {
    async fn connect(&self, _request: ConnectRequest) -> Result<Admission, Refusal> {
        Ok(Admission {
            export: Export {
                disk: self.0.clone(),
                uuid: Uuid::from_u128(0xbe9c),
                serial: "bench".to_owned(),
                first_controller: 1,
                read_only: false,
                events: weft_transport::Events::new(),
                vendor: None,
            },
            revoke: CancellationToken::new(),
            ended: Box::new(()),
        })
    }
}

struct NullDisk;

#[async_trait]
impl Disk for NullDisk {
    fn size(&self) -> u64 {
        SIZE
    }
    async fn read(&self, _offset: u64, _into: &mut BytesMut) -> Result<(), DiskError> {
        Ok(())
    }
    async fn write_stamped(
        &self,
        _offset: u64,
        _data: Bytes,
        _mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        Ok(())
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn write_zeroes_stamped(
        &self,
        _offset: u64,
        _length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        Ok(())
    }
    async fn discard_stamped(&self, _offset: u64, _length: u64, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
}
