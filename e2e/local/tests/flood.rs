//! Ten thousand connections that never say who they are, while a host works.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpSocket, TcpStream};
use weft_block::Disk;
use weft_e2e_local::host::attach;
use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::{Setup, VOLUME_SIZE};
use weft_e2e_local::usage::Usage;
use weft_e2e_local::wire::icreq;
use weft_transport::ReconnectingDisk;

/// Half of them send nothing, the others one byte or a greeting.
const CONNECTIONS: u32 = 10_000;
/// Windows with and without the flood follow each other.
const WINDOWS: u32 = 10;
const WINDOW: Duration = Duration::from_secs(2);
/// The test opens them on the cores that the host works on: slowly, so that its own work is not
/// what is measured.
const FLOOD: Duration = Duration::from_secs(5);
/// Commands of the host at a time.
const DEPTH: usize = 32;
const BLOCK: usize = 4096;
/// What the engine may grow, KiB: 64 half-open connections of some 16 KiB, what the host's own
/// connection keeps for its payloads (512), and as much again. A KiB for each of the flood is more.
const GROWTH: u64 = 2048;

#[test]
fn a_flood_of_half_open_connections_leaves_an_attached_host_its_throughput() {
    namespace::enter();
    raise_descriptors();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let disk = attach(setup.host_options(1)).await;
        let mut state = disk.state();
        state.mark_unchanged();
        let done = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicBool::new(false));
        let workers: Vec<_> = (0..DEPTH)
            .map(|n| tokio::spawn(work(disk.clone(), n, done.clone(), ended.clone())))
            .collect();
        let worker = engine.worker().expect("an engine");
        let before = Usage::of(worker).expect("its usage");
        let mut ratios = vec![];
        let mut held = VecDeque::new();
        for window in 0..WINDOWS {
            let quiet = during(&done, tokio::time::sleep(WINDOW)).await;
            let flood = flood(setup.engine_address(1), window, &mut held);
            ratios.push(during(&done, flood).await / quiet);
        }
        let after = Usage::of(worker).expect("its usage");
        ended.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.await.expect("the host met no error");
        }
        // What else the machine does in one window says nothing.
        ratios.sort_by(f64::total_cmp);
        let ratio = ratios[ratios.len() / 2];
        println!(
            "{} connections held: {:.1} % of the throughput without, {:.1} to {:.1} in {WINDOWS} windows; PSS {} KiB before, {} KiB after",
            held.len(),
            ratio * 100.0,
            ratios[0] * 100.0,
            ratios[ratios.len() - 1] * 100.0,
            before.pss,
            after.pss
        );
        assert_eq!(held.len(), CONNECTIONS as usize);
        let changed = state.has_changed().expect("the disk lives");
        assert!(!changed, "the attached host lost its association");
        assert!(ratio >= 0.9, "only {:.1} % of the throughput", ratio * 100.0);
        assert!(
            after.pss <= before.pss + GROWTH,
            "memory grew from {} to {} KiB",
            before.pss,
            after.pss
        );
        // Whoever has something to say is still let in.
        drop(attach(setup.host_options(1)).await);
    });
}

fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: Some(u64::from(CONNECTIONS) + 500),
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, wanted).expect("descriptors for all connections");
}

async fn work(
    disk: Arc<ReconnectingDisk>,
    seed: usize,
    done: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
) {
    let mut block = seed as u64;
    let mut buffer = BytesMut::zeroed(BLOCK);
    while !ended.load(Ordering::Relaxed) {
        block = (block + 7919) % (VOLUME_SIZE / BLOCK as u64);
        disk.read(block * BLOCK as u64, &mut buffer)
            .await
            .expect("a read");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Reads done per second meanwhile.
async fn during(done: &AtomicU64, meanwhile: impl Future<Output = ()>) -> f64 {
    let (before, began) = (done.load(Ordering::Relaxed), Instant::now());
    meanwhile.await;
    let reads = done.load(Ordering::Relaxed) - before;
    reads as f64 / began.elapsed().as_secs_f64()
}

/// Opens its part of the connections at a steady rate, from many addresses, and holds them.
async fn flood(target: SocketAddr, window: u32, held: &mut VecDeque<std::net::TcpStream>) {
    let count = CONNECTIONS / WINDOWS;
    let mut tick = tokio::time::interval(FLOOD / count);
    for number in 0..count {
        tick.tick().await;
        let stream = open(target, window * count + number).await;
        held.push_back(stream);
    }
}

async fn open(target: SocketAddr, number: u32) -> std::net::TcpStream {
    let [_, _, high, low] = (number % 250 + 1).to_be_bytes();
    let socket = TcpSocket::new_v4().expect("a socket");
    let source = Ipv4Addr::new(127, 1, high, low);
    socket
        .bind(SocketAddrV4::new(source, 0).into())
        .expect("an address of loopback");
    let stream: TcpStream = socket.connect(target).await.expect("a connection");
    let mut stream = stream.into_std().expect("a socket");
    // The target may have closed it already: that is its right.
    let _closed = match number % 4 {
        0 => stream.write(&icreq()),
        1 => stream.write(&[0]),
        _ => Ok(0),
    };
    stream
}
