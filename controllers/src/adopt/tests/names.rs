//! What drives do not keep: the name and the pool.

use super::{VOLUME, mirror, of, plan, started, uid};
use crate::shared::labels::ADOPTION;
use serde_json::json;

#[test]
fn names_come_from_slices_that_are_left_then_from_a_person() {
    let mut o = mirror();
    o.wish.names.insert(VOLUME.parse().unwrap(), "said".into());
    assert_eq!(started(&o).0.metadata.name.as_deref(), Some("said"));
    o.slices = vec![of(
        json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Slice", "metadata": {"name": "db-c"},
        "spec": {"uid": uid('b'), "volume": "db", "volumeUid": VOLUME, "drive": "d2", "driveUid": "d", "size": "1Gi"}}),
    )];
    let (volume, slices) = started(&o);
    assert_eq!(volume.metadata.name.as_deref(), Some("db"));
    let names: Vec<_> = volume
        .status
        .unwrap()
        .members
        .iter()
        .map(|m| m.slice.clone())
        .collect();
    assert_eq!(names, ["db-a", "db-c", "db-w"]);
    assert_eq!(slices.len(), 2, "the one that is there is not made again");
    o.slices[0].metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    assert!(plan(&o).adoptions.is_empty() && plan(&o).remarks[0].contains("db-c is being deleted"));
}

#[test]
fn in_no_pool_that_is_known_the_pool_is_named_all_the_same() {
    let mut o = mirror();
    o.pools.truncate(1);
    let (volume, slices) = started(&o);
    assert_eq!(
        (volume.spec.pool.as_str(), slices[0].spec.overcommit_percent),
        ("adopted", 100)
    );
    assert!(volume.metadata.annotations.unwrap().contains_key(ADOPTION));
}
