//! Weft's initiator meets the kernel's own target.

use bytes::Bytes;
use futures::poll;
use std::net::SocketAddr;
use std::pin::pin;
use uuid::Uuid;
use weft_block::{Disk, Write};
use weft_e2e_local::namespace;
use weft_e2e_local::wait::{until_async, within};
use weft_transport::{AnaState, ConnectOptions, DiscoveryRecord, discover};

use crate::host::tap;
use crate::nvmet::{ADDRESS, Load, Nvmet, SIZE, name, options};
use crate::proxy::{Part, Proxy, Spoil};

/// Requests that show that it works.
const SOME: u64 = 100;

/// What the target says of each command that it refuses while a namespace is away.
const REFUSES: &str = "nvmet_tcp: failed cmd";

fn there() -> SocketAddr {
    ADDRESS.parse().expect("an address")
}

/// Through a wire of the test's own.
fn through(proxy: &Proxy) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], proxy.address.port()))
}

fn start(subsystems: u32) -> Nvmet {
    namespace::enter();
    tap();
    Nvmet::start(subsystems)
}

#[test]
fn it_discovers_what_its_host_may_use_and_nothing_else() {
    let mut nvmet = start(2);
    namespace::runtime().block_on(async {
        let host = options(there(), 1);
        let mut found = discover(there(), &host.host, host.host_id)
            .await
            .expect("a log");
        found.sort_by(|a, b| a.subsystem.cmp(&b.subsystem));
        let record = |n| DiscoveryRecord {
            subsystem: name(n),
            address: there(),
        };
        assert_eq!(found, [record(1), record(2)]);
        let stranger = discover(there(), "nqn.2026-11.storage.weft:stranger", Uuid::new_v4());
        assert_eq!(stranger.await.expect("a log"), []);
        nvmet.order(r#"rm "$P/subsystems/${NQN}1""#).await;
        let found = discover(there(), &host.host, host.host_id).await;
        assert_eq!(found.expect("a log"), [record(2)]);
    });
    nvmet.finish(&[]);
}

#[test]
fn it_connects_does_io_and_disconnects_with_and_without_digests() {
    let mut nvmet = start(1);
    namespace::runtime().block_on(async {
        for (header_digest, data_digest) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let options = ConnectOptions {
                header_digest,
                data_digest,
                ..options(there(), 1)
            };
            let load = Load::start(options, 1).await;
            assert_eq!(load.disk.size(), SIZE);
            load.progress(10 * SOME).await;
            println!("{} requests", load.finish().await);
            let gone = r#"until_so '[ -z "$(ss -Htn state established sport = :4420)" ]'"#;
            nvmet.order(gone).await;
        }
    });
    nvmet.finish(&[]);
}

#[test]
fn it_goes_on_after_the_target_has_taken_controller_or_namespace_away() {
    let mut nvmet = start(1);
    namespace::runtime().block_on(async {
        let load = Load::start(options(there(), 1), 2).await;
        let (away, back) = (
            [r#"rm "$P/subsystems/${NQN}1""#, "echo 0 > $N/enable"],
            [r#"ln -s $S "$P/subsystems/""#, "echo 1 > $N/enable"],
        );
        for (away, back) in away.iter().zip(back).cycle().take(6) {
            load.progress(SOME).await;
            let before = load.local();
            nvmet.order(away).await;
            let mut state = load.disk.state();
            let lost = state.wait_for(|now| !now.connected);
            within("the loss is seen", lost)
                .await
                .map(drop)
                .expect("a state");
            nvmet.order(back).await;
            load.reconnects(before).await;
        }
        load.progress(SOME).await;
        println!("{} requests", load.finish().await);
    });
    nvmet.finish(&[REFUSES]);
}

#[test]
fn its_requests_wait_while_the_namespace_is_inaccessible() {
    let mut nvmet = start(1);
    namespace::runtime().block_on(async {
        let load = Load::start(options(there(), 1), 3).await;
        let (mut state, before) = (load.disk.state(), load.local());
        for word in ["inaccessible", "persistent-loss", "change"].repeat(2) {
            load.progress(SOME).await;
            let set = |word| format!("echo {word} > $P/ana_groups/1/ana_state");
            nvmet.order(&set(word)).await;
            let told = state.wait_for(|now| now.ana == AnaState::Inaccessible);
            within(word, told).await.map(drop).expect("a state");
            let last = Bytes::from(vec![7; 4096]);
            let mut write = pin!(load.disk.write(SIZE - 4096, last, Write::Durable));
            assert!(poll!(write.as_mut()).is_pending());
            // The guest has had its time to answer, and has not.
            nvmet.order("true").await;
            assert!(poll!(write.as_mut()).is_pending(), "{word}");
            nvmet.order(&set("non-optimized")).await;
            within("the write goes on", write).await.expect("no error");
        }
        assert_eq!(load.local(), before, "the association stays");
        println!("{} requests", load.finish().await);
    });
    nvmet.finish(&[REFUSES]);
}

#[test]
fn it_sees_a_namespace_grow_on_the_association_of_now() {
    let mut nvmet = start(1);
    namespace::runtime().block_on(async {
        let load = Load::start(options(there(), 1), 4).await;
        let (mut state, before) = (load.disk.state(), load.local());
        for size in [SIZE + (1 << 20), 2 * SIZE] {
            load.progress(SOME).await;
            let grow = format!("truncate -s {size} /mnt/disks/1; echo 1 > $N/revalidate_size");
            nvmet.order(&grow).await;
            let told = state.wait_for(|now| now.size == size);
            within("it has grown", told)
                .await
                .map(drop)
                .expect("a state");
            let last = Bytes::from(vec![9; 4096]);
            let write = load.disk.write(size - 4096, last, Write::Durable);
            within("a write at the end", write).await.expect("no error");
        }
        assert_eq!(load.local(), before, "the association stays");
        println!("{} requests", load.finish().await);
    });
    nvmet.finish(&[]);
}

#[test]
fn a_wire_that_spoils_digests_is_no_wrong_byte() {
    const SPOILS: [(u8, Part); 8] = [
        (0x04, Part::Header),
        (0x04, Part::Data),
        (0x05, Part::Header),
        (0x06, Part::Header),
        (0x06, Part::Data),
        (0x07, Part::Header),
        (0x07, Part::Data),
        (0x09, Part::Header),
    ];
    let nvmet = start(1);
    namespace::runtime().block_on(async {
        let proxy = Proxy::before(there());
        let options = ConnectOptions {
            header_digest: true,
            data_digest: true,
            ..options(through(&proxy), 1)
        };
        let load = Load::start(options, 5).await;
        for (kind, part) in SPOILS.repeat(2) {
            load.progress(SOME).await;
            proxy.spoil(Spoil { kind, part });
            let what = format!("a PDU {kind:02x}h comes by");
            until_async(&what, || proxy.has_spoiled().then_some(())).await;
        }
        load.progress(SOME).await;
        println!("{} requests", load.finish().await);
    });
    // Linux does not know the request with which a host ends a connection (section 3.6.2.3).
    nvmet.finish(&[
        "digest error",
        "fatal error occurred",
        "unexpected pdu type 2",
    ]);
}

#[test]
fn it_reconnects_a_hundred_times_under_verified_requests() {
    const DISKS: u32 = 4;
    const CUTS: u32 = 25;
    let nvmet = start(DISKS);
    namespace::runtime().block_on(async {
        let proxy = Proxy::before(there());
        let mut loads = Vec::new();
        for n in 1..=DISKS {
            loads.push(Load::start(options(through(&proxy), n), n.into()).await);
        }
        let mut reconnects = 0;
        for _ in 0..CUTS {
            let before: Vec<_> = loads.iter().map(Load::local).collect();
            for load in &loads {
                load.progress(SOME).await;
            }
            proxy.cut();
            for (load, before) in loads.iter().zip(before) {
                load.reconnects(before).await;
                reconnects += 1;
            }
        }
        let mut requests = 0;
        for load in loads {
            load.progress(SOME).await;
            requests += load.finish().await;
        }
        println!("{reconnects} reconnects, {requests} requests, none failed, none wrong");
        assert_eq!(reconnects, DISKS * CUTS);
    });
    nvmet.finish(&[]);
}
