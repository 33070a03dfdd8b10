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
use weft_block::{Disk, DiskError, ErrorKind, Write};
use weft_drive::gate::SliceGate;
use weft_spec::drive::{DocumentMark, SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION};
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
