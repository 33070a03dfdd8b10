//! A run that meets what an earlier one, or somebody else, has made.

use super::{
    LINEAGE, OTHER, VOLUME, each, held, mirror, of, only, plan, record, slice, started, uid, whole,
};
use crate::adopt::objects::is_unplaced;
use crate::adopt::plan::{Adoption, Observed, Plan};
use crate::shared::labels::ADOPTION;
use crate::volumes;
use crate::volumes::held::is_held;
use serde_json::{Value, json};
use weft_crds::Volume;
use weft_spec::drive::RecordedSlice;

/// What the API server has after a run.
fn written(o: &mut Observed, adoption: Adoption) {
    let mut volume = adoption.volume;
    volume.metadata.resource_version = Some("7".into());
    if adoption.held.is_none() {
        volume
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .remove(ADOPTION);
    }
    o.volumes = vec![volume];
    o.slices.extend(adoption.slices);
}

fn with_slice(o: &mut Observed, drive: usize, slice: RecordedSlice) {
    o.drives[drive].answer.as_mut().unwrap().push(slice);
}

fn volume(uid: &str, name: &str, status: Value) -> Volume {
    of(
        json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Volume",
        "metadata": {"name": name, "finalizers": ["weft.storage/operator"]},
        "spec": {"uid": uid, "pool": "fast", "size": "1Gi", "replicas": 2, "onNoData": "Pause"}, "status": status}),
    )
}

#[test]
fn a_run_after_a_run_has_nothing_to_do() {
    let mut o = mirror();
    let first = only(plan(&o));
    written(&mut o, first);
    assert!(!is_held(&o.volumes[0]));
    assert_eq!(plan(&o), Plan::default());
}

#[test]
fn a_run_that_was_cut_short_is_done_again_in_place() {
    let mut o = mirror();
    let first = only(plan(&o));
    let mut bare = first.volume.clone();
    (bare.status, bare.metadata.resource_version) = (None, Some("3".into()));
    o.volumes = vec![bare];
    o.slices = first.slices[..1].to_vec();
    let second = only(plan(&o));
    assert_eq!(second.volume.status, first.volume.status);
    assert_eq!(second.slices, first.slices[1..]);
    assert_eq!(
        second.volume.metadata.resource_version.as_deref(),
        Some("3")
    );
}

#[test]
fn a_held_volume_is_started_by_the_drives_that_come_and_forgets_nothing() {
    let mut o = each("b", |_| Some(whole()));
    assert_eq!(held(&o).reason, "NoMajority");
    let first = only(plan(&o));
    written(&mut o, first);
    let there = o.volumes[0].status.as_mut().unwrap();
    (there.attach_generation, there.term) = (31, 8);
    there.hosts = of(json!([{"attachment": "a1", "node": "n1", "generation": 31}]));
    // Taking the annotation away by hand starts nothing.
    o.volumes[0].metadata.annotations = None;
    assert!(is_held(&o.volumes[0]));
    with_slice(&mut o, 0, slice('a', Some(whole())));
    let (volume, slices) = started(&o);
    assert!(!is_held(&volume));
    let status = volume.status.unwrap();
    assert_eq!(
        (status.attach_generation, status.term, status.hosts.len()),
        (31, 8, 1)
    );
    assert_eq!(slices.len(), 2);
}

#[test]
fn an_object_that_cannot_have_the_right_replicas_says_so() {
    let mut o = each("a", |_| None);
    let first = only(plan(&o));
    assert_eq!(first.volume.spec.replicas, 1);
    written(&mut o, first);
    o.drives[0].answer = Ok(vec![slice('a', Some(whole())), slice('b', Some(whole()))]);
    assert_eq!(held(&o).reason, "ReplicasDiffer");
}

#[test]
fn a_member_that_is_found_later_gets_its_place_and_a_document() {
    let mut o = each("aw", |_| Some(whole()));
    let first = only(plan(&o));
    written(&mut o, first);
    let before = o.volumes[0].status.clone().unwrap();
    assert!(is_unplaced(&before.members[1]));
    with_slice(&mut o, 1, slice('b', Some(whole())));
    let (volume, slices) = started(&o);
    let status = volume.status.clone().unwrap();
    let found = &status.members[1];
    assert_eq!(
        (found.drive.as_str(), found.address.as_str()),
        ("d2", "10.0.0.2:4421")
    );
    assert_eq!(status.document_generation, before.document_generation + 1);
    assert_eq!(
        (slices.len(), &slices[0].metadata.name),
        (1, &Some(found.slice.clone()))
    );
    assert_eq!(status.term, before.term, "an engine may be at work");
    o.volumes = vec![volume];
    o.slices.extend(slices);
    assert_eq!(plan(&o), Plan::default());
}

#[test]
fn what_is_not_held_is_left_alone() {
    let members = json!([{"slice": "db-a", "sliceUid": uid('a'), "drive": "d1", "driveUid": "d"}]);
    let mut o = mirror();
    o.volumes = vec![volume(VOLUME, "db", json!({"term": 1, "members": members}))];
    let left = plan(&o);
    assert!(left.adoptions.is_empty());
    assert!(
        left.remarks[0].contains("Volume db") && left.remarks[0].contains(&uid('b').to_string()),
        "{left:?}"
    );
    o.volumes = vec![volume(VOLUME, "db", json!({}))];
    assert_eq!(
        plan(&o),
        Plan::default(),
        "not placed yet: its own controller does that"
    );
    o.volumes[0].metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
    assert!(plan(&o).adoptions.is_empty() && plan(&o).remarks[0].contains("being deleted"));
    o.volumes = vec![volume(OTHER, &format!("adopted-{VOLUME}"), json!({}))];
    let taken = plan(&o);
    assert!(
        taken.adoptions.is_empty() && taken.remarks[0].contains("--volume-name"),
        "{taken:?}"
    );
}

/// As the controller of volumes sees it.
fn seen_by_its_controller(o: &Observed, volume: Volume) -> volumes::plan::Observed {
    volumes::plan::Observed {
        volume,
        slices: o.slices.clone(),
        drives: o.drives.iter().map(|seen| seen.drive.clone()).collect(),
        placement: None,
        pods: vec![],
        secrets: vec![],
        attachments: vec![],
        report: None,
        heard: vec![],
        engine_port: 4420,
        now: o.now,
    }
}

#[test]
fn the_controller_starts_what_was_adopted_above_its_terms_and_touches_nothing_held() {
    use volumes::plan::{Plan as Pass, Step, plan as pass};
    let mut o = mirror();
    let first = only(plan(&o));
    let making = seen_by_its_controller(&o, first.volume.clone());
    assert_eq!(pass(&making), Pass::Held, "its slices are not there yet");
    written(&mut o, first);
    let Pass::Pass(started) = pass(&seen_by_its_controller(&o, o.volumes[0].clone())) else {
        panic!("held")
    };
    assert_eq!(started.status.term, 4);
    assert!(started.status.document_generation > 9);
    assert_eq!(started.status.lineage, Some(LINEAGE.to_string()));
    assert_eq!(started.steps, [Step::StartEngine { away_from: None }]);

    let minority = each("a", |_| Some(record((3, 1), 5, ["ab", "", "abw"])));
    let mut volume = only(plan(&minority)).volume;
    for annotated in [true, false] {
        if !annotated {
            volume.metadata.annotations = None;
        }
        let mut seen = seen_by_its_controller(&o, volume.clone());
        assert_eq!(pass(&seen), Pass::Held);
        // With the Slices of a restored backup: none of them goes.
        seen.volume.metadata.deletion_timestamp = Some(of(json!("2026-01-01T00:00:00Z")));
        assert_eq!(pass(&seen), Pass::Release);
    }
}
