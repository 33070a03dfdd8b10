//! What an engine asks and tells a slice beside its I/O.

use crate::lab::Lab;
use bytes::Bytes;
use std::sync::Arc;
use uuid::Uuid;
use weft_block::{ErrorKind, Write};
use weft_drive::gate::SliceGate;
use weft_spec::drive::{VENDOR_ANSWER, VENDOR_ASK, VENDOR_GET_RECORD, VENDOR_PUT_RECORD};
use weft_transport::target::{Admission, ConnectRequest, Gate, Vendor, VendorError};

async fn admit(lab: &Lab, request: ConnectRequest) -> Admission {
    let gate = SliceGate(lab.slices.clone());
    gate.connect(request).await.unwrap()
}

/// Puts a JSON body.
async fn put(
    vendor: &Arc<dyn Vendor>,
    opcode: u8,
    body: &serde_json::Value,
) -> Result<(), VendorError> {
    let body = serde_json::to_vec(body).unwrap();
    vendor.put(opcode, 0, body.into()).await
}

/// Asks a question and gets its answer.
async fn ask(
    vendor: &Arc<dyn Vendor>,
    question: serde_json::Value,
) -> Result<serde_json::Value, VendorError> {
    put(vendor, VENDOR_ASK, &question).await?;
    let answer = vendor.get(VENDOR_ANSWER, 0, 4096).await?;
    Ok(serde_json::from_slice(&answer).unwrap())
}

#[tokio::test]
async fn a_record_is_swapped_only_for_the_one_that_is_there_and_guards_the_writes() {
    let mut lab = Lab::new().await;
    let engine = admit(&lab, lab.engine(5, 1)).await;
    let vendor = engine.export.vendor.clone().unwrap();
    let record = |config: u64, boot: u64| {
        serde_json::json!({
            "volume": lab.volume, "lineage": Uuid::nil(), "config": config,
            "fence": {"term": 5, "boot": boot}, "inSync": [], "outOfSync": [],
            "voters": [lab.slice], "state": "Current",
        })
    };
    let swap = |expected: serde_json::Value, record: serde_json::Value| serde_json::json!({"expected": expected, "record": record});
    let none = serde_json::Value::Null;
    let block = || Bytes::from(vec![3; 4096]);
    engine
        .export
        .disk
        .write(0, block(), Write::Cached)
        .await
        .unwrap();
    let wrong = swap(record(1, 1), record(2, 1));
    let (refused, lost) = (Err(VendorError::InvalidField), Err(VendorError::SwapLost));
    assert_eq!(put(&vendor, VENDOR_PUT_RECORD, &wrong).await, lost);
    let other_pair = swap(none.clone(), record(1, 2));
    assert_eq!(put(&vendor, VENDOR_PUT_RECORD, &other_pair).await, refused);
    let first = swap(none.clone(), record(3, 1));
    assert_eq!(put(&vendor, VENDOR_PUT_RECORD, &first).await, Ok(()));
    assert_eq!(put(&vendor, VENDOR_PUT_RECORD, &first).await, lost);
    let back = swap(record(3, 1), record(2, 1));
    assert_eq!(put(&vendor, VENDOR_PUT_RECORD, &back).await, refused);
    let write = engine.export.disk.write(0, block(), Write::Cached).await;
    assert_eq!(write.unwrap_err().kind(), ErrorKind::WrongConfig);
    let first = record(3, 1);
    drop((engine, vendor));
    lab.reopen();
    let told = lab.slices.recorded();
    assert_eq!(serde_json::to_value(&told[0].record).unwrap(), first);
    assert_eq!(told[0].status.fence.to_string(), "5.1");
    let inspector = admit(&lab, lab.inspector(5)).await;
    let vendor = inspector.export.vendor.clone().unwrap();
    let answer = vendor.get(VENDOR_GET_RECORD, 0, 4096).await.unwrap();
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["record"], first);
}

#[tokio::test]
async fn an_inspecting_host_learns_the_hot_set_and_no_hash() {
    let lab = Lab::new().await;
    let engine = admit(&lab, lab.engine(5, 1)).await;
    let disk = &engine.export.disk;
    let block = Bytes::from(vec![3; 4096]);
    disk.write(5 << 20, block.clone(), Write::Cached)
        .await
        .unwrap();
    let hash = serde_json::json!({"hash": {"offset": 5 << 20, "length": 4096}});
    let hot = serde_json::json!({"hotSet": {"from": 0}});
    let vendor = engine.export.vendor.clone().unwrap();
    let known = blake3_of(&block);
    assert_eq!(ask(&vendor, hash.clone()).await.unwrap()["hash"], known);
    let changes = serde_json::json!({"changesSince": {"config": 0, "from": 0}});
    let found = ask(&vendor, changes.clone()).await.unwrap();
    assert_eq!(found["changes"]["changed"], serde_json::json!([80]));
    let inspector = admit(&lab, lab.inspector(5)).await;
    let vendor = inspector.export.vendor.clone().unwrap();
    let found = ask(&vendor, hot).await.unwrap();
    assert_eq!(found["hotSet"]["regions"][0]["region"], 5);
    for question in [hash, changes] {
        assert_eq!(ask(&vendor, question).await, Err(VendorError::Fenced));
    }
}

fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}
