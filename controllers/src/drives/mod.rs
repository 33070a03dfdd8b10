//! Drives: a pod per Drive that puts its medium on the network.
//!
//! Watches Drives, what is made for them (pods, Secrets, claims, PersistentVolumes), Slices (a
//! Drive that is being deleted waits for them), Nodes, and what the drives themselves say. A pass
//! waits for nothing and asks for no repetition: whatever it waits for wakes it.

pub mod apply;
#[cfg(test)]
mod life;
pub mod objects;
pub mod observe;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::labels::{Component, OWNER};
use crate::shared::{controller, errors, nodes};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, ResourceExt};
use std::sync::Arc;
use weft_crds::{Drive, Slice};

/// Runs for ever.
pub async fn run(context: Arc<Context>) {
    let client = context.client.clone();
    let namespace = context.settings.namespaces.drives.as_str();
    let ours = watcher::Config::default().labels(&Component::Drive.selector());
    let controller = Controller::new(
        Api::<Drive>::all(client.clone()),
        watcher::Config::default(),
    );
    let drives = controller.store();
    let (told, on_node) = (context.links.drives().subscribe(), drives.clone());
    let results = controller
        .with_config(controller::config())
        .watches(
            Api::<Pod>::namespaced(client.clone(), namespace),
            ours.clone(),
            owner,
        )
        .watches(
            Api::<Secret>::namespaced(client.clone(), namespace),
            ours.clone(),
            owner,
        )
        .watches(
            Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace),
            ours.clone(),
            owner,
        )
        .watches(Api::<PersistentVolume>::all(client.clone()), ours, owner)
        .watches(
            Api::<Slice>::all(client.clone()),
            watcher::Config::default(),
            leaving,
        )
        .watches_stream(nodes::watch(&client), move |node| {
            of_node(&on_node, &node.name_any())
        })
        .reconcile_on(told.map(|name| ObjectRef::new(&name)))
        .run(
            move |drive, context: Arc<Context>| pass(context, drives.clone(), drive),
            errors::policy,
            context.clone(),
        );
    controller::run("Drive", results, context).await;
}

async fn pass(
    context: Arc<Context>,
    drives: Store<Drive>,
    drive: Arc<Drive>,
) -> Result<kube::runtime::controller::Action, errors::Error> {
    // Boxed: what a pass has read is large, and a controller keeps many passes.
    Box::pin(apply::reconcile(&context, &drives, drive)).await
}

fn owner<K: ResourceExt>(object: K) -> Option<ObjectRef<Drive>> {
    object
        .annotations()
        .get(OWNER)
        .map(|name| ObjectRef::new(name))
}

/// A Slice matters to its Drive only when it goes: the Drive may be waiting for that.
fn leaving(slice: Slice) -> Option<ObjectRef<Drive>> {
    slice
        .metadata
        .deletion_timestamp
        .is_some()
        .then(|| ObjectRef::new(&slice.spec.drive))
}

fn of_node(drives: &Store<Drive>, node: &str) -> Vec<ObjectRef<Drive>> {
    let here = drives
        .state()
        .into_iter()
        .filter(|drive| drive.spec.host_export.node == node);
    here.map(|drive| ObjectRef::from_obj(drive.as_ref()))
        .collect()
}
