//! A target with a gate that keeps what tests look at.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, DiskError, MemoryDisk, Stamp, Write};
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Discovery, DiscoveryRecord, Events, Export, Gate,
    Limits, Refusal, Vendor, VendorError, serve,
};

pub const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:test";
pub const SIZE: u64 = 64 << 20;
pub const VOLUME: Uuid = Uuid::from_u128(0x77656674);

/// Admits everyone but the host `stranger`, and keeps what is needed to revoke.
pub struct OpenGate {
    disk: Arc<dyn Disk>,
    pub uuid: Uuid,
    pub events: Events,
    /// Hosts that discovery tells of this address, and how often that changed.
    pub directory: Directory,
    revoke: Mutex<Vec<CancellationToken>>,
    live: Arc<AtomicU32>,
    read_only: bool,
}

impl OpenGate {
    /// Associations that have not ended.
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::SeqCst)
    }

    /// Ends all associations.
    pub fn revoke(&self) {
        let tokens = std::mem::take(&mut *self.revoke.lock().unwrap());
        tokens.iter().for_each(CancellationToken::cancel);
    }
}

struct Live(Arc<AtomicU32>);
impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Echo;
#[async_trait]
impl Vendor for Echo {
    async fn put(&self, opcode: u8, _cdw10: u32, data: Bytes) -> Result<(), VendorError> {
        if opcode == 0xc1 && data == "put" {
            Ok(())
        } else {
            Err(VendorError::InvalidField)
        }
    }
    async fn get(&self, opcode: u8, cdw10: u32, _length: u32) -> Result<Bytes, VendorError> {
        match opcode {
            0xc2 => Ok(Bytes::from(format!("got {cdw10}"))),
            0xc6 => Err(VendorError::Fenced),
            _ => Err(VendorError::InvalidOpcode),
        }
    }
}

#[async_trait]
impl Gate for OpenGate {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        if request.subsystem != SUBSYSTEM {
            return Err(Refusal::UnknownSubsystem);
        }
        match request.host.as_str() {
            "stranger" => return Err(Refusal::InvalidHost),
            "early" => return Err(Refusal::Busy),
            _ => {}
        }
        let revoke = CancellationToken::new();
        self.revoke.lock().unwrap().push(revoke.clone());
        self.live.fetch_add(1, Ordering::SeqCst);
        Ok(Admission {
            export: Export {
                disk: self.disk.clone(),
                uuid: self.uuid,
                serial: "0123456789".to_owned(),
                first_controller: 17,
                read_only: self.read_only,
                events: self.events.clone(),
                vendor: Some(Arc::new(Echo)),
            },
            revoke,
            ended: Box::new(Live(self.live.clone())),
        })
    }

    fn discovery(&self) -> Option<Arc<dyn Discovery>> {
        let shown: Arc<dyn Discovery> = Arc::new(self.directory.clone());
        Some(shown).filter(|_| self.directory.is_open)
    }
}

/// Tells everyone but strangers of the test's subsystem.
#[derive(Clone)]
pub struct Directory {
    pub is_open: bool,
    pub generation: Arc<watch::Sender<u64>>,
    /// So many of the next readings meet a change.
    pub restless: Arc<AtomicU32>,
}

impl Discovery for Directory {
    fn records(&self, host: &str, local: SocketAddr) -> Vec<DiscoveryRecord> {
        let restless = |left: u32| left.checked_sub(1);
        let order = Ordering::SeqCst;
        if self.restless.fetch_update(order, order, restless).is_ok() {
            self.generation.send_modify(|generation| *generation += 1);
        }
        let record = DiscoveryRecord {
            subsystem: SUBSYSTEM.to_owned(),
            address: local,
        };
        Vec::from_iter((host != "stranger").then_some(record))
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

pub struct Target {
    pub address: SocketAddr,
    pub gate: Arc<OpenGate>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Target {
    pub async fn start(disk: Arc<dyn Disk>) -> Self {
        Self::start_with(disk, |_, _| {}).await
    }

    pub async fn start_with(
        disk: Arc<dyn Disk>,
        change: impl FnOnce(&mut OpenGate, &mut Limits),
    ) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), disk, change).await
    }

    pub async fn start_at(
        address: SocketAddr,
        disk: Arc<dyn Disk>,
        change: impl FnOnce(&mut OpenGate, &mut Limits),
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut gate = OpenGate {
            disk,
            uuid: VOLUME,
            events: Events::new(),
            directory: Directory {
                is_open: true,
                generation: Arc::new(watch::Sender::new(1)),
                restless: Arc::default(),
            },
            revoke: Mutex::default(),
            live: Arc::default(),
            read_only: false,
        };
        let mut limits = Limits::default();
        change(&mut gate, &mut limits);
        let gate = Arc::new(gate);
        let task = tokio::spawn(serve(listener, gate.clone(), limits));
        Self {
            address,
            gate,
            task,
        }
    }

    pub fn options(&self) -> ConnectOptions {
        ConnectOptions::new(self.address, SUBSYSTEM, "host", Uuid::new_v4())
    }

    /// Ends it at once, with everything it holds; its address is free afterwards.
    pub async fn kill(mut self) {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
    }

    /// Waits until all associations have ended.
    pub async fn all_ended(&self) {
        until("the association ended", || self.gate.live() == 0).await;
    }
}

impl OpenGate {
    pub fn set_read_only(&mut self) {
        self.read_only = true;
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn memory() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new(SIZE))
}

/// A disk whose writes wait until they are let through.
pub struct Held {
    disk: MemoryDisk,
    pub arrived: AtomicU32,
    pub pass: Semaphore,
}

impl Held {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            disk: MemoryDisk::new(SIZE),
            arrived: AtomicU32::new(0),
            pass: Semaphore::new(0),
        })
    }

    /// Waits for that many writes in flight.
    pub async fn holds(&self, writes: u32) {
        until("writes have arrived", || {
            self.arrived.load(Ordering::SeqCst) == writes
        })
        .await;
    }
}

#[async_trait]
impl Disk for Held {
    fn size(&self) -> u64 {
        SIZE
    }
    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.disk.read(offset, into).await
    }
    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        self.pass.acquire().await.unwrap().forget();
        self.disk.write(offset, data, mode).await
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        self.disk.flush().await
    }
    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length).await
    }
    async fn discard_stamped(&self, offset: u64, length: u64, _: Stamp) -> Result<(), DiskError> {
        self.disk.discard(offset, length).await
    }
}

pub fn pattern(seed: u64, length: usize) -> Bytes {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

pub async fn read(disk: &dyn Disk, offset: u64, length: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(length);
    disk.read(offset, &mut buffer).await.unwrap();
    buffer
}

pub async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .unwrap_or_else(|_| panic!("not so: {what}"));
}
