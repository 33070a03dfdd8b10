use super::placing::pool;
use super::{STARTS, VOLUME, fresh, now, of, pass, ready, report, serving};
use crate::shared::conditions;
use crate::volumes::objects::{self, Facts};
use crate::volumes::plan::{Observed, Pass, Placement, Step};
use crate::volumes::silence;
use crate::volumes::status::REDUNDANT;
use crate::volumes::takeover::Trouble;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};
use weft_crds::volume::MemberState;
use weft_crds::{Drive, Phase, Slice, SliceRole};
use weft_spec::control::ControlLink;
use weft_spec::drive::{MemberState as Reported, SliceStatus};
use weft_spec::engine::{DriveWire, EngineState, EngineStatus, MemberStatus, Stack};
use weft_spec::ids::{Boot, FencePair, Term};
use weft_spec::keys::Key;
use weft_spec::nqn;

const LINEAGE: &str = "77777777-7777-4777-8777-777777777777";

pub(super) fn slice_uid(letter: char) -> String {
    let number = u32::from(letter);
    format!("222222{number:02x}-2222-4222-8222-222222222222")
}

fn drive_uid(number: usize) -> String {
    format!("3333333{number}-3333-4333-8333-333333333333")
}

/// Drive `d<number>` on node `n<number>`.
pub(super) fn drive(number: usize) -> Drive {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Drive", "metadata": {"name": format!("d{number}")},
        "spec": {"uid": drive_uid(number), "adoption": "IfBlank",
            "hostExport": {"node": format!("n{number}"), "file": {"path": "/d", "size": "4Gi"}}},
        "status": {"phase": "Ready", "size": "4Gi", "address": format!("10.0.0.{number}:4421"), "documentGeneration": 1},
    }))
}

pub(super) fn node(number: usize) -> Node {
    let name = format!("n{number}");
    of(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}))
}

pub(super) fn slice(letter: char, number: usize, phase: &str) -> Slice {
    let (role, size) = match letter {
        'w' => ("Witness", "64Ki"),
        _ => ("Data", "1Gi"),
    };
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Slice", "metadata": {"name": format!("db-{letter}")},
        "spec": {"uid": slice_uid(letter), "volume": "db", "volumeUid": VOLUME, "drive": format!("d{number}"),
            "driveUid": drive_uid(number), "size": size, "role": role, "overcommitPercent": 100},
        "status": {"phase": phase, "size": size, "conditions": [{"type": "Ready", "status": "False",
            "reason": "DriveNotReady", "message": "waits", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }))
}

pub(super) fn slices(phase: &str) -> Vec<Slice> {
    [('a', 1), ('b', 2), ('w', 3)]
        .map(|(letter, number)| slice(letter, number, phase))
        .into()
}

pub(super) fn member(letter: char, number: usize) -> Value {
    let role = if letter == 'w' { "Witness" } else { "Data" };
    json!({"slice": format!("db-{letter}"), "sliceUid": slice_uid(letter), "drive": format!("d{number}"),
        "driveUid": drive_uid(number), "address": format!("10.0.0.{number}:4421"), "role": role})
}

pub(super) fn wire(letter: char, number: usize) -> DriveWire {
    let slice = slice_uid(letter).parse().unwrap();
    DriveWire {
        slice,
        drive_name: format!("d{number}"),
        connected: true,
        address: format!("10.0.0.{number}:4421").parse().unwrap(),
        local: Some("10.0.0.9:50000".parse().unwrap()),
        seen_by_drive: Some("10.0.0.9:50000".parse().unwrap()),
        identity: Some(nqn::slice(slice)),
        reason: String::new(),
    }
}

pub(super) fn said(a: Reported, b: Reported) -> EngineStatus {
    let member = |letter, state| MemberStatus {
        slice: slice_uid(letter).parse().unwrap(),
        state,
    };
    EngineStatus {
        drives: vec![wire('a', 1), wire('b', 2), wire('w', 3)],
        members: vec![member('a', a), member('b', b)],
        ..report(3, 5, EngineState::Serving)
    }
}

/// A mirror of two that serves in term 3 with document 5; its engine runs on node `n2`.
pub(super) fn mirrored() -> Observed {
    let mut o = serving();
    o.volume.spec.replicas = 2;
    let status = o.volume.status.as_mut().unwrap();
    status.members = of(json!([member('a', 1), member('b', 2), member('w', 3)]));
    status.lineage = Some(LINEAGE.into());
    o.slices = slices("Ready");
    o.drives = (1..=3).map(drive).collect();
    o.report = Some(said(Reported::Current, Reported::Current));
    o
}

fn placing(drives: &[usize], slices: Vec<Slice>) -> Observed {
    let mut o = fresh();
    o.volume.spec.replicas = 2;
    o.placement = Some(Placement {
        pool: Some(pool("100%")),
        drives: drives.iter().map(|n| drive(*n)).collect(),
        nodes: (1..=4).map(node).collect(),
        slices: slices.clone(),
    });
    o.slices = slices;
    o
}

fn redundant(pass: &Pass) -> (String, String) {
    let told = conditions::get(&pass.status.conditions, REDUNDANT).unwrap();
    (told.reason.clone(), told.message.clone())
}

#[test]
fn two_replicas_are_two_slices_and_a_witness_in_three_domains() {
    let pass = pass(&placing(&[1, 2, 3], vec![]));
    let made: Vec<_> = pass
        .steps
        .iter()
        .map(|step| match step {
            Step::CreateSlice(s) => (
                s.metadata.name.clone().unwrap(),
                s.spec.drive.clone(),
                s.spec.role,
                s.spec.size.0.clone(),
            ),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        ("db-a", "d1", SliceRole::Data, "1Gi"),
        ("db-b", "d2", SliceRole::Data, "1Gi"),
        ("db-w", "d3", SliceRole::Witness, "64Ki"),
    ]
    .map(|(n, d, r, s)| (n.to_owned(), d.to_owned(), r, s.to_owned()));
    assert_eq!(made, expected);
}

#[test]
fn a_pass_cut_short_makes_the_slices_that_are_missing_and_no_others() {
    let pass = pass(&placing(&[1, 2, 3], vec![slice('b', 1, "Ready")]));
    let made: Vec<_> = pass
        .steps
        .iter()
        .map(|step| match step {
            Step::CreateSlice(s) => (s.metadata.name.clone().unwrap(), s.spec.drive.clone()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [("db-a", "d2"), ("db-w", "d3")].map(|(n, d)| (n.to_owned(), d.to_owned()));
    assert_eq!(made, expected);
}

#[test]
fn too_few_domains_make_nothing_and_say_what_there_is() {
    let pass = pass(&placing(&[1, 2], vec![]));
    assert!(pass.steps.is_empty(), "{:?}", pass.steps);
    let (reason, message) = ready(&pass);
    assert_eq!(reason, "TooFewDomains");
    assert!(
        message.contains("3 slices (one of them a witness"),
        "{message}"
    );
    assert!(message.contains("on 2: n1, n2"), "{message}");
}

#[test]
fn no_engine_starts_before_every_slice_is_allocated() {
    let mut o = placing(&[1, 2, 3], slices("Ready"));
    o.drives = (1..=3).map(drive).collect();
    o.slices[1] = slice('b', 2, "Pending");
    let waits = pass(&o);
    assert!(waits.steps.is_empty() && waits.status.members.is_empty());
    assert_eq!(ready(&waits).1, "slice db-b: waits");
    o.slices[1] = slice('b', 2, "Ready");
    let starts = pass(&o);
    assert_eq!((starts.status.members.len(), starts.status.term), (3, 1));
    assert_eq!(starts.steps, [STARTS]);
    assert!(starts.status.lineage.is_some());
}

#[test]
fn the_document_names_members_and_witness_and_whether_the_volume_was_formed() {
    let facts = Facts {
        cluster: weft_spec::ids::ClusterUid::random(),
        master: Key::random(),
        port: 4420,
    };
    let link = || ControlLink {
        port: 1,
        certificate: String::new(),
        key: String::new(),
        operator_certificate: String::new(),
        operator: String::new(),
    };
    let mut volume = mirrored().volume;
    let document = objects::document(&volume, &facts, link()).unwrap();
    let Stack::Mirror(mirror) = &document.stack else {
        panic!("{:?}", document.stack)
    };
    assert_eq!((mirror.members.len(), mirror.witnesses.len()), (2, 1));
    assert!(mirror.formed && mirror.recovery.is_none());
    assert_eq!(mirror.lineage.to_string(), LINEAGE);
    assert_eq!(mirror.witnesses[0].drive_name, "d3");
    volume.status.as_mut().unwrap().lineage = None;
    assert!(objects::document(&volume, &facts, link()).is_err());
}

#[test]
fn the_first_word_of_an_engine_that_serves_makes_a_document_that_says_formed() {
    let mut o = mirrored();
    o.volume.status.as_mut().unwrap().formed = false;
    let pass = pass(&o);
    assert!(pass.status.formed);
    assert_eq!(pass.status.document_generation, 6);
}

#[test]
fn a_whole_mirror_is_ready_and_redundant_and_its_status_settles() {
    let mut o = mirrored();
    let first = pass(&o);
    assert_eq!(
        (first.status.phase, first.status.replicas.as_deref()),
        (Phase::Ready, Some("2/2"))
    );
    assert_eq!(redundant(&first).0, "AllInSync");
    o.volume.status = Some(first.status.clone());
    o.now += SignedDuration::from_secs(60);
    assert_eq!(pass(&o).status, first.status);
}

#[test]
fn a_member_that_is_lost_degrades_the_volume_and_is_named_with_its_wire_and_time() {
    let mut o = mirrored();
    o.volume.status = Some(pass(&o).status);
    o.now += SignedDuration::from_secs(60);
    let mut lost = said(Reported::Current, Reported::Rebuilding);
    (lost.drives[1].connected, lost.drives[1].reason) = (false, "no route".into());
    o.report = Some(lost);
    let degraded = pass(&o);
    assert_eq!(
        (degraded.status.phase, degraded.status.replicas.as_deref()),
        (Phase::Degraded, Some("1/2"))
    );
    let (reason, message) = redundant(&degraded);
    assert_eq!(reason, "MemberStale");
    for part in [
        "slice db-b on drive d2 does not answer since 2026-01-01T12:01:00Z",
        "wire engine/db to drive/d2: no route",
        "writes go on with 1 of 2 members",
    ] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        degraded.status.members[1].state,
        Some(MemberState::OutOfSync)
    );
    assert_eq!(ready(&degraded).0, "Serving");

    o.volume.status = Some(degraded.status);
    o.now += SignedDuration::from_secs(60);
    o.report = Some(said(Reported::Current, Reported::Rebuilding));
    let rebuilding = pass(&o);
    let (reason, message) = redundant(&rebuilding);
    assert_eq!(reason, "Rebuilding");
    assert!(message.contains("12:01:00Z"), "{message}");
    assert_eq!(rebuilding.status.phase, Phase::Degraded);
}

#[test]
fn a_witness_that_is_silent_is_told_too() {
    let mut o = mirrored();
    o.report.as_mut().unwrap().drives[2].connected = false;
    let pass = pass(&o);
    assert_eq!(pass.status.phase, Phase::Degraded);
    let (reason, message) = redundant(&pass);
    assert_eq!(reason, "WitnessSilent");
    assert!(message.contains("db-w on drive d3"), "{message}");
    assert_eq!(pass.status.replicas.as_deref(), Some("2/2"));
}

#[test]
fn another_term_is_raised_only_when_the_slices_elsewhere_can_serve() {
    // The engine's node is n2: member b is lost with it.
    type Change = fn(&mut Observed);
    let cases: [(bool, Change); 4] = [
        (true, |_| {}),
        (false, |o| {
            o.report = Some(said(Reported::Rebuilding, Reported::Current))
        }),
        (true, |o| {
            o.report = Some(said(Reported::Current, Reported::Rebuilding))
        }),
        (false, |o| o.drives[2].spec.host_export.node = "n2".into()),
    ];
    for (number, (another, change)) in cases.into_iter().enumerate() {
        let mut o = mirrored();
        o.pods[0].trouble = Some(Trouble::NodeNotReady);
        change(&mut o);
        let pass = pass(&o);
        assert_eq!(pass.status.term == 4, another, "case {number}");
    }
}

#[test]
fn every_slice_with_the_data_grows_and_the_witness_does_not() {
    let mut o = mirrored();
    let size = |text: &str| k8s_openapi::apimachinery::pkg::api::resource::Quantity(text.into());
    o.volume.spec.size = size("2Gi");
    let status = o.volume.status.as_mut().unwrap();
    (status.size, status.allocated) = (Some(size("1Gi")), Some(size("1Gi")));
    o.placement = placing(&[1, 2, 3], o.slices.clone()).placement;
    let mut grown = Vec::new();
    for _ in 0..2 {
        let pass = pass(&o);
        let [Step::GrowSlice(larger)] = pass.steps.as_slice() else {
            panic!("{:?}", pass.steps)
        };
        grown.push(larger.metadata.name.clone().unwrap());
        let name = &larger.metadata.name;
        let slice = o.slices.iter_mut().find(|s| s.metadata.name == *name);
        slice.unwrap().spec.size = larger.spec.size.clone();
    }
    assert_eq!(grown, ["db-a", "db-b"]);
    assert!(pass(&o).steps.is_empty());
    let at_drive = |o: &mut Observed, nth: usize| {
        o.slices[nth].status.as_mut().unwrap().size = Some(size("2Gi"));
    };
    at_drive(&mut o, 0);
    assert_eq!(pass(&o).status.allocated, Some(size("1Gi")));
    at_drive(&mut o, 1);
    assert_eq!(pass(&o).status.allocated, Some(size("2Gi")));
    assert_eq!(now(), o.now);
}

fn word(letter: char, term: u64, connections: u32) -> SliceStatus {
    SliceStatus {
        slice: slice_uid(letter).parse().unwrap(),
        volume: VOLUME.parse().unwrap(),
        size: 1 << 30,
        allocated: 0,
        fence: FencePair {
            term: Term(term),
            boot: Boot(1),
        },
        connections,
    }
}

#[test]
fn a_restored_backup_never_raises_a_term_that_a_drive_has_heard() {
    let rows = [
        ("none has heard another", [3, 3, 3], 4),
        ("all are ahead", [7, 7, 7], 8),
        ("one alone is ahead", [3, 9, 3], 10),
        ("all are behind", [2, 2, 2], 4),
    ];
    for (what, [a, b, w], wanted) in rows {
        let mut o = mirrored();
        (o.pods, o.secrets) = (vec![], vec![]);
        o.heard = vec![word('a', a, 0), word('b', b, 0), word('w', w, 0)];
        let pass = pass(&o);
        assert_eq!(pass.status.term, wanted, "{what}");
        assert!(pass.steps.contains(&STARTS), "{what}: {:?}", pass.steps);
    }
}

#[test]
fn an_engine_is_missed_only_when_most_of_its_drives_have_lost_that_very_term() {
    let cases = [
        (true, [word('a', 3, 0), word('b', 3, 1), word('w', 3, 0)]),
        (false, [word('a', 3, 1), word('b', 3, 1), word('w', 3, 0)]),
        (false, [word('a', 2, 0), word('b', 2, 0), word('w', 3, 0)]),
    ];
    for (missed, words) in cases {
        let mut o = mirrored();
        o.heard = words.into();
        let status = o.volume.status.clone().unwrap();
        assert_eq!(silence::is_missed(&o, &status), missed, "{:?}", o.heard);
        let looked = pass(&o);
        assert_eq!(
            looked.status.term, 3,
            "evidence of drives alone starts nothing"
        );
        assert_eq!(looked.again.is_some(), missed);
    }
    let mut o = mirrored();
    o.heard = vec![word('a', 3, 0), word('w', 3, 0)];
    let status = o.volume.status.as_mut().unwrap();
    status.engine.as_mut().unwrap().serving = false;
    let status = status.clone();
    assert!(!silence::is_missed(&o, &status), "it has not served yet");
}

#[test]
fn an_engine_that_is_missed_and_silent_is_followed_by_another_away_from_its_node() {
    let mut o = mirrored();
    o.pods[0].trouble = Some(Trouble::Silent);
    let pass = pass(&o);
    assert_eq!(pass.status.term, 4);
    let away = Step::StartEngine {
        away_from: Some("n2".into()),
    };
    assert!(pass.steps.contains(&away), "{:?}", pass.steps);
}
