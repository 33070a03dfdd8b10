//! The engine's process between a scripted drive, hosts and an operator.

use crate::support::{MOST, SIZE, Setup, Slice, within};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{Disk, Write};
use weft_control::supervisor::PARKED;
use weft_spec::engine::EngineState;
use weft_spec::ids::{Boot, DocumentGeneration, Term};
use weft_transport::{ReconnectingDisk, RemoteDisk};

fn block(byte: u8) -> Bytes {
    Bytes::from(vec![byte; 4096])
}

#[tokio::test]
async fn it_serves_and_tells_both_ends_of_each_wire() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let host = setup.host("n1", 1);
    let document = setup.document(1, drive, std::slice::from_ref(&host));
    let (mut engine, mut operator) = setup.start(&document).await;
    let seen = operator.told("serving", |s| {
        s.state == EngineState::Serving && s.drives[0].seen_by_drive.is_some()
    });
    let status = seen.await;
    assert_eq!(
        (status.boot, status.document_generation),
        (Boot(1), DocumentGeneration(1))
    );
    let wire = &status.drives[0];
    assert!(wire.connected && wire.address == drive);
    assert_eq!(wire.local, wire.seen_by_drive);

    let disk = RemoteDisk::connect(setup.options(&host)).await.unwrap();
    disk.write(4096, block(7), Write::Cached).await.unwrap();
    let mut into = BytesMut::zeroed(4096);
    disk.read(4096, &mut into).await.unwrap();
    assert_eq!(into, block(7));
    assert_eq!(slice.byte(4096), 7);
    let local = disk.local();
    let status = operator
        .told("the host", |s| s.hosts[0].associations == 1)
        .await;
    assert_eq!(status.hosts[0].source, Some(local));

    // Asked to end, it stays for its host, and goes with it.
    engine.terminate();
    disk.read(4096, &mut into).await.unwrap();
    disk.disconnect().await;
    assert_eq!(engine.end().await.code(), Some(0));
}

#[tokio::test]
async fn with_a_document_older_than_the_slice_knows_it_admits_nobody() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    slice.generation.send_replace(DocumentGeneration(4));
    let (drive, _serving) = slice.serve().await;
    let host = setup.host("n1", 1);
    let hosts = std::slice::from_ref(&host);
    let (_engine, mut operator) = setup.start(&setup.document(3, drive, hosts)).await;
    let status = operator
        .told("outdated", |s| s.reason == "DocumentOutdated")
        .await;
    assert_eq!(status.boot, Boot(0), "the fence is not raised by it");
    assert!(RemoteDisk::connect(setup.options(&host)).await.is_err());
    let (code, text) = operator.put(&setup.document(2, drive, hosts)).await;
    assert_eq!(code, 409, "{text}");
    let (code, text) = operator.put(&setup.document(4, drive, hosts)).await;
    assert_eq!(code, 200, "{text}");
    RemoteDisk::connect(setup.options(&host)).await.unwrap();
}

#[tokio::test]
async fn a_document_of_another_pod_is_refused() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let (_engine, mut operator) = setup.start(&setup.document(1, drive, &[])).await;
    operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    let mut other = setup.document(2, drive, &[]);
    other.term = Term(2);
    let (code, text) = operator.put(&other).await;
    assert!(code == 409 && text.contains("for term 2"), "{code} {text}");
    let older = setup.document(0, drive, &[]);
    assert_eq!(operator.put(&older).await.0, 409);
    assert_eq!(*slice.generation.borrow(), DocumentGeneration(1));
}

#[tokio::test]
async fn a_host_removed_ends_with_its_commands_before_the_put_is_answered() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let (old, new) = (setup.host("n1", 1), setup.host("n2", 2));
    let document = setup.document(1, drive, std::slice::from_ref(&old));
    let (_engine, mut operator) = setup.start(&document).await;
    operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    let disk = Arc::new(RemoteDisk::connect(setup.options(&old)).await.unwrap());
    let before = setup.options(&new);
    assert!(
        RemoteDisk::connect(before)
            .await
            .is_err_and(|error| error.is_invalid_host())
    );

    slice.holds.send_replace(true);
    let held = holders(&slice);
    let writing = tokio::spawn({
        let disk = disk.clone();
        async move { disk.write(0, block(9), Write::Cached).await }
    });
    within("the write at the drive", held).await;
    let newer = setup.document(2, drive, std::slice::from_ref(&new));
    let putting = operator.putting(&newer);
    // The new right is in force while the old association is still drained.
    let status = operator
        .told("the generation", |s| s.document_generation.0 == 2)
        .await;
    let attachments = status
        .hosts
        .iter()
        .map(|host| (&host.attachment[..], host.associations));
    assert_eq!(
        attachments.collect::<Vec<_>>(),
        [("v0-n2", 0), ("v0-n1", 1)]
    );
    assert!(!putting.is_finished());

    slice.holds.send_replace(false);
    let (code, text) = within("the put's answer", putting).await.unwrap();
    assert_eq!(code, 200, "{text}");
    within("the end of the old host", disk.closed()).await;
    // Its host may have lost the connection before the answer; the drive has done it by now.
    let _answer = within("the write's answer", writing).await.unwrap();
    assert_eq!(slice.byte(0), 9);
    assert!(
        operator
            .status()
            .await
            .hosts
            .iter()
            .all(|host| host.associations == 0)
    );
    let refused = RemoteDisk::connect(setup.options(&old)).await;
    assert!(refused.is_err_and(|error| error.is_invalid_host()));
    RemoteDisk::connect(setup.options(&new)).await.unwrap();
}

/// Resolves when a write is held at the drive.
fn holders(slice: &Arc<Slice>) -> impl Future<Output = ()> + use<> {
    let slice = slice.clone();
    async move {
        while slice.holds.receiver_count() == 0 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_host_with_read_only_rights_cannot_write() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let mut host = setup.host("n1", 1);
    host.read_only = true;
    let document = setup.document(1, drive, std::slice::from_ref(&host));
    let (_engine, mut operator) = setup.start(&document).await;
    operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    let disk = RemoteDisk::connect(setup.options(&host)).await.unwrap();
    assert!(disk.write(0, block(1), Write::Cached).await.is_err());
    assert!(disk.write_zeroes(0, 4096).await.is_err());
    disk.read(0, &mut BytesMut::zeroed(4096)).await.unwrap();
    assert_eq!(slice.byte(0), 0);
}

#[tokio::test]
async fn a_drive_that_moved_is_followed_and_the_held_write_goes_on() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, serving) = slice.serve().await;
    let host = setup.host("n1", 1);
    let hosts = std::slice::from_ref(&host);
    let (_engine, mut operator) = setup.start(&setup.document(1, drive, hosts)).await;
    operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    let disk = Arc::new(RemoteDisk::connect(setup.options(&host)).await.unwrap());

    drop(serving);
    let status = operator
        .told("paused", |s| s.state == EngineState::Paused)
        .await;
    assert_eq!(status.reason, "DriveUnreachable");
    assert!(!status.drives[0].connected && status.drives[0].local.is_none());
    let writing = tokio::spawn({
        let disk = disk.clone();
        async move { disk.write(0, block(5), Write::Cached).await }
    });
    let (moved, _serving) = slice.serve().await;
    let (code, text) = operator.put(&setup.document(2, moved, hosts)).await;
    assert_eq!(code, 200, "{text}");
    within("the held write", writing).await.unwrap().unwrap();
    assert_eq!(slice.byte(0), 5);
    let status = operator.told("serving again", |s| {
        s.state == EngineState::Serving && s.drives[0].seen_by_drive.is_some()
    });
    let wire = status.await.drives.remove(0);
    assert_eq!((wire.address, wire.local), (moved, wire.seen_by_drive));
}

#[tokio::test]
async fn a_fenced_engine_answers_nobody_reports_and_ends_parked() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let host = setup.host("n1", 1);
    let document = setup.document(1, drive, std::slice::from_ref(&host));
    let (mut engine, mut operator) = setup.start(&document).await;
    operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    let disk = ReconnectingDisk::start(setup.options(&host), None);
    disk.flush().await.unwrap();

    slice.fenced.send_replace(true);
    let write = disk.write(0, block(1), Write::Cached);
    let read = async { disk.read(0, &mut BytesMut::zeroed(4096)).await };
    let parked = operator.told("parked", |s| s.state == EngineState::Parked);
    tokio::select! {
        answer = write => panic!("the write was answered: {answer:?}"),
        answer = read => panic!("the read was answered: {answer:?}"),
        status = parked => assert_eq!(status.reason, "Fenced"),
    }
    assert_eq!(engine.end().await.code(), Some(PARKED.into()));
    assert_eq!(slice.byte(0), 0);
}

#[tokio::test]
async fn a_volume_grows_under_its_host_without_a_new_association() {
    let setup = Setup::new();
    let slice = Slice::new(&setup);
    let (drive, _serving) = slice.serve().await;
    let host = setup.host("n1", 1);
    let hosts = std::slice::from_ref(&host);
    let (_engine, mut operator) = setup.start(&setup.document(1, drive, hosts)).await;
    let status = operator
        .told("serving", |s| s.state == EngineState::Serving)
        .await;
    assert_eq!(status.size, SIZE);
    let disk = RemoteDisk::connect(setup.options(&host)).await.unwrap();
    let local = disk.local();
    assert!(disk.write(SIZE, block(9), Write::Cached).await.is_err());

    // The operator tells it too early: it says so, serves on, and grows when it is told again.
    let mut document = setup.document(2, drive, hosts);
    document.size = MOST;
    assert_eq!(operator.put(&document).await.0, 200);
    let small = operator
        .told("too small", |s| s.reason == "SliceTooSmall")
        .await;
    assert_eq!((small.state, small.size), (EngineState::Serving, SIZE));
    assert!(
        small.message.contains(&SIZE.to_string()),
        "{}",
        small.message
    );
    assert!(disk.write(SIZE, block(9), Write::Cached).await.is_err());

    slice.size.send_replace(MOST);
    document.generation = DocumentGeneration(3);
    assert_eq!(operator.put(&document).await.0, 200);
    operator
        .told("grown", |s| s.size == MOST && s.reason == "Serving")
        .await;
    disk.write(MOST - 4096, block(9), Write::Cached)
        .await
        .unwrap();
    assert_eq!(slice.byte(MOST as usize - 1), 9);
    assert_eq!(operator.status().await.hosts[0].source, Some(local));

    document.generation = DocumentGeneration(4);
    document.size = SIZE;
    let (code, text) = operator.put(&document).await;
    assert!(
        code == 409 && text.contains("never shrinks"),
        "{code} {text}"
    );
}
