//! The fence without a network: two live engines, every opcode.

use crate::lab::{Lab, connect};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use uuid::Uuid;
use weft_block::{Disk, ErrorKind, Write};
use weft_drive::gate::SliceGate;
use weft_spec::drive::{SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION};
use weft_spec::ids::{Boot, FencePair, SliceUid, Term};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;
use weft_transport::target::{Admission, Gate, Refusal, VendorError};

/// As the target does when an association is revoked.
fn end_when_revoked(admission: Admission) -> Admission {
    let Admission {
        export,
        revoke,
        ended,
    } = admission;
    let told = revoke.clone();
    tokio::spawn(async move {
        told.cancelled().await;
        drop(ended);
    });
    Admission {
        export,
        revoke,
        ended: Box::new(()),
    }
}

async fn every_opcode(disk: &Arc<dyn Disk>) -> Vec<Result<(), ErrorKind>> {
    let mut into = BytesMut::zeroed(4096);
    let data = Bytes::from(vec![1; 4096]);
    let done = [
        disk.read(0, &mut into).await,
        disk.write(0, data.clone(), Write::Cached).await,
        disk.write(0, data, Write::Durable).await,
        disk.flush().await,
        disk.write_zeroes(0, 4096).await,
        disk.discard(0, 4096).await,
    ];
    done.into_iter()
        .map(|done| done.map_err(|error| error.kind()))
        .collect()
}

#[tokio::test]
async fn an_older_engine_is_refused_every_opcode_on_its_live_association() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let older = end_when_revoked(gate.connect(lab.engine(1, 1)).await.unwrap());
    assert!(
        every_opcode(&older.export.disk)
            .await
            .iter()
            .all(Result::is_ok)
    );
    let newer = end_when_revoked(gate.connect(lab.engine(2, 1)).await.unwrap());
    assert!(older.revoke.is_cancelled());
    for done in every_opcode(&older.export.disk).await {
        assert_eq!(done, Err(ErrorKind::Fenced));
    }
    let vendor = older.export.vendor.unwrap();
    assert_eq!(
        vendor.get(VENDOR_INSPECT, 0, 4096).await,
        Err(VendorError::Fenced)
    );
    let mark = Bytes::from_static(br#"{"generation":9}"#);
    assert_eq!(
        vendor.put(VENDOR_PUT_GENERATION, 0, mark).await,
        Err(VendorError::Fenced)
    );
    assert!(
        every_opcode(&newer.export.disk)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(lab.inspect().await.document_generation.0, 0);
}

#[tokio::test]
async fn pairs_are_compared_term_first_and_an_equal_one_needs_the_registered_host() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    for (term, boot, admitted) in [
        (2, 3, true),
        (2, 2, false),
        (1, 9, false),
        (2, 3, true),
        (2, 4, true),
        (3, 1, true),
    ] {
        let answer = gate
            .connect(lab.engine(term, boot))
            .await
            .map(end_when_revoked);
        assert_eq!(
            answer.err(),
            (!admitted).then_some(Refusal::InvalidHost),
            "{term}.{boot}"
        );
    }
    let mut other = lab.engine(3, 1);
    other.host_id = Uuid::new_v4();
    assert_eq!(gate.connect(other).await.err(), Some(Refusal::InvalidHost));
    let mut nameless = lab.engine(4, 1);
    nameless.host_id = Uuid::nil();
    assert_eq!(
        gate.connect(nameless).await.err(),
        Some(Refusal::InvalidHost)
    );
    assert_eq!(
        lab.inspect().await.fence,
        FencePair {
            term: Term(3),
            boot: Boot(1)
        }
    );
}

#[tokio::test]
async fn a_reconnect_of_the_same_process_ends_its_older_association() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let first = end_when_revoked(gate.connect(lab.engine(1, 1)).await.unwrap());
    let second = end_when_revoked(gate.connect(lab.engine(1, 1)).await.unwrap());
    assert!(
        every_opcode(&first.export.disk)
            .await
            .iter()
            .all(|done| *done == Err(ErrorKind::Fenced))
    );
    assert!(
        every_opcode(&second.export.disk)
            .await
            .iter()
            .all(Result::is_ok)
    );
    assert_eq!(lab.slices.status()[0].connections, 1);
    second.revoke.cancel();
    let mut changes = lab.slices.changes();
    while lab.slices.status()[0].connections > 0 {
        changes.changed().await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_name_changes_nothing() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let pair = FencePair {
        term: Term(9),
        boot: Boot(1),
    };
    let forged = HostNqn::engine(&Key::random().slice(lab.slice, pair.term), lab.volume, pair);
    let mut request = connect(lab.slice, &forged);
    assert_eq!(
        gate.connect(request.clone()).await.err(),
        Some(Refusal::InvalidHost)
    );
    request.host = "nqn.2014-08.org.nvmexpress:uuid:00000000-0000-4000-8000-000000000000".into();
    assert_eq!(
        gate.connect(request.clone()).await.err(),
        Some(Refusal::InvalidHost)
    );
    request.subsystem = "nqn.2014-08.org.nvmexpress.discovery".into();
    assert_eq!(
        gate.connect(request).await.err(),
        Some(Refusal::UnknownSubsystem)
    );
    let elsewhere = SliceUid::random();
    let name = HostNqn::engine(&lab.key.slice(elsewhere, pair.term), lab.volume, pair);
    assert_eq!(
        gate.connect(connect(elsewhere, &name)).await.err(),
        Some(Refusal::UnknownSubsystem)
    );
    let other_volume = HostNqn::engine(
        &lab.key.slice(lab.slice, pair.term),
        weft_spec::ids::VolumeUid::random(),
        pair,
    );
    assert_eq!(
        gate.connect(connect(lab.slice, &other_volume)).await.err(),
        Some(Refusal::InvalidHost)
    );
    assert_eq!(lab.inspect().await.fence, FencePair::default());
}

#[tokio::test]
async fn an_inspecting_host_reads_the_record_and_nothing_else() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let engine = end_when_revoked(gate.connect(lab.engine(5, 2)).await.unwrap());
    let mark = Bytes::from_static(b"{\"generation\":7}\0\0\0");
    let vendor = engine.export.vendor.as_ref().unwrap();
    vendor.put(VENDOR_PUT_GENERATION, 0, mark).await.unwrap();
    vendor
        .put(
            VENDOR_PUT_GENERATION,
            0,
            Bytes::from_static(b"{\"generation\":6}"),
        )
        .await
        .unwrap();
    assert_eq!(
        vendor
            .put(VENDOR_PUT_GENERATION, 0, Bytes::from_static(b"7"))
            .await,
        Err(VendorError::InvalidField)
    );
    assert_eq!(
        vendor.put(0xF1, 0, Bytes::new()).await,
        Err(VendorError::InvalidOpcode)
    );

    let request = lab.inspector(1);
    let (peer, host_id) = (request.peer, lab.engine(5, 2).host_id);
    let inspector = gate.connect(request).await.unwrap();
    assert!(
        every_opcode(&inspector.export.disk)
            .await
            .iter()
            .all(|done| *done == Err(ErrorKind::Fenced))
    );
    let vendor = inspector.export.vendor.unwrap();
    assert_eq!(
        vendor
            .put(
                VENDOR_PUT_GENERATION,
                0,
                Bytes::from_static(b"{\"generation\":9}")
            )
            .await,
        Err(VendorError::Fenced)
    );
    assert_eq!(
        vendor.get(VENDOR_INSPECT, 0, 16).await,
        Err(VendorError::InvalidField)
    );
    let answer = vendor.get(VENDOR_INSPECT, 0, 4096).await.unwrap();
    let inspection: SliceInspection = serde_json::from_slice(&answer).unwrap();
    let expected = SliceInspection {
        volume: lab.volume,
        slice: lab.slice,
        size: lab.size,
        fence: FencePair {
            term: Term(5),
            boot: Boot(2),
        },
        host_id,
        document_generation: weft_spec::ids::DocumentGeneration(7),
        peer,
        incarnation: lab.slices.store().superblock().incarnation,
        hot: inspection.hot,
    };
    assert!(!expected.incarnation.is_nil());
    assert_eq!(inspection, expected);
    assert!(
        every_opcode(&engine.export.disk)
            .await
            .iter()
            .all(Result::is_ok),
        "the engine goes on"
    );
}

#[tokio::test]
async fn the_fence_outlives_the_process() {
    let mut lab = Lab::new().await;
    let first = SliceGate(lab.slices.clone())
        .connect(lab.engine(7, 3))
        .await
        .unwrap();
    first
        .export
        .disk
        .write(0, Bytes::from(vec![9; 4096]), Write::Durable)
        .await
        .unwrap();
    drop(first);
    lab.reopen();
    let gate = SliceGate(lab.slices.clone());
    assert_eq!(
        gate.connect(lab.engine(7, 2)).await.err(),
        Some(Refusal::InvalidHost)
    );
    let again = gate.connect(lab.engine(7, 3)).await.unwrap();
    let mut into = BytesMut::zeroed(4096);
    again.export.disk.read(0, &mut into).await.unwrap();
    assert!(into.iter().all(|byte| *byte == 9));
}

#[tokio::test]
async fn a_deleted_slice_ends_its_engine_and_is_unknown_afterwards() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let engine = end_when_revoked(gate.connect(lab.engine(1, 1)).await.unwrap());
    engine
        .export
        .disk
        .write(0, Bytes::from(vec![9; 65536]), Write::Cached)
        .await
        .unwrap();
    let free = lab.slices.store().free();
    assert!(lab.slices.delete(lab.slice).await.unwrap());
    assert!(!lab.slices.delete(lab.slice).await.unwrap());
    assert!(
        every_opcode(&engine.export.disk)
            .await
            .iter()
            .all(|done| *done == Err(ErrorKind::Fenced))
    );
    assert_eq!(
        gate.connect(lab.engine(2, 1)).await.err(),
        Some(Refusal::UnknownSubsystem)
    );
    assert_eq!(lab.slices.store().free(), free + 65536);
}

#[tokio::test]
async fn a_closing_drive_ends_everybody_and_admits_nobody() {
    let lab = Lab::new().await;
    let gate = SliceGate(lab.slices.clone());
    let engine = end_when_revoked(gate.connect(lab.engine(1, 1)).await.unwrap());
    lab.slices.close().await;
    assert!(engine.revoke.is_cancelled());
    assert_eq!(
        gate.connect(lab.engine(1, 1)).await.err(),
        Some(Refusal::Busy)
    );
}
