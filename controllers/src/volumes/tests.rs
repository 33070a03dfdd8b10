use super::plan::{EnginePod, EngineSecret, Grace, Observed, Pass, Plan, Step, plan};
use super::takeover::Trouble;
use super::{objects, status};
use crate::shared::conditions;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use weft_crds::volume::WireState;
use weft_crds::{Attachment, Drive, Phase, Slice, Volume};
use weft_spec::engine::{DriveWire, EngineState, EngineStatus};
use weft_spec::ids::{Boot, DocumentGeneration, Term, VolumeUid};
use weft_spec::nqn;

mod documents;
mod gone;
mod growing;
mod mirror;
mod moving;
mod placing;
mod wires;

const VOLUME: &str = "11111111-1111-4111-8111-111111111111";
const SLICE: &str = "22222222-2222-4222-8222-222222222222";
const DRIVE: &str = "33333333-3333-4333-8333-333333333333";

/// An engine, anywhere.
const STARTS: Step = Step::StartEngine { away_from: None };

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn volume(status: Value) -> Volume {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Volume",
        "metadata": {"name": "db", "uid": "k8s", "generation": 1, "resourceVersion": "7",
            "finalizers": ["weft.storage/operator"]},
        "spec": {"uid": VOLUME, "pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"},
        "status": status,
    }))
}

fn deleting(mut volume: Volume) -> Volume {
    volume.metadata.deletion_timestamp = Some(Time(now()));
    volume
}

fn slice(phase: &str) -> Slice {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Slice",
        "metadata": {"name": "db-a"},
        "spec": {"uid": SLICE, "volume": "db", "volumeUid": VOLUME, "drive": "d0", "driveUid": DRIVE,
            "size": "1Gi", "overcommitPercent": 100},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "False", "reason": "DriveNotReady",
            "message": "waits for drive d0", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
}

fn drive(name: &str, address: &str, size: &str) -> Drive {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Drive",
        "metadata": {"name": name},
        "spec": {"uid": DRIVE, "hostExport": {"node": "n1", "file": {"path": "/d", "size": size}}, "adoption": "IfBlank"},
        "status": {"phase": "Ready", "size": size, "address": address, "documentGeneration": 1},
    }))
}

fn attachment(name: &str, source: Option<&str>) -> Attachment {
    let observed =
        source.map(|s| json!({"source": s, "identity": nqn::volume(uid()), "staged": true}));
    let status = observed.map(|observed| json!({"observed": observed}));
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Attachment", "metadata": {"name": name},
        "spec": {"volume": "db", "node": "n3"}, "status": status.unwrap_or(json!({})),
    }))
}

fn uid() -> VolumeUid {
    VOLUME.parse().unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn pod(term: i64) -> EnginePod {
    EnginePod {
        name: format!("db-11111111-{term}"),
        term,
        ip: Some("10.0.0.9".parse().unwrap()),
        node: "n2".into(),
        deleting: false,
        trouble: None,
        waiting: String::new(),
    }
}

fn secret(term: i64, generation: i64) -> EngineSecret {
    EngineSecret {
        name: format!("db-11111111-{term}"),
        term,
        generation,
    }
}

fn report(term: u64, generation: u64, state: EngineState) -> EngineStatus {
    EngineStatus {
        version: 1,
        volume: uid(),
        term: Term(term),
        boot: Boot(1),
        document_generation: DocumentGeneration(generation),
        state,
        reason: "Serving".into(),
        message: String::new(),
        size: 1 << 30,
        hosts: vec![],
        members: vec![],
        drives: vec![DriveWire {
            slice: SLICE.parse().unwrap(),
            drive_name: "d0".into(),
            connected: true,
            address: "10.0.0.1:4421".parse().unwrap(),
            local: Some("10.0.0.9:50000".parse().unwrap()),
            seen_by_drive: Some("10.0.0.9:50000".parse().unwrap()),
            identity: Some(nqn::slice(SLICE.parse().unwrap())),
            reason: String::new(),
        }],
    }
}

fn member(address: &str) -> Value {
    json!({"slice": "db-a", "sliceUid": SLICE, "drive": "d0", "driveUid": DRIVE, "address": address})
}

/// A volume that serves in term 3 with document 5.
fn serving() -> Observed {
    let status = json!({
        "phase": "Ready", "term": 3, "documentGeneration": 5, "attachGeneration": 1, "formed": true,
        "members": [member("10.0.0.1:4421")],
        "engine": {"pod": "db-11111111-3", "node": "n2", "address": "10.0.0.9:4420", "acknowledged": 5,
            "serving": true, "since": "2026-01-01T11:00:00Z"},
    });
    Observed {
        volume: volume(status),
        slices: vec![slice("Ready")],
        drives: vec![drive("d0", "10.0.0.1:4421", "4Gi")],
        placement: None,
        pods: vec![pod(3)],
        secrets: vec![secret(3, 5)],
        attachments: vec![],
        report: Some(report(3, 5, EngineState::Serving)),
        heard: vec![],
        engine_port: 4420,
        now: now(),
    }
}

fn fresh() -> Observed {
    Observed {
        volume: volume(json!({})),
        slices: vec![],
        drives: vec![],
        pods: vec![],
        secrets: vec![],
        report: None,
        ..serving()
    }
}

fn pass(o: &Observed) -> Pass {
    match plan(o) {
        Plan::Pass(pass) => *pass,
        other => panic!("{other:?}"),
    }
}

fn ready(pass: &Pass) -> (String, String) {
    let ready = conditions::get(&pass.status.conditions, status::READY).unwrap();
    (ready.reason.clone(), ready.message.clone())
}

#[test]
fn a_new_volume_is_claimed_with_an_identity_and_nothing_else() {
    let mut o = fresh();
    (o.volume.metadata.finalizers, o.volume.spec.uid) = (None, None);
    assert!(matches!(plan(&o), Plan::Claim(Some(_))));
    o.volume.spec.uid = Some(VOLUME.into());
    assert_eq!(plan(&o), Plan::Claim(None));
}

#[test]
fn a_slice_that_waits_lends_the_volume_its_words() {
    let o = Observed {
        slices: vec![slice("Pending")],
        ..fresh()
    };
    let pass = pass(&o);
    assert_eq!(
        ready(&pass),
        (
            "DriveNotReady".into(),
            "slice db-a: waits for drive d0".into()
        )
    );
    assert!(pass.steps.is_empty() && pass.status.members.is_empty());
}

#[test]
fn an_allocated_slice_becomes_a_member_and_gets_its_engine_in_one_swap() {
    let o = Observed {
        slices: vec![slice("Ready")],
        drives: serving().drives,
        ..fresh()
    };
    let pass = pass(&o);
    assert_eq!(pass.status.members[0].address, "10.0.0.1:4421");
    assert_eq!((pass.status.term, pass.status.document_generation), (1, 1));
    assert_eq!(pass.status.engine.as_ref().unwrap().pod, "db-11111111-1");
    assert_eq!(pass.steps, [STARTS]);
}

#[test]
fn a_drive_without_an_address_gets_no_engine() {
    let o = Observed {
        slices: vec![slice("Ready")],
        drives: vec![drive("d0", "", "4Gi")],
        ..fresh()
    };
    let pass = pass(&o);
    assert_eq!(
        (ready(&pass).0.as_str(), pass.status.term),
        ("DriveUnreachable", 0)
    );
}

#[test]
fn a_serving_volume_is_left_alone_and_its_status_settles() {
    let mut o = serving();
    let first = pass(&o);
    assert!(first.steps.is_empty() && first.notes.is_empty() && first.again.is_none());
    assert_eq!(
        (first.status.phase, first.status.replicas.as_deref()),
        (Phase::Ready, Some("1/1"))
    );
    o.volume.status = Some(first.status.clone());
    o.now += SignedDuration::from_secs(60);
    assert_eq!(
        pass(&o).status,
        first.status,
        "a pass that finds nothing new changes nothing"
    );
}

#[test]
fn another_term_is_raised_for_every_way_in_which_an_engine_ends() {
    type Change = fn(&mut Observed);
    let cases: [(&str, Change); 8] = [
        ("no pod bears the term before", |o| o.pods.clear()),
        ("is being deleted", |o| o.pods[0].deleting = true),
        ("the Secret of the pod before is gone", |o| {
            o.secrets.clear()
        }),
        ("it ended (Evicted)", |o| {
            o.pods[0].trouble = Some(Trouble::Ended("Evicted".into()))
        }),
        ("it fails at each start", |o| {
            o.pods[0].trouble = Some(Trouble::CrashLoop("x".into()))
        }),
        ("its node is no more", |o| {
            o.pods[0].trouble = Some(Trouble::NodeGone)
        }),
        ("its node does not report", |o| {
            o.pods[0].trouble = Some(Trouble::NodeNotReady)
        }),
        ("was fenced", |o| {
            o.report = Some(report(3, 5, EngineState::Parked))
        }),
    ];
    for (cause, change) in cases {
        let mut o = serving();
        change(&mut o);
        let pass = pass(&o);
        assert_eq!(
            (pass.status.term, pass.status.document_generation),
            (4, 6),
            "{cause}"
        );
        let starts = |step: &Step| matches!(step, Step::StartEngine { .. });
        assert!(pass.steps.iter().any(starts), "{cause}");
        assert!(pass.notes[0].text.contains(cause), "{:?}", pass.notes);
        let engine = pass.status.engine.unwrap();
        assert_eq!(
            (engine.pod.as_str(), engine.acknowledged, engine.serving),
            ("db-11111111-4", 0, false)
        );
    }
}

#[test]
fn no_term_is_raised_when_the_silent_node_has_the_drive_too() {
    let mut o = serving();
    o.pods[0].trouble = Some(Trouble::NodeNotReady);
    o.pods[0].node = "n1".into();
    let pass = pass(&o);
    assert_eq!((pass.status.term, pass.status.phase), (3, Phase::Paused));
    assert_eq!(ready(&pass).0, "NodeNotReady");
}

#[test]
fn an_engine_that_never_served_is_given_time_before_the_next() {
    let mut o = serving();
    o.report = None;
    o.pods[0].trouble = Some(Trouble::CrashLoop("exit 1".into()));
    let engine = o.volume.status.as_mut().unwrap().engine.as_mut().unwrap();
    engine.serving = false;
    engine.since = Some(Time(now() - SignedDuration::from_secs(4)));
    let early = pass(&o);
    assert_eq!(
        (early.status.term, early.again),
        (3, Some(std::time::Duration::from_secs(6)))
    );
    assert_eq!(ready(&early).0, "EngineFailed");
    o.now += SignedDuration::from_secs(6);
    assert_eq!(pass(&o).status.term, 4);
}

#[test]
fn a_term_seen_anywhere_is_never_used_again() {
    let mut o = serving();
    o.pods = vec![];
    o.secrets = vec![secret(9, 40)];
    let mut fenced = slice("Ready");
    fenced.status.as_mut().unwrap().fence = Some(weft_crds::common::Fence { term: 12, boot: 3 });
    o.slices = vec![fenced];
    let pass = pass(&o);
    assert_eq!(
        (pass.status.term, pass.status.document_generation),
        (13, 41)
    );
}

#[test]
fn another_terms_word_counts_nothing() {
    let mut o = serving();
    o.report = Some(report(2, 99, EngineState::Parked));
    let pass = pass(&o);
    assert_eq!((pass.status.term, pass.status.document_generation), (3, 5));
}

#[test]
fn pods_of_lower_terms_go_when_the_new_one_serves_or_when_they_are_broken() {
    let mut o = serving();
    o.pods.push(pod(2));
    o.secrets.push(secret(2, 4));
    o.secrets.push(secret(1, 3));
    let gone = Step::DeletePod {
        name: "db-11111111-2".into(),
        grace: Grace::Whole,
    };
    let leftover = Step::DeleteSecret("db-11111111-1".into());
    assert_eq!(pass(&o).steps, [gone.clone(), leftover.clone()]);
    o.report = Some(report(3, 5, EngineState::Starting));
    assert_eq!(pass(&o).steps, std::slice::from_ref(&leftover));
    o.pods[1].trouble = Some(Trouble::NodeNotReady);
    assert_eq!(pass(&o).steps, [gone, leftover]);
}

#[test]
fn deletion_waits_for_attachments_then_engine_then_slices_then_lets_go() {
    let mut o = serving();
    o.volume = deleting(o.volume);
    o.volume.status.as_mut().unwrap().hosts =
        of(json!([{"attachment": "a1", "node": "n3", "generation": 1}]));
    o.attachments = vec![attachment("a1", None)];
    let held = pass(&o);
    assert_eq!((held.steps.len(), held.status.phase), (0, Phase::Deleting));
    assert!(
        ready(&held)
            .1
            .contains("kubectl delete attachments.weft.storage a1")
    );

    o.attachments.clear();
    let pod_goes = pass(&o);
    assert!(
        pod_goes.status.hosts.is_empty(),
        "an entry whose attachment is gone holds nothing"
    );
    assert_eq!(
        pod_goes.steps,
        [Step::DeletePod {
            name: "db-11111111-3".into(),
            grace: Grace::Short,
        }]
    );
    assert!(pod_goes.status.engine.is_some());

    o.pods.clear();
    let slices_go = pass(&o);
    assert_eq!(slices_go.status.engine, None, "said before any slice goes");
    let steps = [
        Step::DeleteSecret("db-11111111-3".into()),
        Step::DeleteSlice("db-a".into()),
    ];
    assert_eq!(slices_go.steps, steps);

    (o.secrets, o.slices) = (vec![], vec![]);
    assert_eq!(plan(&o), Plan::Release);
}

#[test]
fn a_slice_of_another_volume_under_our_name_is_never_touched() {
    let mut foreign = slice("Ready");
    foreign.spec.volume_uid = DRIVE.into();
    let o = Observed {
        slices: vec![foreign],
        ..fresh()
    };
    let pass = pass(&o);
    assert_eq!(
        (ready(&pass).0.as_str(), pass.steps.len()),
        ("SliceNameTaken", 0)
    );
}

#[test]
fn an_operator_that_just_started_keeps_what_was_proven() {
    let mut o = serving();
    o.volume.status = Some(pass(&o).status);
    o.report = None;
    let pass = pass(&o);
    assert_eq!(
        (pass.status.phase, pass.status.wires[0].state),
        (Phase::Ready, WireState::Ready)
    );
    assert!(pass.steps.is_empty());
}

#[test]
fn an_engines_pod_passes_the_restricted_profile_and_avoids_dead_nodes() {
    let settings = crate::testing::settings();
    let o = serving();
    let place = objects::place(&settings, &o.volume, uid(), 3);
    let pod = objects::pod(
        &settings,
        &crate::testing::fabric(),
        &place,
        &objects::Wish::default(),
    );
    let text = serde_json::to_value(&pod).unwrap();
    let spec = &text["spec"];
    let container = &spec["containers"][0];
    let security = &container["securityContext"];
    assert_eq!(spec["automountServiceAccountToken"], false);
    assert_eq!(spec["enableServiceLinks"], false);
    assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
    assert_eq!(spec["securityContext"]["fsGroup"], 65532);
    assert_eq!(security["allowPrivilegeEscalation"], false);
    assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}));
    assert_eq!(security["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(
        spec["tolerations"],
        json!([
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
        ])
    );
    assert!(spec.get("hostNetwork").is_none() && spec["volumes"][0].get("hostPath").is_none());
    let owner = &text["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["controller"]),
        (&json!("Volume"), &json!(true))
    );
}
