use super::objects;
use super::plan::{Host, HostSecret, InitiatorPod, Observed, Pass, Plan, Step, plan};
use crate::shared::{conditions, documents};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};
use weft_crds::attachment::{Access, AttachmentPhase, Initiator, InitiatorChoice};
use weft_spec::ids::Term;
use weft_spec::initiator::{InitiatorDocument, VolumePath};
use weft_spec::keys::Key;

mod gone;

const VOLUME: &str = "11111111-1111-4111-8111-111111111111";

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn node(kernel: bool, ready: &str) -> Value {
    json!({"metadata": {"name": "n3", "labels": {"weft.storage/nvme-tcp": kernel.to_string()}},
        "status": {"conditions": [{"type": "Ready", "status": ready}]}})
}

fn volume(hosts: Value, document: i64, acknowledged: i64) -> Value {
    json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Volume",
        "metadata": {"name": "db", "resourceVersion": "7"},
        "spec": {"uid": VOLUME, "pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"},
        "status": {"phase": "Ready", "term": 3, "documentGeneration": document, "attachGeneration": 6,
            "hosts": hosts, "engine": {"pod": "db-11111111-3", "node": "n2", "address": "10.0.0.9:4420",
            "acknowledged": acknowledged, "serving": true}},
    })
}

fn host(attachment: &str, node: &str, read_only: bool) -> Value {
    json!([{"attachment": attachment, "node": node, "generation": 6, "readOnly": read_only, "document": 9}])
}

/// A new attachment of a volume that serves and that nobody has.
fn fresh() -> Observed {
    Observed {
        attachment: of(json!({
            "apiVersion": "weft.storage/v1alpha1", "kind": "Attachment",
            "metadata": {"name": "db-n3", "uid": "k8s", "generation": 1, "resourceVersion": "5",
                "finalizers": ["weft.storage/operator"]},
            "spec": {"volume": "db", "node": "n3"},
        })),
        volume: Some(of(volume(json!([]), 8, 8))),
        node: Some(of(node(false, "True"))),
        secret: None,
        pod: None,
        master: Key::from_bytes([7; 32]),
        now: "2026-01-01T12:00:00Z".parse().unwrap(),
    }
}

/// In the volume's list; the engine has made document `acknowledged` of 9 durable.
fn listed(acknowledged: i64) -> Observed {
    Observed {
        volume: Some(of(volume(host("db-n3", "n3", false), 9, acknowledged))),
        ..fresh()
    }
}

/// Admitted, with Secret and pod, and settled.
fn admitted() -> Observed {
    let mut o = listed(9);
    let first = pass(&o);
    let name = objects::name(&o.attachment, 6);
    o.attachment.status = Some(first.status);
    let [Step::WriteSecret(Host { path, .. })] = first.before.as_slice() else {
        panic!("{:?}", first.before)
    };
    o.secret = Some(HostSecret {
        name: name.clone(),
        path: Some(*path),
    });
    o.pod = Some(InitiatorPod {
        name,
        deleting: false,
        ended: false,
    });
    o
}

fn deleting(mut o: Observed) -> Observed {
    o.attachment.metadata.deletion_timestamp = Some(Time(o.now));
    o
}

fn staged(mut o: Observed) -> Observed {
    o.attachment.status.as_mut().unwrap().observed = Some(of(json!({"staged": true})));
    o
}

fn pass(o: &Observed) -> Pass {
    match plan(o) {
        Plan::Pass(pass) => *pass,
        other => panic!("{other:?}"),
    }
}

fn said(pass: &Pass) -> (&str, &str) {
    let condition = conditions::get(&pass.status.conditions, "Admitted").unwrap();
    (&condition.reason, &condition.message)
}

#[test]
fn a_host_is_swapped_in_with_a_generation_and_a_document_of_its_own() {
    let pass = pass(&fresh());
    let volume = pass.volume.as_ref().unwrap();
    assert_eq!(
        (volume.attach_generation, volume.document_generation),
        (7, 9)
    );
    let host = &volume.hosts[0];
    assert_eq!(
        (host.attachment.as_str(), host.node.as_str()),
        ("db-n3", "n3")
    );
    assert_eq!((host.generation, host.document), (7, 9));
    assert_eq!(pass.status.generation, Some(7));
    assert_eq!(said(&pass).0, "WaitingForEngine");
    assert!(pass.before.is_empty() && pass.after.is_empty());
}

#[test]
fn an_attachment_that_does_not_fit_says_for_what_it_waits() {
    type Change = fn(&mut Observed);
    let cases: [(&str, Change); 7] = [
        ("UnknownVolume", |o| o.volume = None),
        ("UnknownNode", |o| o.node = None),
        ("NoKernelInitiator", |o| {
            o.attachment.spec.initiator = InitiatorChoice::Kernel
        }),
        ("VolumeInUse", |o| {
            o.volume = Some(of(volume(host("other", "n1", false), 8, 8)))
        }),
        ("VolumeInUse", |o| {
            o.attachment.spec.access = Access::ReadOnlyMany;
            o.volume = Some(of(volume(host("other", "n1", false), 8, 8)));
        }),
        ("VolumeDeleting", |o| {
            o.volume.as_mut().unwrap().metadata.deletion_timestamp = Some(Time(o.now));
        }),
        ("VolumeNotReady", |o| {
            let status = o.volume.as_mut().unwrap().status.as_mut().unwrap();
            status.phase = weft_crds::Phase::Pending;
        }),
    ];
    for (reason, change) in cases {
        let mut o = fresh();
        change(&mut o);
        let pass = pass(&o);
        assert_eq!(said(&pass).0, reason);
        assert_eq!(
            (pass.volume.is_none(), pass.status.phase),
            (true, Some(AttachmentPhase::Pending))
        );
    }
}

#[test]
fn a_refused_second_node_is_told_who_has_the_volume() {
    let o = Observed {
        volume: Some(of(volume(host("other", "n1", false), 8, 8))),
        ..fresh()
    };
    let pass = pass(&o);
    let message = said(&pass).1;
    assert!(
        message.contains("attached to node n1 by attachment other"),
        "{message}"
    );
}

#[test]
fn readers_share_a_volume() {
    let mut o = Observed {
        volume: Some(of(volume(host("other", "n1", true), 8, 8))),
        ..fresh()
    };
    (o.attachment.spec.access, o.attachment.spec.read_only) = (Access::ReadOnlyMany, true);
    assert_eq!(pass(&o).volume.unwrap().hosts.len(), 2);
}

#[test]
fn an_entry_that_a_torn_out_attachment_left_gives_no_right() {
    let mut o = fresh();
    o.volume = Some(of(volume(host("db-n3", "n1", false), 8, 8)));
    let hosts = pass(&o).volume.unwrap().hosts;
    assert_eq!(
        (hosts.len(), hosts[0].node.as_str(), hosts[0].generation),
        (1, "n3", 7)
    );
}

#[test]
fn nothing_is_told_before_the_engine_has_made_the_right_durable() {
    let pass = pass(&listed(8));
    assert_eq!(said(&pass).0, "WaitingForEngine");
    assert_eq!(
        (&pass.status.address, &pass.status.secret_name),
        (&None, &None)
    );
    assert!(pass.volume.is_none() && pass.before.is_empty() && pass.after.is_empty());
}

#[test]
fn the_secret_comes_before_the_status_and_the_pod_after() {
    let o = listed(9);
    let pass = pass(&o);
    let name = objects::name(&o.attachment, 6);
    assert!(
        matches!(pass.before.as_slice(), [Step::WriteSecret(host)] if host.name == name && host.user_space)
    );
    assert_eq!(pass.after, [Step::CreatePod(name.clone())]);
    let status = &pass.status;
    assert_eq!(
        (status.phase, status.term),
        (Some(AttachmentPhase::Admitted), Some(3))
    );
    assert_eq!(status.address.as_deref(), Some("10.0.0.9:4420"));
    assert_eq!(status.initiator, Some(Initiator::UserSpace));
    assert_eq!(
        (status.secret_name.as_ref(), status.initiator_pod.as_ref()),
        (Some(&name), Some(&name))
    );
    assert!(status.host_id.is_some() && status.subsystem_nqn.is_some());
}

#[test]
fn a_kernel_host_gets_a_name_and_no_pod() {
    let o = Observed {
        node: Some(of(node(true, "True"))),
        ..listed(9)
    };
    let pass = pass(&o);
    assert_eq!(pass.status.initiator, Some(Initiator::Kernel));
    assert_eq!(
        (pass.after.len(), pass.status.initiator_pod.is_none()),
        (0, true)
    );
    let [Step::WriteSecret(host)] = pass.before.as_slice() else {
        panic!("{:?}", pass.before)
    };
    let secret =
        objects::secret(&crate::testing::settings(), &o.master, &o.attachment, host).unwrap();
    let keys: Vec<_> = secret.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["host-id", "host-nqn"]);
}

#[test]
fn a_settled_attachment_is_left_alone_also_while_its_node_changes() {
    let mut o = admitted();
    o.node = Some(of(node(true, "False")));
    let settled = pass(&o);
    assert_eq!(Some(&settled.status), o.attachment.status.as_ref());
    assert!(settled.volume.is_none() && settled.before.is_empty() && settled.after.is_empty());
}

#[test]
fn an_engine_that_moved_is_followed_and_the_right_stays_meanwhile() {
    let mut o = staged(admitted());
    let engine = |o: &mut Observed, serving: bool, acknowledged: i64| {
        let status = o.volume.as_mut().unwrap().status.as_mut().unwrap();
        status.term = 4;
        let engine = status.engine.as_mut().unwrap();
        engine.address = "10.0.0.10:4420".into();
        (engine.serving, engine.acknowledged) = (serving, acknowledged);
    };
    engine(&mut o, false, 0);
    let moving = pass(&o);
    assert!(conditions::is_true(&moving.status.conditions, "Admitted"));
    assert_eq!(
        (said(&moving).0, moving.status.term),
        ("EngineMoving", Some(3))
    );
    engine(&mut o, true, 10);
    let moved = pass(&o);
    assert_eq!(
        (moved.status.term, moved.status.phase),
        (Some(4), Some(AttachmentPhase::Attached))
    );
    let wanted = VolumePath {
        term: Term(4),
        address: "10.0.0.10:4420".parse().unwrap(),
    };
    assert!(matches!(moved.before.as_slice(), [Step::WriteSecret(host)] if host.path == wanted));
}

#[test]
fn an_initiator_that_ended_is_made_again() {
    let mut o = admitted();
    let name = o.pod.as_ref().unwrap().name.clone();
    o.pod.as_mut().unwrap().ended = true;
    assert_eq!(pass(&o).after, [Step::DeletePod(name.clone())]);
    o.pod.as_mut().unwrap().deleting = true;
    assert_eq!(pass(&o).after, []);
    o.pod = None;
    assert_eq!(pass(&o).after, [Step::CreatePod(name)]);
}

#[test]
fn the_right_is_taken_back_first_and_durably() {
    let o = deleting(staged(admitted()));
    let out = pass(&o);
    let volume = out.volume.as_ref().unwrap();
    assert_eq!((volume.hosts.len(), volume.document_generation), (0, 10));
    assert_eq!((said(&out).0, out.after.len()), ("Revoking", 0));

    let mut waits = o;
    waits.volume = Some(of(volume_without_host(10, 9)));
    assert_eq!(
        (said(&pass(&waits)).0, pass(&waits).after.len()),
        ("Revoking", 0)
    );
}

fn volume_without_host(document: i64, acknowledged: i64) -> Value {
    volume(json!([]), document, acknowledged)
}

#[test]
fn a_revoked_attachment_waits_for_the_node_only_while_the_node_reports() {
    let revoked = |node: Option<Value>| {
        let mut o = deleting(staged(admitted()));
        o.volume = Some(of(volume_without_host(10, 10)));
        o.node = node.map(of);
        o
    };
    let waits = pass(&revoked(Some(node(false, "True"))));
    assert_eq!((said(&waits).0, waits.after.len()), ("Staged", 0));
    let mut o = revoked(Some(node(false, "Unknown")));
    let name = o.pod.as_ref().unwrap().name.clone();
    let steps = [
        Step::DeleteBudget(name.clone()),
        Step::DeletePod(name.clone()),
        Step::DeleteSecret(name),
    ];
    assert_eq!(pass(&o).after, steps);
    // The kubelet that would end the pod is not there to do so.
    (o.pod.as_mut().unwrap().deleting, o.secret) = (true, None);
    assert_eq!(plan(&o), Plan::Release);
}

#[test]
fn the_finalizer_goes_when_pod_and_secret_are_gone() {
    let mut o = deleting(admitted());
    o.volume = Some(of(volume_without_host(10, 10)));
    assert_eq!(pass(&o).after.len(), 3);
    (o.pod.as_mut().unwrap().deleting, o.secret) = (true, None);
    assert_eq!((said(&pass(&o)).0, pass(&o).after.len()), ("Cleaning", 0));
    o.pod = None;
    assert_eq!(plan(&o), Plan::Release);
}

#[test]
fn an_attachment_that_never_had_a_right_waits_for_no_engine() {
    let mut o = deleting(fresh());
    o.volume = Some(of(volume(host("other", "n1", false), 9, 2)));
    assert_eq!(plan(&o), Plan::Release);
    o.volume = None;
    assert_eq!(plan(&o), Plan::Release);
}

#[test]
fn an_initiators_document_names_its_own_mount_point_and_nobody_elses() {
    let o = listed(9);
    let [Step::WriteSecret(host)] = pass(&o)
        .before
        .as_slice()
        .to_vec()
        .try_into()
        .map(|s: [Step; 1]| s)
        .unwrap()
    else {
        panic!("no Secret")
    };
    let settings = crate::testing::settings();
    let secret = objects::secret(&settings, &o.master, &o.attachment, &host).unwrap();
    let document: InitiatorDocument = documents::read(&secret).unwrap();
    let mount_point = format!("/var/lib/weft/attachments/{}", host.name);
    assert_eq!(document.mount_point.to_str(), Some(mount_point.as_str()));
    assert_ne!(
        objects::name(&o.attachment, 6),
        objects::name(&o.attachment, 7)
    );
    let pod = serde_json::to_value(objects::pod(&settings, &o.attachment, &host.name)).unwrap();
    let spec = &pod["spec"];
    assert_eq!(
        (&spec["hostNetwork"], &spec["nodeName"]),
        (&json!(true), &json!("n3"))
    );
    assert_eq!(spec["priorityClassName"], "system-node-critical");
    assert_eq!(spec["containers"][0]["securityContext"]["privileged"], true);
    assert_eq!(spec["automountServiceAccountToken"], false);
    let budget =
        serde_json::to_value(objects::budget(&settings, &o.attachment, &host.name)).unwrap();
    assert_eq!(budget["spec"]["minAvailable"], 1);
    assert_eq!(
        budget["spec"]["selector"]["matchLabels"],
        pod["metadata"]["labels"]
    );
}
