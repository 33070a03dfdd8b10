//! Wrong bytes at live targets: the connection that brought them ends, no other one notices.

use rustix::process::Pid;
use std::net::SocketAddr;
use weft_e2e_local::host::Host;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::wire::{Wire, icreq, pdu};

/// PDU types (NVMe/TCP 1.0 section 3.6).
const ICREQ: u8 = 0x00;
const H2C_TERM: u8 = 0x02;
const CAPSULE: u8 = 0x04;
const H2C_DATA: u8 = 0x06;

/// What is sent in place of an ICReq, and behind a right one.
fn wrong_at_first() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing at all", vec![]),
        ("half a common header", vec![ICREQ, 0, 128]),
        ("a cut ICReq", icreq()[..60].to_vec()),
        (
            "ICReq with a wrong hlen",
            pdu(ICREQ, 0, 24, 0, 128, &[0; 120]),
        ),
        ("ICReq of 4 GiB", pdu(ICREQ, 0, 128, 0, u32::MAX, &[0; 120])),
        ("ICReq of length 0", pdu(ICREQ, 0, 128, 0, 0, &[])),
        (
            "ICReq of another format",
            pdu(ICREQ, 0, 128, 0, 128, &[0xFF; 120]),
        ),
        (
            "a command before ICReq",
            pdu(CAPSULE, 0, 72, 0, 72, &[0; 64]),
        ),
        ("an unknown PDU type", pdu(0x7F, 0, 128, 0, 128, &[0; 120])),
        (
            "garbage",
            (0..4096u32)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: weft\r\n\r\n".to_vec()),
    ]
}

fn wrong_later() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("a second ICReq", icreq()),
        (
            "a capsule of 4 GiB",
            pdu(CAPSULE, 0, 72, 0, u32::MAX, &[0; 64]),
        ),
        (
            "a capsule shorter than its header",
            pdu(CAPSULE, 0, 72, 0, 40, &[0; 64]),
        ),
        (
            "a capsule with a wrong hlen",
            pdu(CAPSULE, 0, 255, 0, 72, &[0; 64]),
        ),
        (
            "a capsule with data beyond its end",
            pdu(CAPSULE, 0, 72, 250, 100, &[0; 92]),
        ),
        ("a cut capsule", pdu(CAPSULE, 0, 72, 0, 72, &[0; 10])),
        (
            "data that nobody asked for",
            pdu(H2C_DATA, 0, 24, 24, 4096 + 24, &[7; 4096 + 16]),
        ),
        (
            "data of 4 GiB",
            pdu(H2C_DATA, 0, 24, 24, u32::MAX, &[7; 64]),
        ),
        (
            "a termination request",
            pdu(H2C_TERM, 0, 24, 0, 24, &[1; 16]),
        ),
        (
            "a PDU that only a target sends",
            pdu(0x05, 0, 24, 0, 24, &[0; 16]),
        ),
        (
            "a command before Connect",
            pdu(CAPSULE, 0, 72, 0, 72, &[0x02; 64]),
        ),
        ("garbage", vec![0xA7; 65536]),
    ]
}

fn insult(name: &str, address: SocketAddr, greeting: bool, bytes: &[u8]) {
    let mut wire = Wire::connect(address).expect("the target listens");
    if greeting {
        wire.send(&icreq());
        let answer = wire.read(128).expect("an ICResp");
        assert_eq!(answer.first(), Some(&0x01), "{name}: ICResp");
    }
    wire.send(bytes);
    // What is cut must not wait for the rest for ever; what is wrong is known without it.
    wire.finish();
    wire.until_closed()
        .unwrap_or_else(|error| panic!("{name}: the target does not close: {error}"));
}

fn insult_all(address: SocketAddr) {
    for (name, bytes) in wrong_at_first() {
        insult(name, address, false, &bytes);
    }
    for (name, bytes) in wrong_later() {
        insult(name, address, true, &bytes);
    }
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
        // The load goes on here while another thread of the same network sends.
        let insults = tokio::task::spawn_blocking(move || {
            use rustix::fd::AsFd;
            use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("root may");
            for address in addresses {
                insult_all(address);
            }
        });
        insults
            .await
            .expect("every wrong PDU ends its own connection");
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
