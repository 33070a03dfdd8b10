//! A node that is gone by a person's word: the taint, or the Node object deleted.

use super::{from, names, node, with};
use crate::drives::plan::{Observed, Plan, plan};
use crate::drives::status::{READY, status};
use crate::shared::conditions;
use crate::testing::settings;
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use weft_crds::Phase;

fn tainted(ready: &str) -> Node {
    let mut node = node(ready);
    node.spec = from(
        json!({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]}),
    );
    node
}

/// Both words.
fn gone() -> [Option<Node>; 2] {
    [Some(tainted("Unknown")), None]
}

fn said(o: &Observed) -> (Phase, String) {
    let told = status(o, &plan(o, &settings()), None);
    let ready = conditions::get(&told.conditions, READY).unwrap();
    (told.phase, ready.reason.clone())
}

#[test]
fn the_pod_is_forgotten_and_not_made_again_before_the_node_is_back() {
    let reasons = ["NodeOutOfService", "NodeNotFound"];
    for (word, reason) in gone().into_iter().zip(reasons) {
        let mut o = with(|o| {
            o.drive.status = Some(from(json!({"size": "1Gi"})));
            o.node = word;
        });
        assert_eq!(names(&o), ["ForgetPod"]);
        assert_eq!(said(&o), (Phase::Paused, reason.into()));
        let pod = o.pod.as_mut().unwrap();
        pod.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
        assert_eq!(
            names(&o),
            ["ForgetPod"],
            "also one that somebody has deleted"
        );
        (o.pod, o.report) = (None, None);
        assert!(matches!(plan(&o, &settings()), Plan::Refuse(refusal) if refusal.reason == reason));
        assert_eq!(said(&o).1, reason);
        o.node = Some(node("True"));
        assert_eq!(names(&o), ["MakePod"]);
    }
}

#[test]
fn silence_is_no_such_word() {
    assert_eq!(names(&with(|o| o.node = Some(node("Unknown")))), [""; 0]);
}

#[test]
fn a_drive_that_is_deleted_does_not_wait_for_a_kubelet_that_is_gone() {
    for word in gone() {
        let mut o = with(|o| {
            o.node = word;
            o.drive.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
            let pod = o.pod.as_mut().unwrap();
            pod.metadata.deletion_timestamp = from(json!("2026-01-01T00:00:00Z"));
        });
        assert_eq!(names(&o), ["ForgetPod"]);
        o.pod = None;
        assert_eq!(names(&o), ["DeleteSecret", "Release"]);
    }
}
