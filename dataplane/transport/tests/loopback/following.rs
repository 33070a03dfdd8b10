//! The initiator follows what its target tells, and sends again what may be sent again.

use crate::harness::{Target, memory, pattern, read, until};
use futures::poll;
use std::pin::pin;
use std::sync::Arc;
use weft_block::{Disk, ErrorKind, MemoryDisk, Write};
use weft_transport::{AnaState, ReconnectingDisk, RemoteDisk};

const NEW_END: u64 = 4 << 20;

#[tokio::test]
async fn a_namespace_that_grows_is_used_whole_on_the_same_association() {
    let below = Arc::new(MemoryDisk::new(2 << 20));
    let target = Target::start(below.clone()).await;
    let disk = ReconnectingDisk::start(target.options(), None);
    let mut state = disk.state();
    let before = state.wait_for(|now| now.connected).await.unwrap().local;
    let data = pattern(1, 4096);
    let beyond = disk
        .write(NEW_END - 4096, data.clone(), Write::Cached)
        .await;
    assert_eq!(beyond.unwrap_err().kind(), ErrorKind::OutOfRange);
    below.grow(NEW_END);
    target.gate.events.resized();
    let after = state
        .wait_for(|now| now.size == NEW_END)
        .await
        .unwrap()
        .local;
    assert_eq!((disk.size(), before), (NEW_END, after));
    disk.write(NEW_END - 4096, data.clone(), Write::Cached)
        .await
        .unwrap();
    assert_eq!(read(disk.as_ref(), NEW_END - 4096, 4096).await, data);
    // Once more: the first notice was read, so the second is told.
    below.grow(NEW_END + 4096);
    target.gate.events.resized();
    state
        .wait_for(|now| now.size == NEW_END + 4096)
        .await
        .unwrap();
}

#[tokio::test]
async fn requests_wait_while_the_namespace_is_inaccessible_and_the_association_stays() {
    let target = Target::start(memory()).await;
    let disk = ReconnectingDisk::start(target.options(), None);
    let mut state = disk.state();
    let before = state.wait_for(|now| now.connected).await.unwrap().local;
    target.gate.events.set_ana(AnaState::Inaccessible);
    state
        .wait_for(|now| now.ana == AnaState::Inaccessible)
        .await
        .unwrap();
    let data = pattern(2, 8192);
    let mut write = pin!(disk.write(0, data.clone(), Write::Durable));
    let mut flush = pin!(disk.flush());
    assert!(poll!(write.as_mut()).is_pending());
    assert!(poll!(flush.as_mut()).is_pending());
    target.gate.events.set_ana(AnaState::Optimized);
    state
        .wait_for(|now| now.ana == AnaState::Optimized)
        .await
        .unwrap();
    write.await.unwrap();
    flush.await.unwrap();
    assert_eq!(read(disk.as_ref(), 0, 8192).await, data);
    assert_eq!(state.borrow().local, before);
}

#[tokio::test]
async fn a_request_that_meets_the_change_before_its_notice_waits_as_well() {
    let target = Target::start(memory()).await;
    let disk = Arc::new(RemoteDisk::connect(target.options()).await.unwrap());
    for round in 0..50 {
        target.gate.events.set_ana(AnaState::Inaccessible);
        let user = disk.clone();
        let write =
            tokio::spawn(async move { user.write(0, pattern(round, 4096), Write::Cached).await });
        until("the state is told", || disk.ana() == AnaState::Inaccessible).await;
        target.gate.events.set_ana(AnaState::Optimized);
        write.await.unwrap().unwrap();
    }
    assert!(!disk.is_closed());
}

#[tokio::test]
async fn an_association_that_begins_inaccessible_is_known_to_be_so() {
    let target = Target::start(memory()).await;
    target.gate.events.set_ana(AnaState::Inaccessible);
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    assert_eq!(disk.ana(), AnaState::Inaccessible);
    let mut flush = pin!(disk.flush());
    assert!(poll!(flush.as_mut()).is_pending());
    target.gate.events.set_ana(AnaState::Optimized);
    until("the state is told", || disk.ana() == AnaState::Optimized).await;
    flush.await.unwrap();
}

#[tokio::test]
async fn a_stopped_disk_does_not_wait_for_an_inaccessible_namespace() {
    let target = Target::start(memory()).await;
    target.gate.events.set_ana(AnaState::Inaccessible);
    let disk = ReconnectingDisk::start(target.options(), None);
    let mut state = disk.state();
    state.wait_for(|now| now.connected).await.unwrap();
    let user = disk.clone();
    let flush = tokio::spawn(async move { user.flush().await });
    disk.stop().await;
    assert_eq!(flush.await.unwrap().unwrap_err().kind(), ErrorKind::Gone);
}
