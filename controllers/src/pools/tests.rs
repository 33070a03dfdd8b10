//! What a Pool says, as a table.

use super::plan::{Observed, Why};
use super::status::status;
use jiff::Timestamp;
use serde_json::json;
use weft_crds::{Drive, Phase, Pool};

fn drive(name: &str, ready: &str, size: &str, free: &str) -> Drive {
    serde_json::from_value(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Drive", "metadata": {"name": name},
        "spec": {"hostExport": {"node": "n1", "file": {"path": "/x/y", "size": "1Gi"}}},
        "status": {"size": size, "free": free, "conditions": [{
            "type": "Ready", "status": ready, "reason": "x", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
    .unwrap()
}

mod evictions;

fn looking_at(pool: &Pool, now: Timestamp) -> Observed {
    Observed {
        pool: pool.clone(),
        pools: vec![pool.clone()],
        drives: vec![],
        nodes: vec![],
        volumes: vec![],
        pods: vec![],
        budgets: vec![],
        now,
    }
}

#[test]
fn a_pool_sums_its_drives_and_says_when_it_has_none() {
    let good = || drive("a", "True", "1Gi", "512Mi");
    let bad = || drive("b", "False", "2Gi", "1Gi");
    let rows = [
        (vec![], Phase::Pending, "NoDrives", (0, 0), ("0", "0")),
        (
            vec![bad()],
            Phase::Pending,
            "NoDriveReady",
            (1, 0),
            ("2Gi", "1Gi"),
        ),
        (
            vec![good(), bad()],
            Phase::Degraded,
            "SomeDrivesReady",
            (2, 1),
            ("3Gi", "1536Mi"),
        ),
        (
            vec![good()],
            Phase::Ready,
            "DrivesReady",
            (1, 1),
            ("1Gi", "512Mi"),
        ),
    ];
    let mut pool = Pool::new("fast", serde_json::from_value(json!({})).unwrap());
    pool.metadata.generation = Some(3);
    for (drives, phase, reason, counts, sums) in rows {
        let o = looking_at(&pool, Timestamp::UNIX_EPOCH);
        let status = status(&o, &drives, &Why::NothingLeaves);
        assert_eq!(
            (
                status.phase,
                status.conditions.last().unwrap().reason.as_str()
            ),
            (phase, reason)
        );
        assert_eq!((status.drives, status.ready), counts, "{reason}");
        assert_eq!(
            (
                status.size.unwrap().0.as_str(),
                status.free.unwrap().0.as_str()
            ),
            sums,
            "{reason}"
        );
        assert_eq!(status.observed_generation, Some(3));
    }
}

#[test]
fn a_second_look_at_the_same_drives_changes_nothing() {
    let mut pool = Pool::new("fast", serde_json::from_value(json!({})).unwrap());
    let drives = [drive("a", "True", "1Gi", "512Mi")];
    let at = |pool: &Pool, now| status(&looking_at(pool, now), &drives, &Why::NothingLeaves);
    let first = at(&pool, Timestamp::UNIX_EPOCH);
    pool.status = Some(first.clone());
    let later = Timestamp::from_second(1000).unwrap();
    assert_eq!(at(&pool, later), first);
}
