//! Wrong bytes at live targets: the connection that brought them ends, no other one notices.

use rustix::process::Pid;
use std::net::SocketAddr;
use weft_e2e_local::host::Host;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::usage::Usage;
use weft_e2e_local::wire::{Wire, icreq, pdu};

/// PDU types (NVMe/TCP 1.0 section 3.6).
const ICREQ: u8 = 0x00;
const H2C_TERM: u8 = 0x02;
const C2H_TERM: u8 = 0x03;
const CAPSULE: u8 = 0x04;
const H2C_DATA: u8 = 0x06;

/// Rounds of all insults, after as many, in which a target may not grow.
const ROUNDS: usize = 60;
/// What a process may grow meanwhile, KiB: less than 200 bytes for each insult.
const GROWTH: u64 = 512;

/// Wrong bytes, and how the target ends the connection.
struct Wrong {
    name: &'static str,
    bytes: Vec<u8>,
    /// FES and FEI of its C2HTermReq (section 3.6.2.4, figure 28); `None`: it only closes.
    told: Option<(u16, u32)>,
}

fn wrong(name: &'static str, told: impl Into<Option<(u16, u32)>>, bytes: Vec<u8>) -> Wrong {
    let told = told.into();
    Wrong { name, bytes, told }
}

/// Fatal Error Status values.
const FIELD: u16 = 0x01;
const SEQUENCE: u16 = 0x02;
const HEADER_DIGEST: u16 = 0x03;
const UNSUPPORTED: u16 = 0x06;
/// Offsets of the fields of a common header.
const TYPE: u32 = 0;
const HLEN: u32 = 2;
const PDO: u32 = 3;
const PLEN: u32 = 4;

/// What is sent in place of an ICReq.
fn wrong_at_first() -> Vec<Wrong> {
    let noise = (0..4096u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8);
    let ic = |hlen, plen| pdu(ICREQ, 0, hlen, 0, plen, &[0; 120]);
    vec![
        wrong("nothing at all", None, vec![]),
        wrong("half a common header", None, vec![ICREQ, 0, 128]),
        wrong("a cut ICReq", None, icreq()[..60].to_vec()),
        wrong("ICReq with a wrong hlen", (FIELD, HLEN), ic(24, 128)),
        wrong("ICReq of 4 GiB", (FIELD, PLEN), ic(128, u32::MAX)),
        wrong(
            "ICReq of length 0",
            (FIELD, PLEN),
            pdu(ICREQ, 0, 128, 0, 0, &[]),
        ),
        wrong(
            "ICReq of another format",
            (UNSUPPORTED, 8),
            pdu(ICREQ, 0, 128, 0, 128, &[0xFF; 120]),
        ),
        wrong(
            "a command before ICReq",
            (SEQUENCE, 0),
            pdu(CAPSULE, 0, 72, 0, 72, &[0; 64]),
        ),
        wrong(
            "an unknown PDU type",
            (FIELD, TYPE),
            pdu(0x7F, 0, 128, 0, 128, &[0; 120]),
        ),
        // It begins with a zero, as an ICReq does.
        wrong("garbage", (FIELD, HLEN), noise.collect()),
        wrong(
            "HTTP",
            (FIELD, TYPE),
            b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n".to_vec(),
        ),
    ]
}

/// What is sent behind a right ICReq.
fn wrong_later() -> Vec<Wrong> {
    let capsule = |hlen, pdo, plen, rest: &[u8]| pdu(CAPSULE, 0, hlen, pdo, plen, rest);
    vec![
        wrong("a second ICReq", (SEQUENCE, 0), icreq()),
        wrong(
            "a capsule of 4 GiB",
            (FIELD, PLEN),
            capsule(72, 0, u32::MAX, &[0; 64]),
        ),
        wrong(
            "a capsule shorter than its header",
            (FIELD, PLEN),
            capsule(72, 0, 40, &[0; 64]),
        ),
        wrong(
            "a capsule with a wrong hlen",
            (FIELD, HLEN),
            capsule(255, 0, 72, &[0; 64]),
        ),
        wrong(
            "a capsule with data beyond its end",
            (FIELD, PDO),
            capsule(72, 250, 100, &[0; 92]),
        ),
        wrong("a cut capsule", None, capsule(72, 0, 72, &[0; 10])),
        wrong(
            // Without a command none of it fits.
            "data that nobody asked for",
            (FIELD, PLEN),
            pdu(H2C_DATA, 0, 24, 24, 4096 + 24, &[7; 4096 + 16]),
        ),
        wrong(
            "data of 4 GiB",
            (FIELD, PLEN),
            pdu(H2C_DATA, 0, 24, 24, u32::MAX, &[7; 64]),
        ),
        wrong(
            "a termination request",
            None,
            pdu(H2C_TERM, 0, 24, 0, 24, &[1; 16]),
        ),
        wrong(
            "a PDU that only a target sends",
            (SEQUENCE, 0),
            pdu(0x05, 0, 24, 0, 24, &[0; 16]),
        ),
        wrong(
            "a command before Connect",
            None,
            capsule(72, 0, 72, &[0x02; 64]),
        ),
        wrong("garbage", (FIELD, TYPE), vec![0xA7; 65536]),
    ]
}

/// An ICReq that asks for header digests, and a capsule whose digest is not that of its header.
fn wrong_digest() -> Wrong {
    let mut bytes = icreq();
    bytes[11] = 1;
    bytes.extend(pdu(CAPSULE, 1, 72, 0, 76, &[0; 64]));
    bytes.extend(0xDEAD_BEEF_u32.to_le_bytes());
    wrong("a wrong header digest", (HEADER_DIGEST, 0xDEAD_BEEF), bytes)
}

/// FES and FEI if the last PDU is a C2HTermReq.
fn termination(answer: &[u8]) -> Option<(u16, u32)> {
    let mut rest = answer;
    loop {
        let length = u32::from_le_bytes(rest.get(4..8)?.try_into().ok()?) as usize;
        if length >= rest.len() {
            break;
        }
        rest = rest.get(length..)?;
    }
    let fes = u16::from_le_bytes(rest.get(8..10)?.try_into().ok()?);
    let fei = u32::from_le_bytes(rest.get(10..14)?.try_into().ok()?);
    (rest[0] == C2H_TERM).then_some((fes, fei))
}

fn insult(address: SocketAddr, greeting: bool, wrong: &Wrong) {
    let Wrong { name, bytes, told } = wrong;
    let mut wire = Wire::connect(address).expect("the target listens");
    if greeting {
        wire.send(&icreq());
        let answer = wire.read(128).expect("an ICResp");
        assert_eq!(answer.first(), Some(&0x01), "{name}: ICResp");
    }
    wire.send(bytes);
    // What is cut must not wait for the rest for ever; what is wrong is known without it.
    wire.finish();
    let answer = wire
        .until_closed()
        .unwrap_or_else(|error| panic!("{name}: the target does not close: {error}"));
    assert_eq!(
        termination(&answer),
        *told,
        "{name}: FES and FEI; it sent {answer:02x?}"
    );
}

fn insult_all(address: SocketAddr) {
    for wrong in wrong_at_first() {
        insult(address, false, &wrong);
    }
    for wrong in wrong_later() {
        insult(address, true, &wrong);
    }
    insult(address, false, &wrong_digest());
}

/// KiB of each worker.
fn memory(of: [&Process; 2]) -> [u64; 2] {
    of.map(|process| {
        let worker = process.worker().expect("a worker");
        Usage::of(worker).expect("its usage").pss
    })
}

#[test]
fn wrong_pdus_at_engine_and_drive_leave_every_other_connection_alone() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        host.progress(200).await;
        let workers =
            |of: [&Process; 2]| of.map(|process| process.worker().map(Pid::as_raw_nonzero));
        let before = workers([&drive, &engine]);
        let mut state = host.disk.state();
        let connected = state.borrow_and_update().clone();
        assert!(connected.connected);

        let addresses = [setup.engine_address(1), setup.drive_address()];
        let namespace = rustix::fs::open(
            "/proc/thread-self/ns/net",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
        .expect("this thread has a network");
        let namespace = std::sync::Arc::new(namespace);
        // The load goes on here while another thread of the same network sends.
        let insults = |rounds: usize| {
            let namespace = namespace.clone();
            tokio::task::spawn_blocking(move || {
                use rustix::fd::AsFd;
                use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("root may");
                for _ in 0..rounds {
                    addresses.into_iter().for_each(insult_all);
                }
            })
        };
        let told = "every wrong PDU ends its own connection, and says why";
        // As many before: by then the caches of the load are full.
        insults(ROUNDS).await.expect(told);
        let small = memory([&drive, &engine]);
        insults(ROUNDS).await.expect(told);
        let large = memory([&drive, &engine]);
        println!("{small:?} KiB before {ROUNDS} rounds, {large:?} KiB after");
        let flat = small
            .iter()
            .zip(large)
            .all(|(small, large)| large <= small + GROWTH);
        assert!(flat, "memory grew from {small:?} to {large:?} KiB");
        host.progress(200).await;
        assert!(
            !state.has_changed().expect("the disk lives"),
            "the host lost its association"
        );
        assert_eq!(workers([&drive, &engine]), before, "no process died");
        host.finish()
            .await
            .expect("no request failed and no byte is wrong");
    });
}
