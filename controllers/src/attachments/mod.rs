//! Attachments: the right of one node to use one volume, given and taken back as a fenced fact.
//!
//! Watches its own kind, the volumes that give the right, the nodes that have it, and the pods of
//! user-space initiators.

pub mod apply;
pub mod objects;
pub mod plan;
pub mod status;
#[cfg(test)]
mod tests;

use crate::shared::context::Context;
use crate::shared::controller;
use crate::shared::documents;
use crate::shared::errors::{self, Doing, Error};
use crate::shared::labels::Component;
use crate::shared::news::News;
use crate::shared::nodes;
use crate::shared::pods;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::ListParams;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Config;
use kube::{Api, Resource, ResourceExt};
use std::sync::Arc;
use weft_crds::{Attachment, Volume};
use weft_spec::initiator::InitiatorDocument;

/// Reconciles Attachments until the process ends.
pub async fn run(context: Arc<Context>) {
    let client = &context.client;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &context.settings.namespaces.system);
    let initiators = Config::default().labels(&Component::Initiator.selector());
    let main = Controller::new(Api::<Attachment>::all(client.clone()), Config::default());
    let (of_volume, of_node) = (main.store(), main.store());
    let volume_news = News::default();
    let results = main
        .with_config(controller::config())
        .watches(pods, initiators, |pod: Pod| owner(&pod))
        .watches(
            Api::<Volume>::all(client.clone()),
            Config::default(),
            move |volume: Volume| {
                let news = volume_news.of(&volume, &volume_facts(&volume));
                let name = volume.name_any();
                if news {
                    select(&of_volume, |a| a.spec.volume == name)
                } else {
                    Vec::new()
                }
            },
        )
        .watches_stream(nodes::watch(client), move |node: Node| {
            let name = node.name_any();
            select(&of_node, |a| a.spec.node == name)
        })
        .run(reconcile, errors::policy, context.clone());
    controller::run("Attachment", results, context).await;
}

async fn reconcile(attachment: Arc<Attachment>, context: Arc<Context>) -> Result<Action, Error> {
    pass(&attachment.name_any(), &context).await
}

/// One pass over the attachment of that name.
pub(crate) async fn pass(name: &str, context: &Context) -> Result<Action, Error> {
    let Some(observed) = observe(context, name).await? else {
        return Ok(Action::await_change());
    };
    let plan = plan::plan(&observed);
    apply::Writer::new(context).perform(&observed, plan).await
}

async fn observe(context: &Context, name: &str) -> Result<Option<plan::Observed>, Error> {
    let (client, system) = (&context.client, &context.settings.namespaces.system);
    let attachments: Api<Attachment> = Api::all(client.clone());
    let found = attachments
        .get_opt(name)
        .await
        .doing(|| format!("read Attachment {name}"))?;
    let Some(attachment) = found else {
        return Ok(None);
    };
    let (volumes, of_nodes): (Api<Volume>, Api<Node>) =
        (Api::all(client.clone()), Api::all(client.clone()));
    let (volume, node) = (&attachment.spec.volume, &attachment.spec.node);
    let volume = volumes
        .get_opt(volume)
        .await
        .doing(|| format!("read Volume {volume}"))?;
    let node = of_nodes
        .get_opt(node)
        .await
        .doing(|| format!("read Node {node}"))?;
    let uid = attachment.uid().unwrap_or_default();
    let own = ListParams::default().labels(&format!("{}={uid}", objects::ATTACHMENT_UID));
    let secrets: Api<Secret> = Api::namespaced(client.clone(), system);
    let secrets = secrets
        .list(&own)
        .await
        .doing(|| format!("list Secrets of Attachment {name}"))?;
    let initiators: Api<Pod> = Api::namespaced(client.clone(), system);
    let initiators = initiators
        .list(&own)
        .await
        .doing(|| format!("list pods of Attachment {name}"))?;
    let known = attachment
        .status
        .as_ref()
        .and_then(|s| s.secret_name.clone());
    Ok(Some(plan::Observed {
        secret: preferred(secrets.items, known.as_deref()).map(|secret| host_secret(&secret)),
        pod: preferred(initiators.items, known.as_deref()).map(|pod| initiator_pod(&pod)),
        master: context.keys.master.clone(),
        attachment,
        volume,
        node,
        now: Timestamp::now(),
    }))
}

/// The one of that name, else any: what an earlier generation has left is deleted one by one.
fn preferred<K: Resource>(mut found: Vec<K>, name: Option<&str>) -> Option<K> {
    let at = found
        .iter()
        .position(|object| Some(object.name_any().as_str()) == name)
        .unwrap_or(0);
    (at < found.len()).then(|| found.swap_remove(at))
}

fn host_secret(secret: &Secret) -> plan::HostSecret {
    let document: Option<InitiatorDocument> = documents::read(secret);
    plan::HostSecret {
        name: secret.name_any(),
        path: document.map(|d| d.path),
    }
}

fn initiator_pod(pod: &Pod) -> plan::InitiatorPod {
    plan::InitiatorPod {
        name: pod.name_any(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        ended: pods::has_ended(pod),
    }
}

/// A cluster-scoped owner of a namespaced pod has no namespace.
fn owner(pod: &Pod) -> Option<ObjectRef<Attachment>> {
    let kind = Attachment::kind(&());
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == kind)?;
    Some(ObjectRef::new(&owner.name))
}

/// What of a volume its attachments hang on.
fn volume_facts(volume: &Volume) -> impl std::hash::Hash {
    let status = volume.status.as_ref();
    let hosts = status.map(|s| {
        s.hosts
            .iter()
            .map(|h| (h.attachment.clone(), h.generation))
            .collect::<Vec<_>>()
    });
    let engine = status.and_then(|s| s.engine.as_ref());
    (
        status.map(|s| (s.phase.to_string(), s.term, s.document_generation)),
        hosts,
        engine.map(|e| (e.address.clone(), e.acknowledged, e.serving)),
        volume.spec.uid.clone(),
    )
}

fn select(
    store: &Store<Attachment>,
    wanted: impl Fn(&Attachment) -> bool,
) -> Vec<ObjectRef<Attachment>> {
    let attachments = store.state();
    attachments
        .iter()
        .filter(|a| wanted(a))
        .map(|a| ObjectRef::from_obj(a.as_ref()))
        .collect()
}
