//! A disk that outlives its associations.

use crate::harness::{Target, memory, pattern, read};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;
use weft_block::{Disk, ErrorKind, Write};
use weft_transport::{ConnectOptions, PathState, ReconnectingDisk};

/// Waits until the path is so.
async fn see(
    state: &mut watch::Receiver<PathState>,
    so: impl FnMut(&PathState) -> bool,
) -> PathState {
    let wait = timeout(Duration::from_secs(20), state.wait_for(so));
    wait.await.expect("the path becomes so").unwrap().clone()
}

#[tokio::test]
async fn a_target_that_comes_and_goes_loses_no_acknowledged_write() {
    let disk = memory();
    let mut target = Target::start(disk.clone()).await;
    let address = target.address;
    let host = ReconnectingDisk::start(target.options(), None);
    let writer = tokio::spawn({
        let host = host.clone();
        async move {
            for n in 0..600u64 {
                let data = pattern(n + 1, 16_384);
                host.write(n * 16_384, data.clone(), Write::Cached)
                    .await
                    .unwrap();
                assert_eq!(read(host.as_ref(), n * 16_384, 16_384).await, data);
            }
        }
    });
    for _ in 0..5 {
        let mut state = host.state();
        see(&mut state, |state| state.connected).await;
        target.kill().await;
        see(&mut state, |state| !state.connected).await;
        target = Target::start_at(address, disk.clone(), |_, _| {}).await;
    }
    writer.await.unwrap();
    for n in 0..600u64 {
        assert_eq!(
            read(disk.as_ref(), n * 16_384, 16_384).await,
            pattern(n + 1, 16_384)
        );
    }
}

#[tokio::test]
async fn a_disk_follows_its_address_and_ends_when_stopped() {
    let disk = memory();
    let first = Target::start(disk.clone()).await;
    let second = Target::start(disk).await;
    let host = ReconnectingDisk::start(first.options(), None);
    let mut state = host.state();
    see(&mut state, |state| state.connected).await;
    host.set_address(second.address);
    see(&mut state, |state| {
        state.connected && state.address == second.address
    })
    .await;
    first.all_ended().await;
    assert_eq!(second.gate.live(), 1);
    host.stop().await;
    assert_eq!(host.flush().await.unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn a_host_that_lost_its_right_says_so_and_goes_on_when_it_has_it_again() {
    let target = Target::start(memory()).await;
    let stranger = ConnectOptions {
        host: "stranger".to_owned(),
        ..target.options()
    };
    let host = ReconnectingDisk::start(stranger, None);
    let mut state = host.state();
    let refused = see(&mut state, |state| state.invalid_host).await;
    assert!(!refused.connected);
    assert!(refused.reason.unwrap().contains("0184h"));
    let waits = timeout(Duration::from_millis(100), host.flush()).await;
    assert!(waits.is_err(), "requests are held, not failed");
}

#[tokio::test]
async fn another_namespace_never_takes_the_place_of_the_first() {
    let target = Target::start(memory()).await;
    let address = target.address;
    let host = ReconnectingDisk::start(target.options(), None);
    let mut state = host.state();
    see(&mut state, |state| state.connected).await;
    target.kill().await;
    see(&mut state, |state| !state.connected).await;
    let other = Target::start_at(address, memory(), |gate, _| {
        gate.uuid = Uuid::from_u128(1);
    })
    .await;
    let told = see(&mut state, |state| {
        let reason = state.reason.as_deref().unwrap_or_default();
        reason.contains("in the place of")
    })
    .await;
    assert!(!told.connected);
    let held = timeout(Duration::from_millis(100), host.flush()).await;
    assert!(held.is_err());
    other.kill().await;
    let _right = Target::start_at(address, memory(), |_, _| {}).await;
    host.flush().await.unwrap();
}

#[tokio::test]
async fn whoever_is_told_of_an_association_finds_it() {
    let target = Target::start(memory()).await;
    let host = ReconnectingDisk::start(target.options(), None);
    let mut state = host.state();
    let told = see(&mut state, |state| state.connected).await;
    let current = host.current().expect("the association of the state");
    assert_eq!(told.local, Some(current.local()));
    assert_eq!(
        current.vendor_get(0xc2, 1, 64).await.unwrap()[..5],
        *b"got 1"
    );
}
