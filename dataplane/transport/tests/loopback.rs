//! Target and initiator over loopback, with a disk in memory.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, ErrorKind, MemoryDisk, Write};
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Export, Gate, Limits, ReconnectingDisk, Refusal,
    RemoteDisk, Vendor, VendorError, serve,
};

const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:test";
const SIZE: u64 = 64 << 20;

/// Admits everyone but the host `stranger`, and keeps what is needed to revoke.
struct OpenGate {
    disk: Arc<dyn Disk>,
    uuid: Uuid,
    revoke: Mutex<Vec<CancellationToken>>,
    live: Arc<AtomicU32>,
    read_only: bool,
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
        if request.host == "stranger" {
            return Err(Refusal::InvalidHost);
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
                vendor: Some(Arc::new(Echo)),
            },
            revoke,
            ended: Box::new(Live(self.live.clone())),
        })
    }
}

struct Target {
    address: SocketAddr,
    gate: Arc<OpenGate>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Target {
    async fn start(disk: Arc<dyn Disk>, read_only: bool) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), disk, read_only).await
    }

    async fn start_at(address: SocketAddr, disk: Arc<dyn Disk>, read_only: bool) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (revoke, live) = (Mutex::default(), Arc::default());
        let gate = Arc::new(OpenGate {
            disk,
            uuid: Uuid::new_v4(),
            revoke,
            live,
            read_only,
        });
        let task = tokio::spawn(serve(listener, gate.clone(), Limits::default()));
        Self {
            address,
            gate,
            task,
        }
    }

    fn options(&self) -> ConnectOptions {
        ConnectOptions::new(self.address, SUBSYSTEM, "host", Uuid::new_v4())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn memory() -> Arc<dyn Disk> {
    Arc::new(MemoryDisk::new(SIZE))
}

fn pattern(seed: u64, length: usize) -> Bytes {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

async fn read(disk: &dyn Disk, offset: u64, length: usize) -> BytesMut {
    let mut buffer = BytesMut::zeroed(length);
    disk.read(offset, &mut buffer).await.unwrap();
    buffer
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let wait = async {
        while !check() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait)
        .await
        .unwrap_or_else(|_| panic!("not so: {what}"));
}

async fn every_command(header_digest: bool, data_digest: bool) {
    let target = Target::start(memory(), false).await;
    let options = ConnectOptions {
        header_digest,
        data_digest,
        ..target.options()
    };
    let disk = RemoteDisk::connect(options).await.unwrap();
    assert_eq!((disk.size(), disk.subsystem()), (SIZE, SUBSYSTEM));
    assert_eq!(disk.namespace_uuid(), target.gate.uuid);
    // In the capsule, by R2T, in several H2CData, above MDTS.
    for (offset, length) in [
        (0, 4096),
        (8192, 8192),
        (65_536, 12_288),
        (1 << 20, 1 << 20),
        (4 << 20, 3 << 20),
    ] {
        let data = pattern(offset + 1, length);
        disk.write(offset, data.clone(), Write::Durable)
            .await
            .unwrap();
        assert_eq!(read(&disk, offset, length).await, data);
    }
    disk.flush().await.unwrap();
    disk.write_zeroes(8192, 4096).await.unwrap();
    assert_eq!(read(&disk, 8192, 4096).await, Bytes::from(vec![0; 4096]));
    disk.discard(1 << 20, 1 << 20).await.unwrap();
    assert_eq!(disk.vendor_get(0xc2, 7, 64).await.unwrap()[..5], *b"got 7");
    disk.vendor_put(0xc1, 0, Bytes::from_static(b"put"))
        .await
        .unwrap();
    assert_eq!(
        disk.vendor_get(0xc6, 0, 64).await.unwrap_err().kind(),
        ErrorKind::Fenced
    );
    disk.disconnect().await;
    until("the association ended", || {
        target.gate.live.load(Ordering::SeqCst) == 0
    })
    .await;
}

#[tokio::test]
async fn every_command_does_what_it_says_without_digests() {
    every_command(false, false).await;
}

#[tokio::test]
async fn every_command_does_what_it_says_with_either_digest_and_with_both() {
    every_command(true, false).await;
    every_command(false, true).await;
    every_command(true, true).await;
}

#[tokio::test]
async fn many_requests_at_a_time_do_not_mix_their_data() {
    let target = Target::start(memory(), false).await;
    let disk = Arc::new(RemoteDisk::connect(target.options()).await.unwrap());
    let work = (0..400u64).map(|n| {
        let disk = disk.clone();
        async move {
            let (offset, length) = (n * 131_072, 4096 << (n % 5));
            let data = pattern(n + 1, length);
            disk.write(offset, data.clone(), Write::Cached)
                .await
                .unwrap();
            assert_eq!(read(disk.as_ref(), offset, length).await, data);
        }
    });
    futures::future::join_all(work).await;
}

#[tokio::test]
async fn refusals_say_why() {
    let target = Target::start(memory(), false).await;
    let stranger = ConnectOptions {
        host: "stranger".to_owned(),
        ..target.options()
    };
    let error = RemoteDisk::connect(stranger).await.err().unwrap();
    assert!(error.is_invalid_host() && !error.retryable(), "{error}");
    let elsewhere = ConnectOptions {
        subsystem: "nqn.x".to_owned(),
        ..target.options()
    };
    let error = RemoteDisk::connect(elsewhere).await.err().unwrap();
    assert!(!error.is_invalid_host() && !error.retryable(), "{error}");
}

#[tokio::test]
async fn a_read_only_export_refuses_every_write() {
    let target = Target::start(memory(), true).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    let refused = |result: Result<(), weft_block::DiskError>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
    };
    refused(disk.write(0, pattern(1, 4096), Write::Cached).await);
    refused(disk.write_zeroes(0, 4096).await);
    refused(disk.discard(0, 4096).await);
    disk.flush().await.unwrap();
    assert_eq!(read(&disk, 0, 4096).await, Bytes::from(vec![0; 4096]));
}

#[tokio::test]
async fn a_request_beyond_the_end_is_out_of_range() {
    let target = Target::start(memory(), false).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    let mut buffer = BytesMut::zeroed(8192);
    let error = disk.read(SIZE - 4096, &mut buffer).await.unwrap_err();
    assert_eq!((error.kind(), buffer.len()), (ErrorKind::OutOfRange, 8192));
}

#[tokio::test]
async fn a_revoked_association_ends_and_its_initiator_hears_of_it() {
    let target = Target::start(memory(), false).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    target
        .gate
        .revoke
        .lock()
        .unwrap()
        .drain(..)
        .for_each(|token| token.cancel());
    disk.closed().await;
    until("the association ended", || {
        target.gate.live.load(Ordering::SeqCst) == 0
    })
    .await;
    assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn a_target_that_comes_and_goes_loses_no_acknowledged_write() {
    let disk = memory();
    let mut target = Target::start(disk.clone(), false).await;
    let address = target.address;
    let host = ReconnectingDisk::start(target.options(), None);
    let writer = tokio::spawn({
        let host = host.clone();
        async move {
            for n in 0..600u64 {
                let data = pattern(n + 1, 16_384);
                host.write(n * 16_384, data.clone(), Write::Cached)
                    .await
                    .unwrap();
                assert_eq!(read(host.as_ref(), n * 16_384, 16_384).await, data);
            }
        }
    });
    for _ in 0..5 {
        let mut state = host.state();
        state.wait_for(|state| state.connected).await.unwrap();
        drop(target);
        state.wait_for(|state| !state.connected).await.unwrap();
        target = Target::start_at(address, disk.clone(), false).await;
    }
    writer.await.unwrap();
    for n in 0..600u64 {
        assert_eq!(
            read(disk.as_ref(), n * 16_384, 16_384).await,
            pattern(n + 1, 16_384)
        );
    }
}

#[tokio::test]
async fn a_disk_follows_its_address_and_ends_when_stopped() {
    let disk = memory();
    let (first, second) = (
        Target::start(disk.clone(), false).await,
        Target::start(disk, false).await,
    );
    let host = ReconnectingDisk::start(first.options(), None);
    let mut state = host.state();
    state.wait_for(|state| state.connected).await.unwrap();
    host.set_address(second.address);
    state
        .wait_for(|s| s.connected && s.namespace_uuid == Some(second.gate.uuid))
        .await
        .unwrap();
    until("the first association ended", || {
        first.gate.live.load(Ordering::SeqCst) == 0
    })
    .await;
    host.stop().await;
    assert_eq!(host.flush().await.unwrap_err().kind(), ErrorKind::Gone);
}
