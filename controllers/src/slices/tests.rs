use super::plan::{Answer, Ask, Observed, Plan, answered, plan};
use crate::shared::conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use weft_crds::{Phase, SliceStatus};
use weft_spec::drive::{DriveState, DriveStatus, SliceRequest, SliceStatus as Seen};
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, Term};

const VOLUME: &str = "11111111-1111-4111-8111-111111111111";
const SLICE: &str = "22222222-2222-4222-8222-222222222222";
const DRIVE: &str = "33333333-3333-4333-8333-333333333333";

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn seen() -> Seen {
    Seen {
        slice: SLICE.parse().unwrap(),
        volume: VOLUME.parse().unwrap(),
        size: 1 << 30,
        allocated: 3 << 20,
        fence: FencePair {
            term: Term(4),
            boot: Boot(2),
        },
        connections: 1,
    }
}

fn report(slices: Vec<Seen>) -> DriveStatus {
    DriveStatus {
        version: 1,
        drive: DRIVE.parse().unwrap(),
        document_generation: DocumentGeneration(1),
        document_tried: DocumentGeneration(1),
        state: DriveState::Serving,
        reason: "Serving".into(),
        message: String::new(),
        capacity: 4 << 30,
        free: 4 << 30,
        slices,
        health: weft_spec::drive::DriveHealth::default(),
    }
}

/// A slice that nobody was asked for yet, at a drive that serves.
fn fresh() -> Observed {
    Observed {
        slice: of(json!({
            "apiVersion": "weft.storage/v1alpha1", "kind": "Slice",
            "metadata": {"name": "db-a", "generation": 1, "finalizers": ["weft.storage/operator"]},
            "spec": {"uid": SLICE, "volume": "db", "volumeUid": VOLUME, "drive": "d0", "driveUid": DRIVE,
                "size": "1Gi", "overcommitPercent": 200},
        })),
        drive: Some(of(json!({
            "apiVersion": "weft.storage/v1alpha1", "kind": "Drive", "metadata": {"name": "d0"},
            "spec": {"uid": DRIVE, "hostExport": {"node": "n1", "file": {"path": "/d", "size": "4Gi"}},
                "adoption": "IfBlank"},
            "status": {"phase": "Ready", "documentGeneration": 1},
        }))),
        volume: None,
        report: Some(report(vec![])),
        now: "2026-01-01T12:00:00Z".parse().unwrap(),
    }
}

fn said(plan: Plan) -> SliceStatus {
    match plan {
        Plan::Say(status) => *status,
        other => panic!("{other:?}"),
    }
}

fn ready(status: &SliceStatus) -> (&str, &str) {
    let ready = conditions::get(&status.conditions, "Ready").unwrap();
    (&ready.reason, &ready.message)
}

fn allocated() -> Observed {
    let mut o = Observed {
        report: Some(report(vec![seen()])),
        ..fresh()
    };
    o.slice.status = Some(said(plan(&o)));
    o
}

fn deleting(mut o: Observed) -> Observed {
    o.slice.metadata.deletion_timestamp = Some(Time(o.now));
    o
}

fn with_volume(mut o: Observed, status: Value) -> Observed {
    o.volume = Some(of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Volume", "metadata": {"name": "db"},
        "spec": {"uid": VOLUME, "pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"},
        "status": status,
    })));
    o
}

fn member() -> Value {
    json!([{"slice": "db-a", "sliceUid": SLICE, "drive": "d0", "driveUid": DRIVE}])
}

#[test]
fn a_slice_is_claimed_then_asked_for_then_ready() {
    let mut unclaimed = fresh();
    unclaimed.slice.metadata.finalizers = None;
    assert_eq!(plan(&unclaimed), Plan::Claim);

    let request = SliceRequest {
        volume: VOLUME.parse().unwrap(),
        size: 1 << 30,
        overcommit_percent: 200,
    };
    let ask = Ask::Allocate(SLICE.parse().unwrap(), request);
    assert_eq!(plan(&fresh()), Plan::Ask(ask));

    let status = said(answered(&fresh(), &ask, &Answer::Allocated(seen())));
    assert_eq!(status.phase, Phase::Ready);
    assert_eq!(status.used.as_ref().unwrap().0, "3Mi");
    assert_eq!(status.fence.map(|f| (f.term, f.boot)), Some((4, 2)));
    assert!(conditions::is_true(&status.conditions, "Allocated"));
}

#[test]
fn a_settled_slice_is_left_alone() {
    let o = allocated();
    assert_eq!(Some(said(plan(&o))), o.slice.status);
}

#[test]
fn what_was_allocated_once_is_never_allocated_again() {
    let mut o = allocated();
    o.report = Some(report(vec![]));
    let look = Ask::Look(SLICE.parse().unwrap());
    assert_eq!(plan(&o), Plan::Ask(look), "its last word may be an old one");
    let there = said(answered(&o, &look, &Answer::Looked(report(vec![seen()]))));
    assert_eq!(there.phase, Phase::Ready);
    let lost = said(answered(&o, &look, &Answer::Looked(report(vec![]))));
    assert_eq!((lost.phase, ready(&lost).0), (Phase::Failed, "SliceLost"));
    o.slice.status = Some(lost);
    assert_eq!(plan(&o), Plan::Ask(look));
}

#[test]
fn a_slice_says_why_it_is_not_ready() {
    let mut no_drive = fresh();
    no_drive.drive = None;
    let mut other_drive = fresh();
    other_drive.drive.as_mut().unwrap().spec.uid = Some(VOLUME.into());
    let mut down = fresh();
    down.drive.as_mut().unwrap().status.as_mut().unwrap().phase = Phase::Pending;
    let mut down_later = allocated();
    down_later.drive = down.drive.clone();
    let cases = [
        (no_drive, Phase::Pending, "UnknownDrive"),
        (other_drive, Phase::Pending, "UnknownDrive"),
        (down, Phase::Pending, "DriveNotReady"),
        (down_later, Phase::Paused, "DriveNotReady"),
    ];
    for (o, phase, reason) in cases {
        let status = said(plan(&o));
        assert_eq!((status.phase, ready(&status).0), (phase, reason));
    }
}

#[test]
fn a_refusal_is_told_with_its_numbers_and_the_way_out() {
    let Plan::Ask(ask) = plan(&fresh()) else {
        panic!("not asked")
    };
    let full = Answer::Refused(507, "900Mi of 1Gi are promised".into());
    let status = said(answered(&fresh(), &ask, &full));
    let (reason, message) = ready(&status);
    assert_eq!(
        (status.phase, reason),
        (Phase::Pending, "NotEnoughCapacity")
    );
    assert!(message.contains("900Mi of 1Gi") && message.contains("kubectl delete slice db-a"));

    let taken = Answer::Refused(409, "it belongs to another volume".into());
    let status = said(answered(&fresh(), &ask, &taken));
    assert_eq!((status.phase, ready(&status).0), (Phase::Failed, "Refused"));

    let status = said(answered(
        &fresh(),
        &ask,
        &Answer::Unreachable("timed out".into()),
    ));
    assert_eq!(
        (status.phase, ready(&status).0),
        (Phase::Pending, "DriveUnreachable")
    );
}

#[test]
fn a_slice_that_an_engine_may_use_is_kept_however_often_it_is_deleted() {
    let engine = json!({"pod": "db-11111111-1"});
    let hosts = json!([{"attachment": "a", "node": "n", "generation": 1}]);
    for status in [
        json!({"members": member(), "engine": engine}),
        json!({"members": member(), "hosts": hosts}),
        json!({"members": member()}),
    ] {
        let status = said(plan(&with_volume(deleting(allocated()), status)));
        assert_eq!((status.phase, ready(&status).0), (Phase::Deleting, "InUse"));
    }
    let mut going = with_volume(
        deleting(allocated()),
        json!({"members": member(), "engine": engine}),
    );
    going.volume.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(going.now));
    assert_eq!(
        ready(&said(plan(&going))).0,
        "InUse",
        "its engine has not ended"
    );
}

#[test]
fn a_slice_is_freed_when_its_volume_is_gone_or_going_without_an_engine() {
    let free = Plan::Ask(Ask::Free(SLICE.parse().unwrap()));
    assert_eq!(plan(&deleting(allocated())), free, "no volume");
    let mut going = with_volume(deleting(allocated()), json!({"members": member()}));
    going.volume.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(going.now));
    assert_eq!(plan(&going), free, "going, no engine");
    assert_eq!(
        plan(&with_volume(deleting(allocated()), json!({}))),
        free,
        "never a member"
    );
    let mut other = with_volume(deleting(allocated()), json!({"members": member()}));
    other.volume.as_mut().unwrap().spec.uid = Some(DRIVE.into());
    assert_eq!(plan(&other), free, "another volume of that name");
}

#[test]
fn the_finalizer_goes_only_when_the_drive_has_freed_it_or_is_no_more() {
    let o = deleting(allocated());
    let ask = Ask::Free(SLICE.parse().unwrap());
    assert_eq!(answered(&o, &ask, &Answer::Freed), Plan::Release);
    let status = said(answered(&o, &ask, &Answer::Unreachable("no route".into())));
    let (reason, message) = ready(&status);
    assert_eq!(
        (status.phase, reason),
        (Phase::Deleting, "DriveUnreachable")
    );
    assert!(
        message.contains("waits for drive d0 to free it: no route"),
        "{message}"
    );
    let gone = Observed { drive: None, ..o };
    assert_eq!(plan(&gone), Plan::Release);
}

/// The volume shall have 3Gi, the drive has the slice of 1Gi.
fn growing() -> Observed {
    let mut o = allocated();
    o.slice.spec.size.0 = "3Gi".into();
    o
}

#[test]
fn a_slice_that_is_smaller_at_its_drive_is_asked_for_with_its_new_size() {
    let o = growing();
    let Plan::Ask(ask @ Ask::Allocate(_, request)) = plan(&o) else {
        panic!("{:?}", plan(&o))
    };
    assert_eq!(request.size, 3 << 30);
    let grown = Seen {
        size: 3 << 30,
        ..seen()
    };
    let status = said(answered(&o, &ask, &Answer::Allocated(grown)));
    assert_eq!(status.size.unwrap().0, "3Gi");
    assert!(conditions::get(&status.conditions, "Grown").is_none());
}

#[test]
fn a_drive_that_cannot_make_a_slice_larger_leaves_it_ready_as_it_is() {
    let mut o = growing();
    let Plan::Ask(ask) = plan(&o) else {
        panic!("not asked")
    };
    let full = Answer::Refused(507, "other slices have 2Gi".into());
    let status = said(answered(&o, &ask, &full));
    assert_eq!((status.phase, ready(&status).0), (Phase::Ready, "Serving"));
    assert_eq!(status.size.as_ref().unwrap().0, "1Gi");
    let grown = conditions::get(&status.conditions, "Grown").unwrap();
    assert_eq!(
        (grown.status.as_str(), grown.reason.as_str()),
        ("False", "NoRoom")
    );
    assert!(grown.message.contains("other slices have 2Gi"));

    o.slice.status = Some(status);
    assert_eq!(
        plan(&o),
        Plan::Ask(ask),
        "asked again when the drive says something"
    );
    let seen = Seen {
        size: 3 << 30,
        ..seen()
    };
    let status = said(answered(&o, &ask, &Answer::Allocated(seen)));
    assert!(conditions::is_true(&status.conditions, "Grown"));
}
