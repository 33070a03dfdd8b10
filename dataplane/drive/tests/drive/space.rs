//! Space over the wire: given back by an engine, and more of it while the engine works.

use crate::lab::Lab;
use crate::network::{connect_as, serve};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use weft_block::{Disk, Write};
use weft_drive::superblock::CHUNK;
use weft_spec::drive::{SliceRequest, Space, VENDOR_SPACE};
use weft_transport::initiator::RemoteDisk;

const DEADLINE: Duration = Duration::from_secs(30);
const MIB: u64 = 1 << 20;

/// What the drive tells the engine.
async fn space(engine: &RemoteDisk) -> Space {
    let answer = engine.vendor_get(VENDOR_SPACE, 0, 4096).await.unwrap();
    let text = answer.split(|byte| *byte == 0).next().unwrap();
    serde_json::from_slice(text).unwrap()
}

async fn fill(engine: &RemoteDisk, size: u64, value: u8) {
    for at in (0..size).step_by(MIB as usize) {
        let data = Bytes::from(vec![value; MIB as usize]);
        engine.write(at, data, Write::Cached).await.unwrap();
    }
}

#[tokio::test]
async fn a_full_discard_and_write_zeroes_give_the_space_back() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let name = lab.engine_name(1, 1);
    let engine = connect_as(&lab, address, &name).await.unwrap();
    let before = space(&engine).await;
    for zeroes in [false, true] {
        fill(&engine, lab.size, 3).await;
        let full = space(&engine).await;
        assert_eq!(
            (full.allocated, full.free),
            (lab.size, before.free - lab.size)
        );
        if zeroes {
            engine.write_zeroes(0, lab.size).await.unwrap();
        } else {
            engine.discard(0, lab.size).await.unwrap();
        }
        let after = space(&engine).await;
        assert!(
            after.free + CHUNK >= before.free,
            "{after:?}, {before:?} before"
        );
        let mut bytes = BytesMut::zeroed(MIB as usize);
        engine.read(lab.size - MIB, &mut bytes).await.unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0));
        // Not only told: another can have it.
        fill(&engine, lab.size, 4).await;
        engine.discard(0, lab.size).await.unwrap();
    }
}

#[tokio::test]
async fn a_slice_grows_under_an_engine_that_writes_and_reads() {
    let lab = Lab::new().await;
    let address = serve(&lab).await;
    let name = lab.engine_name(1, 1);
    let engine = Arc::new(connect_as(&lab, address, &name).await.unwrap());
    let grown = Arc::new(AtomicBool::new(false));
    let mut work = JoinSet::new();
    for worker in 0..4u64 {
        let (engine, grown) = (engine.clone(), grown.clone());
        work.spawn(async move {
            let mut rounds = 0u64;
            while !grown.load(Ordering::SeqCst) || rounds < 16 {
                let at = (worker * 128 + rounds % 128) * 4096;
                let data = Bytes::from(vec![rounds as u8; 4096]);
                engine.write(at, data.clone(), Write::Cached).await.unwrap();
                let mut bytes = BytesMut::zeroed(4096);
                engine.read(at, &mut bytes).await.unwrap();
                assert!(bytes == data, "round {rounds} at {at}");
                rounds += 1;
            }
        });
    }
    let mut size = lab.size;
    for step in 1..=4u8 {
        let old = size;
        size += MIB / 2 + 4096;
        let request = SliceRequest {
            volume: lab.volume,
            size,
            overcommit_percent: 100,
        };
        lab.slices.allocate(lab.slice, request).await.unwrap();
        let seen = async {
            while engine.size() != size {
                tokio::task::yield_now().await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, seen).await;
        assert!(seen.is_ok(), "the engine sees {} of {size}", engine.size());
        let mut bytes = BytesMut::zeroed((size - old) as usize);
        engine.read(old, &mut bytes).await.unwrap();
        assert!(bytes.iter().all(|byte| *byte == 0), "a new end is zeros");
        let data = Bytes::from(vec![step; (size - old) as usize]);
        engine
            .write(old, data.clone(), Write::Durable)
            .await
            .unwrap();
        engine.read(old, &mut bytes).await.unwrap();
        assert!(bytes == data);
    }
    grown.store(true, Ordering::SeqCst);
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
}
