//! A Drive's whole life against an API server in memory, with an operator that dies after each
//! write in turn and another that goes on: no duplicate, nothing left.

use super::apply::reconcile;
use crate::shared::context::Context;
use crate::shared::errors::Backoffs;
use crate::shared::events::Events;
use crate::shared::keys::Keys;
use crate::shared::links::Links;
use crate::testing::api::FakeApi;
use crate::testing::{fabric, settings};
use kube::runtime::reflector;
use serde_json::{Value, json};
use std::sync::Arc;
use weft_control::tls::Identity;
use weft_crds::Drive;
use weft_spec::keys::Key;

const DRIVES: &str = "/apis/weft.storage/v1alpha1/drives";
const SLICES: &str = "/apis/weft.storage/v1alpha1/slices";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/namespaces/weft-drives/pods";
const SECRETS: &str = "/api/v1/namespaces/weft-drives/secrets";
const CLAIMS: &str = "/api/v1/namespaces/weft-drives/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";

/// Rounds until a step of a life must have settled.
const ROUNDS: usize = 40;
/// More writes than a life makes.
const GREATEST: u32 = 60;

struct World {
    api: FakeApi,
    keys: Keys,
    context: Context,
}

impl World {
    fn new(medium: Value) -> Self {
        let api = FakeApi::default();
        let keys = Keys {
            master: Key::random(),
            operator: Identity::generate("operator").unwrap(),
        };
        let context = operator(&api, &keys);
        let world = Self { api, keys, context };
        world.put(
            NODES,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        );
        let mut export = json!({"node": "n1"});
        export
            .as_object_mut()
            .unwrap()
            .extend(medium.as_object().unwrap().clone());
        world.put(
            DRIVES,
            json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Drive",
            "metadata": {"name": "d0"}, "spec": {"hostExport": export, "adoption": "IfBlank"}}),
        );
        world
    }

    fn put(&self, collection: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.state().store(collection, &name, object);
    }

    fn all(&self, collection: &str) -> Vec<Value> {
        self.api.state().of(collection).cloned().collect()
    }

    fn delete(&self, collection: &str) {
        for mut object in self.all(collection) {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.put(collection, object);
        }
    }

    /// A person says that the node is out of service, or takes that back.
    fn taint(&self, is_gone: bool) {
        let mut node = self.all(NODES)[0].clone();
        let taint = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
        node["spec"] = json!({"taints": if is_gone { taint } else { json!([]) }});
        self.put(NODES, node);
    }

    /// Pods run, and end when they are deleted; not where the node is gone.
    fn kubelet(&self) {
        let taints = self.all(NODES)[0]["spec"]["taints"].clone();
        if taints.as_array().is_some_and(|taints| !taints.is_empty()) {
            return;
        }
        for mut pod in self.all(PODS) {
            if pod["metadata"].get("deletionTimestamp").is_some() {
                pod["metadata"]["finalizers"] = json!([]);
            } else if pod.get("status").is_none() {
                pod["status"] = json!({"phase": "Running"});
            } else {
                continue;
            }
            self.put(PODS, pod);
        }
    }

    /// Passes until one changes nothing; a dead operator is followed by another.
    async fn settle(&mut self) {
        let (drives, _writer) = reflector::store::<Drive>();
        for _ in 0..ROUNDS {
            let before = self.api.state().version;
            let mut failed = false;
            for drive in self.all(DRIVES) {
                let drive: Drive = serde_json::from_value(drive).unwrap();
                let pass = Box::pin(reconcile(&self.context, &drives, Arc::new(drive)));
                failed |= pass.await.is_err();
            }
            if self.api.state().silent {
                self.api.state().silent = false;
                self.context = operator(&self.api, &self.keys);
            }
            self.kubelet();
            if !failed && self.api.state().version == before {
                return;
            }
        }
        panic!("it does not settle: {:#?}", self.api.state().log);
    }

    async fn live(&mut self, devices: usize) {
        self.settle().await;
        let made = [PODS, SECRETS, VOLUMES, CLAIMS].map(|kind| self.all(kind).len());
        assert_eq!(made, [1, 1, devices, devices]);
        self.taint(true);
        self.settle().await;
        assert_eq!(self.all(PODS).len(), 0, "nobody is there to end it");
        self.taint(false);
        self.settle().await;
        assert_eq!(self.all(PODS).len(), 1, "the node is back");
        let slice = json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Slice", "metadata": {"name": "v-a"},
            "spec": {"uid": "s", "volume": "v", "volumeUid": "v", "drive": "d0", "driveUid": "d", "size": "1Gi"}});
        self.put(SLICES, slice);
        self.delete(DRIVES);
        self.settle().await;
        let waiting = self.all(DRIVES);
        assert_eq!(waiting[0]["status"]["phase"], "Deleting");
        assert_eq!(self.all(PODS).len(), 1, "the pod went before the slice");
        self.delete(SLICES);
        self.settle().await;
        for kind in [DRIVES, PODS, SECRETS, VOLUMES, CLAIMS] {
            assert_eq!(self.all(kind), Vec::<Value>::new(), "{kind}");
        }
        assert!(self.context.links.all().is_empty());
    }
}

fn operator(api: &FakeApi, keys: &Keys) -> Context {
    let client = api.client();
    Context {
        client: client.clone(),
        settings: settings(),
        fabric: fabric(),
        keys: keys.clone(),
        links: Links::new(keys.operator.clone()),
        events: Events::new(client, "test"),
        backoffs: Backoffs::default(),
    }
}

async fn sweep(medium: Value, devices: usize) {
    for write in 1..=GREATEST {
        let mut world = World::new(medium.clone());
        world.api.state().silent_after = Some(write);
        world.live(devices).await;
        let left = world.api.state().silent_after;
        if left.is_some() {
            // The life ended before the fatal write: every write has had its turn.
            assert!(write > 5, "a life of {write} writes is none");
            return;
        }
    }
    panic!("a life makes more than {GREATEST} writes");
}

#[tokio::test]
async fn an_operator_that_dies_after_any_write_of_a_file_drives_life_leaves_nothing() {
    sweep(
        json!({"file": {"path": "/var/lib/weft/d0.img", "size": "1Gi"}}),
        0,
    )
    .await;
}

#[tokio::test]
async fn an_operator_that_dies_after_any_write_of_a_devices_life_leaves_nothing() {
    sweep(json!({"device": "/dev/disk/by-id/x"}), 1).await;
}

#[tokio::test]
async fn a_pass_over_a_settled_drive_writes_nothing() {
    let mut world = World::new(json!({"file": {"path": "/var/lib/weft/d0.img", "size": "1Gi"}}));
    world.settle().await;
    let before = world.api.state().log.len();
    world.settle().await;
    assert_eq!(
        world.api.state().log.len(),
        before,
        "{:#?}",
        world.api.state().log
    );
}
