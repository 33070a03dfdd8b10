//! Plans and statuses of Drives as tables.

use super::objects::{self, DocumentParts};
use super::plan::{Observed, Plan, Step, plan};
use super::status::{ADOPTED, DELETABLE, READY, failed, status};
use crate::shared::conditions;
use crate::shared::errors::Error;
use crate::shared::labels::FINALIZER;
use crate::testing::settings;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::Arc;
use weft_crds::{Drive, Phase, Slice};
use weft_spec::control::ControlLink;
use weft_spec::drive::{DriveDocument, DriveState, DriveStatus};
use weft_spec::ids::{ClusterUid, DocumentGeneration, DriveUid};
use weft_spec::keys::Key;

mod gone;

const UID: &str = "5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c11";

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn file() -> Value {
    json!({"file": {"path": "/var/lib/weft/d0.img", "size": "1Gi"}})
}

fn drive(medium: Value) -> Drive {
    let mut export = json!({"node": "n1"});
    export
        .as_object_mut()
        .unwrap()
        .extend(medium.as_object().unwrap().clone());
    from(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Drive",
        "metadata": {"name": "n1-d0", "generation": 1, "uid": "u", "finalizers": [FINALIZER]},
        "spec": {"uid": UID, "hostExport": export, "adoption": "IfBlank"},
    }))
}

fn node(ready: &str) -> Node {
    from(json!({
        "metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
}

fn running() -> Pod {
    from(
        json!({"metadata": {"name": "n1-d0-5b0f7c1e"}, "status": {"phase": "Running", "podIP": "10.1.0.5"}}),
    )
}

fn document(drive: &Drive, generation: u64) -> DriveDocument {
    let parts = DocumentParts {
        generation: DocumentGeneration(generation),
        cluster: ClusterUid(uuid::Uuid::nil()),
        port: 4421,
        master: &Key::from_bytes([7; 32]),
        control: ControlLink {
            port: 4410,
            certificate: "certificate".into(),
            key: "key".into(),
            operator_certificate: "operator".into(),
            operator: "10.0.0.2:4411".into(),
        },
    };
    objects::document(drive, UID.parse().unwrap(), parts).unwrap()
}

fn report(state: DriveState, generation: u64) -> Option<Arc<DriveStatus>> {
    Some(Arc::new(DriveStatus {
        version: 1,
        drive: UID.parse().unwrap(),
        document_generation: DocumentGeneration(generation),
        document_tried: DocumentGeneration(generation),
        state,
        reason: if state == DriveState::Failed {
            "ForeignData"
        } else {
            "Serving"
        }
        .into(),
        message: "what the drive says".into(),
        capacity: 1 << 30,
        free: (936 << 20) + 77,
        slices: vec![],
        health: weft_spec::drive::DriveHealth::default(),
    }))
}

/// A drive that serves, with nothing left to do.
fn settled(medium: Value) -> Observed {
    let drive = drive(medium);
    let document = document(&drive, 3);
    Observed {
        node: Some(node("True")),
        twin: None,
        secret: Some(Secret::default()),
        wanted: Some(document.clone()),
        document: Some(document),
        pod: Some(running()),
        volume: None,
        claim: None,
        slices: vec![],
        report: report(DriveState::Serving, 3),
        reachable: true,
        now: Timestamp::UNIX_EPOCH,
        drive,
    }
}

fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = settled(file());
    change(&mut observed);
    observed
}

fn steps(o: &Observed) -> Vec<Step> {
    match plan(o, &settings()) {
        Plan::Steps(steps) => steps,
        other => panic!("no steps: {other:?}"),
    }
}

fn names(o: &Observed) -> Vec<String> {
    steps(o)
        .iter()
        .map(|step| format!("{step:?}").split('(').next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_new_drive_is_claimed_with_an_identity_in_one_write() {
    let no_uid = with(|o| o.drive.spec.uid = None);
    assert!(matches!(plan(&no_uid, &settings()), Plan::Claim(Some(_))));
    let no_finalizer = with(|o| o.drive.metadata.finalizers = None);
    assert_eq!(plan(&no_finalizer, &settings()), Plan::Claim(None));
}

#[test]
fn what_is_missing_is_made_and_nothing_else() {
    let rows: Vec<(&str, Observed, Vec<&str>)> = vec![
        ("settled", settled(file()), vec![]),
        (
            "new",
            with(|o| {
                (o.secret, o.document, o.wanted, o.pod, o.report) = (None, None, None, None, None);
            }),
            vec!["MakeSecret", "MakePod"],
        ),
        (
            "died after the Secret",
            with(|o| (o.pod, o.report) = (None, None)),
            vec!["MakePod"],
        ),
        (
            "pod has ended",
            with(|o| {
                o.pod = Some(from(
                    json!({"metadata": {"name": "x"}, "status": {"phase": "Failed"}}),
                ))
            }),
            vec!["DeletePod"],
        ),
        (
            "pod goes",
            with(|o| {
                o.pod.as_mut().unwrap().metadata.deletion_timestamp =
                    Some(from(json!("2026-01-01T00:00:00Z")))
            }),
            vec![],
        ),
        (
            "Secret lost while the pod runs: its identity is lost with it",
            with(|o| (o.secret, o.document, o.wanted) = (None, None, None)),
            vec!["DeletePod", "MakeSecret"],
        ),
        (
            "new block device",
            with(|o| {
                let device = settled(json!({"device": "/dev/disk/by-id/x"}));
                *o = Observed {
                    pod: None,
                    report: None,
                    ..device
                };
            }),
            vec!["MakeVolume", "MakeClaim", "MakePod"],
        ),
    ];
    for (what, observed, wanted) in rows {
        assert_eq!(names(&observed), wanted, "{what}");
    }
}

#[test]
fn a_changed_document_gets_a_generation_above_all_that_were_seen() {
    let rows: Vec<(&str, Observed, u64)> = vec![
        (
            "wanted differs",
            with(|o| o.wanted.as_mut().unwrap().port = 9),
            4,
        ),
        (
            "the drive has accepted a newer one",
            with(|o| o.report = report(DriveState::Serving, 9)),
            10,
        ),
        (
            "the status tells of a newer one",
            with(|o| {
                o.wanted.as_mut().unwrap().port = 9;
                o.drive.status = Some(from(json!({"documentGeneration": 6})));
            }),
            7,
        ),
    ];
    for (what, observed, generation) in rows {
        let [Step::WriteSecret(written), Step::PutDocument(put)] = &steps(&observed)[..] else {
            panic!("{what}: {:?}", steps(&observed));
        };
        assert_eq!((written.generation.0, put), (generation, written), "{what}");
    }
    let lost = with(|o| {
        (o.secret, o.document, o.wanted, o.pod) = (None, None, None, None);
        o.drive.status = Some(from(json!({"documentGeneration": 6})));
        o.report = None;
    });
    assert_eq!(steps(&lost)[0], Step::MakeSecret(DocumentGeneration(7)));
}

#[test]
fn a_drive_that_lags_is_given_the_document_once_it_has_spoken() {
    let lags = with(|o| o.report = report(DriveState::Serving, 2));
    assert_eq!(names(&lags), ["PutDocument"]);
    assert_eq!(names(&with(|o| o.report = None)), [""; 0]);
}

#[test]
fn a_drive_that_refuses_its_medium_is_given_only_a_newer_document_and_has_the_word() {
    let refuses = |tried: u64| {
        let mut o = with(|o| o.report = report(DriveState::Failed, 0));
        Arc::make_mut(o.report.as_mut().unwrap()).document_tried = DocumentGeneration(tried);
        o
    };
    assert_eq!(names(&refuses(3)), [""; 0]);
    assert_eq!(names(&refuses(2)), ["PutDocument"]);
    let error = Error::unusable(&refuses(2).drive, "the step's own trouble");
    let status = failed(&refuses(2), &error);
    assert_eq!(
        (status.phase, status.conditions[0].reason.as_str()),
        (Phase::Failed, "ForeignData")
    );
}

#[test]
fn what_a_drive_may_not_name_is_refused_with_a_way_out() {
    let none = |o: &mut Observed| (o.pod, o.report) = (None, None);
    let at = |path: &str| {
        let mut o = settled(json!({"file": {"path": path, "size": "1Gi"}}));
        none(&mut o);
        o
    };
    let mut device = settled(json!({"device": "/dev/mapper/vg-lv"}));
    none(&mut device);
    let rows = [
        (
            "outside",
            at("/etc/shadow"),
            "PathNotAllowed",
            "/var/lib/weft",
        ),
        (
            "beside",
            at("/var/lib/weft-other/d0"),
            "PathNotAllowed",
            "drives.root",
        ),
        (
            "up and out",
            at("/var/lib/weft/../../etc/shadow"),
            "PathNotAllowed",
            "drives.root",
        ),
        (
            "the root itself",
            at("/var/lib/weft"),
            "PathNotAllowed",
            "drives.root",
        ),
        (
            "device",
            device,
            "DeviceNotAllowed",
            "drives.devicePrefixes",
        ),
        (
            "no node",
            with(|o| (o.pod, o.report, o.node) = (None, None, None)),
            "NodeNotFound",
            "Node n1",
        ),
        (
            "twin",
            with(|o| (o.pod, o.report, o.twin) = (None, None, Some("other".into()))),
            "IdentityTaken",
            "other",
        ),
    ];
    for (what, observed, reason, words) in rows {
        let plan = plan(&observed, &settings());
        let Plan::Refuse(refusal) = &plan else {
            panic!("{what}: {plan:?}")
        };
        assert_eq!(refusal.reason, reason, "{what}");
        assert!(
            refusal.message.contains(words),
            "{what}: {}",
            refusal.message
        );
        let status = status(&observed, &plan, None);
        assert_eq!(
            (status.phase, status.conditions[0].reason.as_str()),
            (Phase::Failed, reason)
        );
    }
    // A check that begins to fail takes nothing away from a drive that runs.
    assert_eq!(names(&with(|o| o.twin = Some("n1-d1".into()))), [""; 0]);
}

#[test]
fn a_drive_goes_after_its_slices_and_its_pod() {
    let deleted = |change: fn(&mut Observed)| {
        with(|o| {
            o.drive.metadata.deletion_timestamp = Some(from(json!("2026-01-01T00:00:00Z")));
            change(o);
        })
    };
    let held = deleted(|o| {
        o.slices = vec![Slice::new(
            "db-0-a",
            from(json!({
            "uid": UID, "volume": "db-0", "volumeUid": UID, "drive": "n1-d0", "driveUid": UID, "size": "1Gi"})),
        )];
    });
    assert_eq!(plan(&held, &settings()), Plan::Hold);
    let told = status(&held, &Plan::Hold, None);
    let waits = conditions::get(&told.conditions, DELETABLE).unwrap();
    assert!(
        waits.reason == "HasSlices" && waits.message.contains("db-0"),
        "{}",
        waits.message
    );
    assert_eq!(told.phase, Phase::Deleting);
    assert_eq!(names(&deleted(|_| ())), ["DeletePod"]);
    assert_eq!(
        names(&deleted(|o| o.pod = None)),
        ["DeleteSecret", "Release"]
    );
    assert_eq!(
        names(&deleted(|o| {
            (o.pod, o.secret) = (None, None);
            (o.claim, o.volume) = (Some(Default::default()), Some(Default::default()));
        })),
        ["DeleteClaim", "DeleteVolume", "Release"]
    );
}

#[test]
fn a_status_says_what_the_drive_waits_for() {
    let pending: Pod = from(
        json!({"metadata": {"name": "p"}, "status": {"phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}}),
    );
    let crash: Pod = from(
        json!({"metadata": {"name": "p"}, "status": {"phase": "Running",
        "containerStatuses": [{"name": "drive", "ready": false, "restartCount": 9, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}}}]}}),
    );
    let served = |o: &mut Observed| o.drive.status = Some(from(json!({"size": "1Gi"})));
    let rows = [
        (
            "serving",
            settled(file()),
            Phase::Ready,
            "Serving",
            "what the drive says",
        ),
        (
            "foreign",
            with(|o| o.report = report(DriveState::Failed, 3)),
            Phase::Failed,
            "ForeignData",
            "what the drive says",
        ),
        (
            "starting",
            with(|o| o.report = report(DriveState::Starting, 3)),
            Phase::Pending,
            "Serving",
            "what",
        ),
        (
            "silent",
            with(|o| o.report = None),
            Phase::Pending,
            "NoReport",
            "runs",
        ),
        (
            "unschedulable",
            with(|o| o.pod = Some(pending)),
            Phase::Pending,
            "PodPending",
            "0/3 nodes",
        ),
        (
            "crashing",
            with(|o| o.pod = Some(crash)),
            Phase::Pending,
            "PodCrashing",
            "back-off",
        ),
        (
            "node down",
            with(|o| {
                served(o);
                o.node = Some(node("Unknown"))
            }),
            Phase::Paused,
            "NodeNotReady",
            "kubectl describe node n1",
        ),
        (
            "pod lost",
            with(|o| {
                served(o);
                o.pod = None
            }),
            Phase::Paused,
            "PodMissing",
            "being made",
        ),
    ];
    for (what, observed, phase, reason, words) in rows {
        let status = status(&observed, &plan(&observed, &settings()), None);
        let ready = conditions::get(&status.conditions, READY).unwrap();
        assert_eq!(
            (status.phase, ready.reason.as_str()),
            (phase, reason),
            "{what}"
        );
        assert!(ready.message.contains(words), "{what}: {}", ready.message);
    }
}

#[test]
fn a_status_that_was_written_is_not_written_again() {
    let mut observed = settled(file());
    let target = Some("10.1.0.5:4421".parse().unwrap());
    let first = status(&observed, &plan(&observed, &settings()), target);
    assert_eq!(first.free.as_ref().unwrap().0, "936Mi");
    assert_eq!(first.address.as_deref(), Some("10.1.0.5:4421"));
    assert!(conditions::is_true(&first.conditions, ADOPTED));
    observed.drive.status = Some(first.clone());
    observed.now = Timestamp::from_second(10_000).unwrap();
    assert_eq!(
        status(&observed, &plan(&observed, &settings()), target),
        first
    );
}

#[test]
fn a_pod_has_its_medium_and_no_privilege() {
    let uid: DriveUid = UID.parse().unwrap();
    let by_file = objects::pod(
        &drive(file()),
        uid,
        &node("True"),
        &settings(),
        [4421, 4410],
    );
    let spec = by_file.spec.as_ref().unwrap();
    assert_eq!(by_file.name_any(), "n1-d0-5b0f7c1e");
    assert_eq!(spec.automount_service_account_token, Some(false));
    let host = spec.volumes.as_ref().unwrap()[1]
        .host_path
        .as_ref()
        .unwrap();
    assert_eq!(host.path, "/var/lib/weft");
    let security = spec.containers[0].security_context.as_ref().unwrap();
    assert_eq!(security.privileged, None);
    assert_eq!(
        security.capabilities.as_ref().unwrap().drop,
        Some(vec!["ALL".to_owned()])
    );
    let device = drive(json!({"device": "/dev/disk/by-id/x"}));
    let by_device = objects::pod(&device, uid, &node("True"), &settings(), [4421, 4410]);
    let container = &by_device.spec.as_ref().unwrap().containers[0];
    assert_eq!(
        container.volume_devices.as_ref().unwrap()[0].device_path,
        "/medium"
    );
    let volume = objects::volume(
        &device,
        uid,
        "/dev/disk/by-id/x",
        &node("True"),
        &settings(),
    );
    assert_eq!(volume.metadata.owner_references, None);
    assert_eq!(
        volume.spec.as_ref().unwrap().volume_mode.as_deref(),
        Some("Block")
    );
    let claim = objects::claim(&device, uid, &settings());
    assert_eq!(claim.spec.unwrap().storage_class_name.as_deref(), Some(""));
}
