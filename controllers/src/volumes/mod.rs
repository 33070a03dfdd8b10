//! Volumes: placed on drives, given an engine, and never two.
//!
//! Watches its own kind, what it makes (slices, engine pods) and what a decision hangs on
//! (attachments, drives, pools, nodes, and what engines say). Each pass reads what it decides on
//! from the API server, not from a cache.

pub mod apply;
pub mod growth;
pub mod held;
pub mod members;
pub mod moves;
pub mod objects;
pub mod observe;
pub mod parts;
pub mod placement;
pub mod plan;
pub mod report;
pub mod silence;
pub mod status;
pub mod takeover;
#[cfg(test)]
mod tests;
pub mod wires;

use crate::shared::context::Context;
use crate::shared::controller;
use crate::shared::errors::{self, Error};
use crate::shared::labels::Component;
use crate::shared::news::News;
use crate::shared::nodes;
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use tokio::sync::Mutex;
use weft_crds::volume::VolumeMember;
use weft_crds::{Attachment, Drive, Pool, Slice, Volume};

/// A context, and the one thing that passes of different volumes must not do at the same time.
pub(crate) struct Shared {
    context: Arc<Context>,
    /// Held from reading what drives have promised until the slice that adds to it is written.
    placing: Mutex<()>,
}

impl Shared {
    pub(crate) fn of(context: Arc<Context>) -> Arc<Self> {
        Arc::new(Self {
            context,
            placing: Mutex::default(),
        })
    }
}

/// Reconciles Volumes until the process ends.
pub async fn run(context: Arc<Context>) {
    let client = &context.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &context.settings.namespaces.engines);
    let engines = Config::default().labels(&Component::Engine.selector());
    let main = Controller::new(Api::<Volume>::all(client.clone()), Config::default());
    let (drives, pools, of_nodes) = (main.store(), main.store(), main.store());
    let of_slices = main.store();
    let (slice_news, drive_news) = (News::default(), News::default());
    let said = context.links.engines().subscribe();
    let (missing, of_links) = (main.store(), context.clone());
    let drives_said = context.links.drives().subscribe();
    let missed =
        drives_said.flat_map(move |drive| stream::iter(missed(&missing, &of_links, &drive)));
    let shared = Shared::of(context.clone());
    let results = main
        .with_config(controller::config())
        .watches(pods, engines, |pod: Pod| owner(&pod))
        .watches(
            Api::<Slice>::all(client.clone()),
            Config::default(),
            move |slice: Slice| {
                if slice_news.of(&slice, &slice_facts(&slice)) {
                    on_slice(&of_slices, &slice)
                } else {
                    Vec::new()
                }
            },
        )
        .watches(
            Api::<Attachment>::all(client.clone()),
            Config::default(),
            |a: Attachment| [ObjectRef::new(&a.spec.volume)],
        )
        .watches(
            Api::<Drive>::all(client.clone()),
            Config::default(),
            move |drive: Drive| {
                let news = drive_news.of(&drive, &drive_facts(&drive));
                if news {
                    on_drive(&drives, &drive.name_any())
                } else {
                    Vec::new()
                }
            },
        )
        .watches(
            Api::<Pool>::all(client.clone()),
            Config::default(),
            move |pool: Pool| {
                let name = pool.name_any();
                select(&pools, |v| {
                    v.spec.pool == name && (unplaced(v) || growth::waits_for_room(v))
                })
            },
        )
        .watches_stream(nodes::watch(client), move |node: Node| {
            on_node(&of_nodes, &node)
        })
        .reconcile_on(said.map(|name| ObjectRef::new(&name)))
        .reconcile_on(missed)
        .run(
            reconcile,
            |volume, error, shared| errors::policy(volume, error, shared.context.clone()),
            shared,
        );
    controller::run("Volume", results, context).await;
}

async fn reconcile(volume: Arc<Volume>, shared: Arc<Shared>) -> Result<Action, Error> {
    pass(&volume.name_any(), &shared).await
}

/// One pass over the volume of that name.
pub(crate) async fn pass(name: &str, shared: &Shared) -> Result<Action, Error> {
    let context = &shared.context;
    let Some(mut seen) = observe::observe(context, name).await? else {
        return Ok(Action::await_change());
    };
    let writer = apply::Writer::new(context);
    if !observe::must_place(&seen) {
        let plan = plan::plan(&seen);
        return writer.perform(&seen.volume, &seen.drives, plan).await;
    }
    let _placing = shared.placing.lock().await;
    seen.placement = Some(observe::placement(context, &seen.volume).await?);
    let plan = plan::plan(&seen);
    writer.perform(&seen.volume, &seen.drives, plan).await
}

/// A cluster-scoped owner of a namespaced pod: the owner has no namespace, so kube's own mapping
/// would look for it in the pod's.
fn owner(pod: &Pod) -> Option<ObjectRef<Volume>> {
    let kind = Volume::kind(&());
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == kind)?;
    Some(ObjectRef::new(&owner.name))
}

/// What of a slice a volume hangs on; how full it is changes all the time.
fn slice_facts(slice: &Slice) -> impl std::hash::Hash {
    let status = slice.status.as_ref();
    let words = status.map(|s| {
        s.conditions
            .iter()
            .map(|c| (c.reason.clone(), c.message.clone()))
    });
    (
        status.map(|s| (s.phase.to_string(), s.size.clone().map(|q| q.0))),
        slice.spec.size.0.clone(),
        words.map(Iterator::collect::<Vec<_>>),
    )
}

/// What of a drive a volume hangs on.
fn drive_facts(drive: &Drive) -> impl std::hash::Hash {
    let status = drive.status.as_ref();
    (
        status.map(|s| {
            (
                s.phase.to_string(),
                s.address.clone(),
                s.size.clone().map(|q| q.0),
            )
        }),
        drive.metadata.labels.clone(),
        drive.spec.uid.clone(),
        drive.spec.maintenance.is_some(),
    )
}

fn select(store: &Store<Volume>, wanted: impl Fn(&Volume) -> bool) -> Vec<ObjectRef<Volume>> {
    let volumes = store.state();
    volumes
        .iter()
        .filter(|v| wanted(v))
        .map(|v| ObjectRef::from_obj(v.as_ref()))
        .collect()
}

fn unplaced(volume: &Volume) -> bool {
    volume
        .status
        .as_ref()
        .is_none_or(|status| status.members.is_empty())
}

/// The volume of the slice, and those that wait for the room that it may have left.
fn on_slice(store: &Store<Volume>, slice: &Slice) -> Vec<ObjectRef<Volume>> {
    let here = |v: &Volume| {
        let status = v.status.as_ref();
        status.is_some_and(|s| s.members.iter().any(|m| m.drive == slice.spec.drive))
    };
    let mut found = select(store, |v| growth::waits_for_room(v) && here(v));
    found.push(ObjectRef::new(&slice.spec.volume));
    found
}

/// Volumes on the drive, and those that wait for a place for a slice.
fn on_drive(store: &Store<Volume>, drive: &str) -> Vec<ObjectRef<Volume>> {
    let on = |v: &Volume| {
        v.status
            .as_ref()
            .is_some_and(|s| s.members.iter().any(|m| m.drive == drive))
    };
    select(store, |v| {
        unplaced(v) || on(v) || status::waits_for_drive(v)
    })
}

/// Volumes whose engine has no connection to its slice on the drive.
fn missed(store: &Store<Volume>, context: &Context, drive: &str) -> Vec<ObjectRef<Volume>> {
    let unconnected = |member: &VolumeMember| {
        let said = context.links.drive(member.drive_uid.parse().ok()?)?;
        let word = silence::word_of(&said, &member.slice_uid)?;
        Some(word.connections == 0)
    };
    select(store, |v| {
        let status = v.status.as_ref();
        let mut here = status
            .iter()
            .flat_map(|s| &s.members)
            .filter(|m| m.drive == drive);
        let serves = status
            .and_then(|s| s.engine.as_ref())
            .is_some_and(|e| e.serving);
        serves && here.any(|m| unconnected(m).unwrap_or(false))
    })
}

/// Volumes whose engine runs there; all when the node is gone, for a pod of a lower term may have been
/// left on it.
fn on_node(store: &Store<Volume>, node: &Node) -> Vec<ObjectRef<Volume>> {
    let (name, gone) = (node.name_any(), nodes::was_last_seen(node));
    let runs_on = |v: &Volume| {
        let engine = v.status.as_ref().and_then(|s| s.engine.as_ref());
        engine.is_some_and(|engine| engine.node == name)
    };
    select(store, |v| gone || runs_on(v))
}
