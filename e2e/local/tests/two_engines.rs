//! Two live engines of one volume: the drive listens to the newer one, and to nobody else.

use bytes::{Bytes, BytesMut};
use rustix::process::Signal;
use std::net::SocketAddr;
use weft_block::{Disk, Write};
use weft_e2e_local::host::Host;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role, exit_code};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::wait::{until, until_async, within};
use weft_spec::drive::{VENDOR_INSPECT, VENDOR_PUT_GENERATION};
use weft_spec::ids::{Boot, FencePair, Term};
use weft_transport::initiator::{ConnectError, ConnectOptions, RemoteDisk};

#[test]
fn an_engine_of_a_newer_term_takes_over_and_the_older_one_parks() {
    namespace::enter();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let older = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        host.progress(200).await;
        let newer = setup.start_engine(2, Role::Supervised);
        // Its supervisor lives and starts nothing any more.
        until_async("the older engine is parked", || {
            let parked = older.log().contains("parked") && older.worker().is_none();
            (parked && older.first().is_some()).then_some(())
        })
        .await;
        let stood = host.done();
        host.disk.set_address(setup.engine_address(2));
        host.progress(200).await;
        assert!(host.done() > stood);
        assert!(newer.worker().is_some());
        host.finish()
            .await
            .expect("no request failed and no byte is wrong");
    });
}

#[test]
fn at_the_drive_every_command_of_an_older_pair_is_refused_reads_included() {
    namespace::enter();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    namespace::runtime().block_on(async {
        let older = connect(&setup, 1, 1)
            .await
            .expect("the first pair is admitted");
        let data = Bytes::from(vec![1u8; 65536]);
        older
            .write(0, data.clone(), Write::Durable)
            .await
            .expect("its write is taken");

        for (term, boot) in [(1, 2), (2, 1)] {
            let newer = connect(&setup, term, boot)
                .await
                .expect("a higher pair is admitted");
            refused(&older).await;
            for (term, boot) in [(1, 1), (0, 9)] {
                match connect(&setup, term, boot).await {
                    Err(error) => assert!(error.is_invalid_host(), "{term}.{boot}: {error}"),
                    Ok(_) => panic!("{term}.{boot} came in"),
                }
            }
            let mut back = BytesMut::zeroed(65536);
            newer
                .read(0, &mut back)
                .await
                .expect("the newer pair reads");
            assert!(back == data, "nothing of the older pair got through");
            newer.flush().await.expect("the newer pair flushes");
        }
    });
}

/// Every opcode that a host may send, on a connection that lived when the newer pair came.
async fn refused(older: &RemoteDisk) {
    let data = Bytes::from(vec![0xEE; 65536]);
    let mut into = BytesMut::zeroed(65536);
    assert!(older.read(0, &mut into).await.is_err(), "read");
    assert!(
        older.write(0, data.clone(), Write::Cached).await.is_err(),
        "write"
    );
    assert!(
        older.write(0, data, Write::Durable).await.is_err(),
        "write with FUA"
    );
    assert!(older.flush().await.is_err(), "flush");
    assert!(older.write_zeroes(0, 65536).await.is_err(), "write zeroes");
    assert!(older.discard(0, 65536).await.is_err(), "discard");
    assert!(
        older.vendor_get(VENDOR_INSPECT, 0, 4096).await.is_err(),
        "inspect"
    );
    let mark = Bytes::from_static(b"{\"generation\":99}");
    assert!(
        older
            .vendor_put(VENDOR_PUT_GENERATION, 0, mark)
            .await
            .is_err(),
        "put generation"
    );
}

async fn connect(setup: &Setup, term: u64, boot: u64) -> Result<RemoteDisk, ConnectError> {
    let fence = FencePair {
        term: Term(term),
        boot: Boot(boot),
    };
    let (subsystem, host) = setup.engine_at_drive(fence);
    let address: SocketAddr = setup.drive_address();
    let options = ConnectOptions::new(address, subsystem, host.expose(), host.host_id());
    let trying = async {
        loop {
            match RemoteDisk::connect(options.clone()).await {
                // Not there yet.
                Err(error) if error.retryable() => tokio::task::yield_now().await,
                other => return other,
            }
        }
    };
    within("an answer of the drive", trying).await
}

/// Both processes inspect before either has connected, and so may choose the same pair. The drive
/// tells them apart by their host identifiers: one must lose, and park.
#[test]
fn two_processes_of_one_term_that_start_together_never_share_a_pair() {
    namespace::enter();
    let setup = Setup::new();
    let mut drive = setup.start_drive(Role::Direct);
    until("the drive listens", || {
        std::net::TcpStream::connect(setup.drive_address()).ok()
    });
    drive.signal_worker(Signal::STOP);
    let mut engines: Vec<Process> = (0..2u16)
        .map(|n| {
            let mut document = setup.engine_document(1);
            document.port += n;
            let path = setup.write(&format!("twin-{n}.json"), &document);
            Process::start("weft-engine", Role::Direct, &path)
        })
        .collect();
    // Connections queue up at the stopped drive, so that both inspections are answered together.
    until("both have asked", || {
        (connections_to(setup.drive_address()) >= 2).then_some(())
    });
    drive.signal_worker(Signal::CONT);
    let parked = until("one has parked", || {
        engines.iter_mut().position(Process::ended)
    });
    assert_eq!(
        exit_code(engines[parked].end()),
        78,
        "{}",
        engines[parked].log()
    );
    assert!(
        !engines[1 - parked].ended(),
        "{}",
        engines[1 - parked].log()
    );
    assert!(!drive.ended(), "{}", drive.log());
    let log = drive.log();
    let admitted = log.lines().filter(|line| line.contains("engine admitted"));
    let first = admitted.filter(|line| {
        line.split("pair")
            .nth(1)
            .is_some_and(|rest| rest.contains("1.1"))
    });
    assert_eq!(
        first.count(),
        1,
        "the pair 1.1 belongs to one process:\n{log}"
    );
}

/// Established connections of this network to an address, as its own end sees them.
fn connections_to(address: SocketAddr) -> usize {
    let remote = format!(":{:04X}", address.port());
    let table =
        std::fs::read_to_string("/proc/thread-self/net/tcp").expect("a process has a network");
    let rows = table
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| {
        row.get(2).is_some_and(|at| at.ends_with(&remote)) && row.get(3) == Some(&"01")
    })
    .count()
}
