use super::*;
use crate::plan::tests::{document, host};
use bytes::{Bytes, BytesMut};
use std::task::Poll;
use tokio_test::task;
use uuid::Uuid;
use weft_block::{DiskError, Stamp, Write};
use weft_spec::ids::{Boot, Term};

struct Nothing;

#[async_trait]
impl Disk for Nothing {
    fn size(&self) -> u64 {
        4096
    }
    async fn read(&self, _: u64, _: &mut BytesMut) -> Result<(), DiskError> {
        Ok(())
    }
    async fn write_stamped(&self, _: u64, _: Bytes, _: Write, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn write_zeroes_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn discard_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
}

fn door(hosts: &[AllowedHost]) -> Door {
    door_after(hosts, None)
}

fn door_after(hosts: &[AllowedHost], loss: Option<AttachGeneration>) -> Door {
    let pair = FencePair {
        term: Term(7),
        boot: Boot(1),
    };
    let gate = HostGate::new(document(1).volume, pair, Arc::new(Nothing), loss);
    gate.admit(hosts);
    Door(gate)
}

fn request(host: &AllowedHost) -> ConnectRequest {
    ConnectRequest {
        subsystem: nqn::volume(document(1).volume),
        host: host.nqn.expose().to_owned(),
        host_id: host.nqn.host_id(),
        peer: "[::ffff:127.0.0.1]:5000".parse().unwrap(),
    }
}

#[tokio::test]
async fn only_the_exact_name_with_its_identifier_is_admitted() {
    let (known, other) = (host("n1", 1), host("n1", 2));
    let door = door(std::slice::from_ref(&known));
    let right = request(&known);
    let table = [
        ("another generation", request(&other), Refusal::InvalidHost),
        (
            "another identifier",
            ConnectRequest {
                host_id: Uuid::nil(),
                ..right.clone()
            },
            Refusal::InvalidHost,
        ),
        (
            "a name cut short",
            ConnectRequest {
                host: right.host[..60].into(),
                ..right.clone()
            },
            Refusal::InvalidHost,
        ),
        (
            "another volume",
            ConnectRequest {
                subsystem: "nqn.x".into(),
                ..right.clone()
            },
            Refusal::UnknownSubsystem,
        ),
    ];
    for (case, request, expected) in table {
        assert_eq!(door.connect(request).await.err(), Some(expected), "{case}");
    }
    let admission = door.connect(right).await.unwrap();
    assert!(!admission.export.read_only);
    let source = door.0.associations()[0].source;
    assert_eq!(
        source,
        "127.0.0.1:5000".parse().unwrap(),
        "not the mapped form"
    );
}

#[tokio::test]
async fn only_an_allowed_host_finds_the_volume_and_a_change_of_rights_is_told() {
    let known = host("n1", 1);
    let door = door(std::slice::from_ref(&known));
    let discovery = door.discovery().unwrap();
    let mut generation = discovery.generation();
    generation.mark_unchanged();
    let local = "10.4.0.7:4420".parse().unwrap();
    let found = discovery.records(known.nqn.expose(), local);
    assert_eq!((found.len(), found[0].address), (1, local));
    assert_eq!(found[0].subsystem, nqn::volume(document(1).volume));
    assert!(discovery.records("nqn.stranger", local).is_empty());
    door.0.admit(&[]);
    assert!(generation.has_changed().unwrap());
    assert!(discovery.records(known.nqn.expose(), local).is_empty());
}

#[tokio::test]
async fn a_host_removed_is_revoked_and_settled_only_when_it_has_ended() {
    let known = host("n1", 1);
    let door = door(std::slice::from_ref(&known));
    let admission = door.connect(request(&known)).await.unwrap();
    door.0.admit(&[]);
    assert!(admission.revoke.is_cancelled());
    assert!(!door.0.settled());
    assert_eq!(
        door.connect(request(&known)).await.err(),
        Some(Refusal::InvalidHost)
    );
    drop(admission);
    assert!(door.0.settled() && door.0.associations().is_empty());
}

#[tokio::test]
async fn a_host_that_comes_again_waits_for_the_end_of_its_older_association() {
    let known = host("n1", 1);
    let door = door(std::slice::from_ref(&known));
    let older = door.connect(request(&known)).await.unwrap();
    let mut newer = task::spawn(door.connect(request(&known)));
    assert!(newer.poll().is_pending());
    assert!(older.revoke.is_cancelled());
    drop(older);
    let Poll::Ready(Ok(newer)) = newer.poll() else {
        panic!("still waits")
    };
    assert!(!newer.revoke.is_cancelled());
    assert_eq!(door.0.associations().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_is_told_to_come_again_when_its_older_association_does_not_end() {
    let known = host("n1", 1);
    let door = door(std::slice::from_ref(&known));
    let _older = door.connect(request(&known)).await.unwrap();
    let mut newer = task::spawn(door.connect(request(&known)));
    assert!(newer.poll().is_pending());
    tokio::time::advance(OLDER_TIMEOUT).await;
    assert!(newer.is_woken());
    assert!(matches!(newer.poll(), Poll::Ready(Err(Refusal::Busy))));
}

#[tokio::test]
async fn a_host_admitted_before_a_loss_cannot_flush_until_it_is_admitted_anew() {
    let hosts = [host("n1", 3), host("n2", 4)];
    let door = door_after(&hosts, Some(AttachGeneration(3)));
    let before = door.connect(request(&hosts[0])).await.unwrap();
    let flushed = before.export.disk.flush().await;
    assert_eq!(flushed.unwrap_err().kind(), weft_block::ErrorKind::Lost);
    let after = door.connect(request(&hosts[1])).await.unwrap();
    after.export.disk.flush().await.unwrap();
    let anew = host("n1", 5);
    door.0.admit(std::slice::from_ref(&anew));
    let anew = door.connect(request(&anew)).await.unwrap();
    anew.export.disk.flush().await.unwrap();
}

#[tokio::test]
async fn a_host_with_a_read_only_right_gets_a_read_only_export() {
    let known = AllowedHost {
        read_only: true,
        ..host("n1", 1)
    };
    let door = door(std::slice::from_ref(&known));
    assert!(
        door.connect(request(&known))
            .await
            .unwrap()
            .export
            .read_only
    );
}

#[test]
fn neighbouring_pairs_have_ranges_of_their_own_within_the_valid_identifiers() {
    let mut seen = std::collections::HashSet::new();
    for (term, boot) in [(7, 1), (7, 2), (8, 1), (8, 2), (9, 1)] {
        let pair = FencePair {
            term: Term(term),
            boot: Boot(boot),
        };
        assert!(seen.insert(first_controller(pair)), "{pair}");
    }
    for term in [0, 1, 511, 512, u64::MAX] {
        let first = first_controller(FencePair {
            term: Term(term),
            boot: Boot(u64::MAX),
        });
        assert!((1..=0xFFEF - 15).contains(&first), "{first}");
    }
}
