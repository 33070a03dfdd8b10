//! The initiator asks a discovery service.

use crate::harness::{SUBSYSTEM, Target, memory};
use std::sync::atomic::Ordering;
use uuid::Uuid;
use weft_transport::{ConnectError, DiscoveryRecord, discover};

async fn ask(target: &Target, host: &str) -> Result<Vec<DiscoveryRecord>, ConnectError> {
    discover(target.address, host, Uuid::from_u128(9)).await
}

fn known(target: &Target) -> Vec<DiscoveryRecord> {
    vec![DiscoveryRecord {
        subsystem: SUBSYSTEM.to_owned(),
        address: target.address,
    }]
}

#[tokio::test]
async fn a_host_finds_what_it_may_use_and_a_stranger_nothing() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let target = Target::start_at(address.parse().unwrap(), memory(), |_, _| {}).await;
        assert_eq!(ask(&target, "host").await.unwrap(), known(&target));
        assert_eq!(ask(&target, "stranger").await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_log_that_changes_meanwhile_is_read_again_but_not_for_ever() {
    let target = Target::start(memory()).await;
    let restless = &target.gate.directory.restless;
    restless.store(5, Ordering::SeqCst);
    assert_eq!(ask(&target, "host").await.unwrap(), known(&target));
    assert_eq!(restless.load(Ordering::SeqCst), 0);
    restless.store(u32::MAX, Ordering::SeqCst);
    let refused = ask(&target, "host").await;
    assert!(matches!(refused, Err(ConnectError::Protocol(_))));
}

#[tokio::test]
async fn a_target_without_a_directory_refuses() {
    let target = Target::start_with(memory(), |gate, _| gate.directory.is_open = false).await;
    let refused = ask(&target, "host").await;
    assert!(matches!(
        refused,
        Err(ConnectError::Refused { status: 0x182, .. })
    ));
}
