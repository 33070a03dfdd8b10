//! The fence over real sockets.

use crate::lab::Lab;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_drive::gate::SliceGate;
use weft_spec::drive::{
    DocumentMark, SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION, VENDOR_PUT_RECORD,
};
use weft_spec::ids::{DocumentGeneration, FencePair};
use weft_spec::nqn::{self, HostNqn};
use weft_transport::initiator::{ConnectError, ConnectOptions, RemoteDisk};
use weft_transport::target::{self, Limits};

const DEADLINE: Duration = Duration::from_secs(30);
const BLOCKS: u64 = 64;

pub async fn serve(lab: &Lab) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let gate = Arc::new(SliceGate(lab.slices.clone()));
    tokio::spawn(target::serve(listener, gate, Limits::default()));
    address
}

pub async fn connect_as(
    lab: &Lab,
    address: SocketAddr,
    name: &HostNqn,
) -> Result<RemoteDisk, ConnectError> {
    connect_with(lab, address, name, name.host_id()).await
}

async fn connect_with(
    lab: &Lab,
    address: SocketAddr,
    name: &HostNqn,
    host_id: Uuid,
) -> Result<RemoteDisk, ConnectError> {
    RemoteDisk::connect(ConnectOptions::new(
        address,
        nqn::slice(lab.slice),
        name.expose(),
        host_id,
    ))
    .await
}

fn block(value: u8) -> Bytes {
    Bytes::from(vec![value; 4096])
}

async fn every_opcode(remote: &RemoteDisk) -> Vec<(&'static str, Result<(), DiskError>)> {
    let mut into = BytesMut::zeroed(4096);
    let mark = serde_json::to_vec(&DocumentMark {
        generation: DocumentGeneration(99),
    })
    .unwrap();
    vec![
        ("read", remote.read(0, &mut into).await),
        ("write", remote.write(0, block(1), Write::Cached).await),
        (
            "write with FUA",
            remote.write(0, block(1), Write::Durable).await,
        ),
        ("flush", remote.flush().await),
        ("write zeroes", remote.write_zeroes(0, 4096).await),
        ("deallocate", remote.discard(0, 4096).await),
        (
            "inspect",
            remote.vendor_get(VENDOR_INSPECT, 0, 4096).await.map(drop),
        ),
        (
            "put generation",
            remote
                .vendor_put(VENDOR_PUT_GENERATION, 0, mark.into())
                .await,
        ),
    ]
}

#[tokio::test]
async fn of_two_live_engines_the_older_is_refused_every_opcode_and_not_admitted_again() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let older = connect_as(&lab, address, &lab.engine_name(1, 1))
        .await
        .unwrap();
    for (opcode, done) in every_opcode(&older).await {
        assert!(done.is_ok(), "{opcode}: {done:?}");
    }
    let newer = connect_as(&lab, address, &lab.engine_name(1, 2))
        .await
        .unwrap();
    for (opcode, done) in every_opcode(&older).await {
        let kind = done.expect_err(opcode).kind();
        assert!(
            matches!(kind, ErrorKind::Fenced | ErrorKind::Gone),
            "{opcode}: {kind:?}"
        );
    }
    tokio::time::timeout(DEADLINE, older.closed())
        .await
        .expect("its connections stay open");
    let refused = connect_as(&lab, address, &lab.engine_name(1, 1))
        .await
        .err()
        .unwrap();
    assert!(
        refused.is_invalid_host() && !refused.retryable(),
        "{refused}"
    );
    let stranger = connect_with(&lab, address, &lab.engine_name(1, 2), Uuid::new_v4()).await;
    assert!(stranger.err().unwrap().is_invalid_host());
    for (opcode, done) in every_opcode(&newer).await {
        assert!(done.is_ok(), "{opcode}: {done:?}");
    }
}

#[tokio::test]
async fn nothing_of_the_older_engine_lands_after_the_newer_is_admitted() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let older = Arc::new(
        connect_as(&lab, address, &lab.engine_name(1, 1))
            .await
            .unwrap(),
    );
    let admitted = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for at in 0..BLOCKS {
        let (older, admitted) = (older.clone(), admitted.clone());
        writers.spawn(async move {
            loop {
                let late = admitted.load(Ordering::SeqCst);
                let done = older.write(at * 4096, block(1), Write::Cached).await;
                assert!(
                    !late || done.is_err(),
                    "a write that began after the newer was admitted"
                );
                if done.is_err() {
                    return;
                }
            }
        });
    }
    let mut into = BytesMut::zeroed(4096);
    while into[0] != 1 {
        older.read((BLOCKS - 1) * 4096, &mut into).await.unwrap();
    }
    let newer = connect_as(&lab, address, &lab.engine_name(2, 1))
        .await
        .unwrap();
    admitted.store(true, Ordering::SeqCst);
    for at in 0..BLOCKS {
        newer
            .write(at * 4096, block(2), Write::Cached)
            .await
            .unwrap();
    }
    let ended = async { while writers.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(DEADLINE, ended)
        .await
        .expect("the older engine's writes end");
    let mut all = BytesMut::zeroed((BLOCKS * 4096) as usize);
    newer.read(0, &mut all).await.unwrap();
    assert!(
        all.iter().all(|byte| *byte == 2),
        "bytes of the older engine"
    );
}

#[tokio::test]
async fn an_inspecting_host_meets_the_fence_on_the_wire_and_learns_who_it_is() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let engine = connect_as(&lab, address, &lab.engine_name(4, 2))
        .await
        .unwrap();
    let inspector = connect_as(&lab, address, &lab.inspector_name(4))
        .await
        .unwrap();
    for (opcode, done) in every_opcode(&inspector).await {
        match opcode {
            "inspect" => assert!(done.is_ok()),
            _ => assert_eq!(
                done.expect_err(opcode).kind(),
                ErrorKind::Fenced,
                "{opcode}"
            ),
        }
    }
    let answer = inspector.vendor_get(VENDOR_INSPECT, 0, 4096).await.unwrap();
    let text = answer.split(|byte| *byte == 0).next().unwrap();
    let inspection: SliceInspection = serde_json::from_slice(text).unwrap();
    assert_eq!(inspection.peer, inspector.local());
    assert_eq!(inspection.fence.to_string(), "4.2");
    assert_eq!(inspection.host_id, lab.engine_name(4, 2).host_id());
    assert_eq!(
        (inspector.subsystem(), inspector.namespace_uuid()),
        (nqn::slice(lab.slice).as_str(), lab.slice.0)
    );
    assert_eq!(inspector.size(), lab.size);
    assert!(engine.flush().await.is_ok(), "the engine goes on");
}

#[tokio::test]
async fn the_same_process_comes_back_after_its_connection_is_lost() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let name = lab.engine_name(1, 1);
    for value in 1..4 {
        let engine = connect_as(&lab, address, &name).await.unwrap();
        engine.write(0, block(value), Write::Cached).await.unwrap();
        let again = connect_as(&lab, address, &name).await.unwrap();
        let mut into = BytesMut::zeroed(4096);
        again.read(0, &mut into).await.unwrap();
        assert_eq!(into[0], value);
        assert!(engine.flush().await.is_err());
    }
    assert_eq!(
        lab.inspect().await.fence,
        FencePair {
            term: weft_spec::ids::Term(1),
            boot: weft_spec::ids::Boot(1)
        }
    );
}

#[tokio::test]
async fn a_deleted_slice_ends_its_engine_on_the_wire_and_gives_its_space_back() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let engine = connect_as(&lab, address, &lab.engine_name(1, 1))
        .await
        .unwrap();
    engine
        .write(0, Bytes::from(vec![3; 1 << 20]), Write::Cached)
        .await
        .unwrap();
    assert!(lab.slices.store().free() < lab.slices.store().capacity());
    assert!(lab.slices.delete(lab.slice).await.unwrap());
    tokio::time::timeout(DEADLINE, engine.closed())
        .await
        .expect("its connections stay open");
    let unknown = connect_as(&lab, address, &lab.engine_name(2, 1))
        .await
        .err()
        .unwrap();
    assert!(
        !unknown.is_invalid_host() && !unknown.retryable(),
        "{unknown}"
    );
    assert_eq!(lab.slices.store().free(), lab.slices.store().capacity());
}

#[tokio::test]
async fn a_region_cools_when_a_later_command_carries_a_checkpoint_that_has_passed_it() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let engine = connect_as(&lab, address, &lab.engine_name(1, 1))
        .await
        .unwrap();
    let stamp = |number, checkpoint| Stamp {
        config: 0,
        number,
        checkpoint,
    };
    for (region, number) in [(0, 5), (1, 6), (2, 7)] {
        let done = engine.write_stamped(region << 20, block(1), Write::Cached, stamp(number, 0));
        done.await.unwrap();
    }
    engine
        .write_zeroes_stamped(3 << 20, 4096, stamp(8, 0))
        .await
        .unwrap();
    engine.flush_stamped(stamp(8, 6)).await.unwrap();
    engine.disconnect().await;
    lab.slices.close().await;
    lab.slices.store().close().await.unwrap();
    let slice = lab.slices.store().slice(lab.slice).unwrap();
    let (hot, _) = lab.slices.store().hot_set(&slice, 0, 99);
    let hot: Vec<_> = hot.iter().map(|hot| hot.region).collect();
    assert_eq!(hot, [2, 3]);
}

#[tokio::test]
async fn once_there_is_a_record_every_change_says_its_config() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let engine = connect_as(&lab, address, &lab.engine_name(1, 1))
        .await
        .unwrap();
    let swap = serde_json::json!({"expected": null, "record": {
        "volume": lab.volume, "lineage": Uuid::nil(), "config": u64::MAX - 1,
        "fence": {"term": 1, "boot": 1}, "inSync": [], "outOfSync": [],
        "voters": [lab.slice], "state": "Current",
    }});
    let swap = Bytes::from(serde_json::to_vec(&swap).unwrap());
    engine
        .vendor_put(VENDOR_PUT_RECORD, 0, swap.clone())
        .await
        .unwrap();
    let again = engine.vendor_put(VENDOR_PUT_RECORD, 0, swap).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::SwapLost);
    for (config, taken) in [(0, false), (u64::MAX - 2, false), (u64::MAX - 1, true)] {
        let stamp = Stamp {
            config,
            number: 1,
            checkpoint: 0,
        };
        for result in [
            engine
                .write_stamped(0, block(1), Write::Durable, stamp)
                .await,
            engine.write_zeroes_stamped(0, 4096, stamp).await,
            engine.discard_stamped(0, 65_536, stamp).await,
        ] {
            let refused = result.err().map(|error| error.kind());
            assert_eq!(refused, (!taken).then_some(ErrorKind::WrongConfig));
        }
        engine
            .flush_stamped(stamp)
            .await
            .expect("a flush changes nothing");
    }
}
