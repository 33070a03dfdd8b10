//! Adaptive polling, in a process of its own: target and initiator spin on one thread, serve each
//! other all the same, and the thread sleeps when nothing comes.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on may as well say where"
)]

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, MemoryDisk, Write};
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Events, Export, Gate, Limits, Refusal, RemoteDisk,
    polling, serve,
};

const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:test";
const PATIENCE: Duration = Duration::from_micros(500);

struct Open(Arc<MemoryDisk>);

#[async_trait]
impl Gate for Open {
    async fn connect(&self, _request: ConnectRequest) -> Result<Admission, Refusal> {
        Ok(Admission {
            export: Export {
                disk: self.0.clone(),
                uuid: Uuid::from_u128(1),
                serial: "polling".to_owned(),
                first_controller: 1,
                read_only: false,
                events: Events::new(),
                vendor: None,
            },
            revoke: CancellationToken::new(),
            ended: Box::new(()),
        })
    }
}

/// Many lanes, each of which reads what it wrote beyond `base`, where nobody else writes: sizes in a
/// capsule, after R2T, and of many PDUs.
async fn exercise(disk: &dyn Disk, base: u64) {
    join_all((0..48u64).map(async |lane| {
        for (round, blocks) in [1u64, 2, 3, 32, 1, 70].into_iter().enumerate() {
            let offset = base + (lane * 80 + round as u64) * 4096;
            let fill = (lane * 6 + round as u64 + 1) as u8;
            let data = Bytes::from(vec![fill; (blocks * 4096) as usize]);
            disk.write(offset, data.clone(), Write::Cached)
                .await
                .unwrap();
            let mut into = BytesMut::zeroed(data.len());
            disk.read(offset, &mut into).await.unwrap();
            assert!(into == data, "lane {lane} round {round}");
        }
    }))
    .await;
}

/// How long this thread has run: sched(7), schedstat, in nanoseconds.
fn thread_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

/// Waits until the thread runs for less than half of the time.
async fn sleeps() {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let (ran, began) = (thread_time(), Instant::now());
        tokio::time::sleep(Duration::from_millis(50)).await;
        if thread_time() - ran < began.elapsed() / 2 {
            return;
        }
        assert!(Instant::now() < until, "the thread spins without end");
    }
}

async fn connect(address: std::net::SocketAddr, digests: bool) -> RemoteDisk {
    let id = Uuid::new_v4();
    let host = format!("nqn.2014-08.org.nvmexpress:uuid:{id}");
    let mut options = ConnectOptions::new(address, SUBSYSTEM, host, id);
    options.header_digest = digests;
    options.data_digest = digests;
    RemoteDisk::connect(options).await.unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn a_process_that_spins_serves_and_sleeps_when_nothing_comes() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(Open(Arc::new(MemoryDisk::new(32 << 20))));
    let target = tokio::spawn(serve(listener, gate, Limits::default()));

    polling::set(PATIENCE);
    let (plain, checked) = (connect(address, false).await, connect(address, true).await);
    exercise(&plain, 0).await;
    sleeps().await;
    // More connections than ask for themselves at a time.
    tokio::join!(exercise(&plain, 0), exercise(&checked, 16 << 20));
    sleeps().await;

    polling::set(Duration::ZERO);
    exercise(&checked, 0).await;
    sleeps().await;
    plain.disconnect().await;
    exercise(&checked, 0).await;
    target.abort();
}
