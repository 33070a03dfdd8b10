//! What a pass reads, from the API server itself (no cache, so a raise of the term never rests on
//! an old list), and from what engines have said.

use super::plan::{EnginePod, EngineSecret, Observed, Placement};
use super::takeover::Trouble;
use super::{growth, moves, parts, plan, silence};
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use crate::shared::labels::{TERM, VOLUME_UID};
use crate::shared::links::{LinkError, Peer};
use crate::shared::{documents, nodes, pods};
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Secret};
use kube::api::ListParams;
use kube::core::{Selector, SelectorExt};
use kube::{Api, ResourceExt};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use weft_crds::volume::VolumeMember;
use weft_crds::{Attachment, Drive, Pool, Slice, Volume};
use weft_spec::drive::SliceStatus;
use weft_spec::engine::{EngineDocument, EngineStatus};
use weft_spec::ids::{DriveUid, VolumeUid};

/// Reads all but [`placement`]; `None` when the volume is gone.
pub async fn observe(context: &Context, name: &str) -> Result<Option<Observed>, Error> {
    let client = &context.client;
    let volumes: Api<Volume> = Api::all(client.clone());
    let Some(volume) = volumes
        .get_opt(name)
        .await
        .doing(|| format!("read Volume {name}"))?
    else {
        return Ok(None);
    };
    let of_volume = ListParams::default().fields(&format!("spec.volume={name}"));
    let slices = Api::<Slice>::all(client.clone());
    let slices = slices
        .list(&of_volume)
        .await
        .doing(|| format!("list slices of Volume {name}"))?
        .items;
    let attachments = Api::<Attachment>::all(client.clone());
    let attachments = attachments
        .list(&of_volume)
        .await
        .doing(|| format!("list attachments of Volume {name}"))?
        .items;
    let mut observed = Observed {
        drives: drives(context, &volume, &slices).await?,
        volume,
        slices,
        placement: None,
        pods: Vec::new(),
        secrets: Vec::new(),
        attachments,
        report: None,
        heard: Vec::new(),
        engine_port: context.fabric.ports.engine,
        now: Timestamp::now(),
    };
    if let Some(uid) = plan::uid(&observed.volume) {
        engines(context, uid, &mut observed).await?;
    }
    Ok(Some(observed))
}

/// Whether the plan needs [`placement`].
pub fn must_place(o: &Observed) -> bool {
    let status = o.volume.status.as_ref();
    let unplaced = status.is_none_or(|s| s.members.is_empty());
    let leaving = o.volume.metadata.deletion_timestamp.is_some();
    let place = unplaced && !leaving && !parts::without_slice(o).is_empty();
    let more = growth::is_wanted(o) || !moves::missing(o).is_empty();
    plan::uid(&o.volume).is_some() && (place || more)
}

/// Reads what a drive is chosen by.
pub async fn placement(context: &Context, volume: &Volume) -> Result<Placement, Error> {
    let (client, all) = (&context.client, ListParams::default());
    let pools: Api<Pool> = Api::all(client.clone());
    let name = &volume.spec.pool;
    let pool = pools
        .get_opt(name)
        .await
        .doing(|| format!("read Pool {name}"))?;
    let drives = Api::<Drive>::all(client.clone())
        .list(&all)
        .await
        .doing(|| "list drives".into())?;
    let nodes = Api::<Node>::all(client.clone())
        .list(&all)
        .await
        .doing(|| "list nodes".into())?;
    let slices = Api::<Slice>::all(client.clone())
        .list(&all)
        .await
        .doing(|| "list slices".into())?;
    // A selector that the API server took and that cannot be read selects nothing, never all.
    let wanted = pool
        .as_ref()
        .and_then(|pool| Selector::try_from(pool.spec.selector.clone()).ok());
    let selected = |drive: &Drive| {
        wanted
            .as_ref()
            .is_some_and(|wanted| wanted.matches(drive.labels()))
    };
    Ok(Placement {
        drives: drives.items.into_iter().filter(selected).collect(),
        nodes: nodes.items,
        slices: slices.items,
        pool,
    })
}

async fn drives(context: &Context, volume: &Volume, slices: &[Slice]) -> Result<Vec<Drive>, Error> {
    let members = volume.status.as_ref().map(|s| s.members.as_slice());
    let members = members.unwrap_or_default().iter().map(|m| &m.drive);
    let names: BTreeSet<_> = members
        .chain(slices.iter().map(|s| &s.spec.drive))
        .collect();
    let drives: Api<Drive> = Api::all(context.client.clone());
    let mut found = Vec::new();
    for name in names {
        let drive = drives
            .get_opt(name)
            .await
            .doing(|| format!("read Drive {name}"))?;
        found.extend(drive);
    }
    Ok(found)
}

/// Pods first: a Secret is there before its pod, so a pod without one has truly lost it.
async fn engines(context: &Context, uid: VolumeUid, o: &mut Observed) -> Result<(), Error> {
    let (client, namespace) = (&context.client, &context.settings.namespaces.engines);
    let of_volume = ListParams::default().labels(&format!("{VOLUME_UID}={uid}"));
    let found: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let found = found
        .list(&of_volume)
        .await
        .doing(|| format!("list pods of volume {uid}"))?
        .items;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secrets = secrets
        .list(&of_volume)
        .await
        .doing(|| format!("list Secrets of volume {uid}"))?;
    let nodes = nodes_of(context, &found).await?;
    let name = o.volume.name_any();
    for secret in &secrets.items {
        let document: Option<EngineDocument> = documents::read(secret);
        if let Some(link) = document.as_ref().and_then(|d| d.control.as_ref()) {
            let pod = secret.name_any();
            context
                .links
                .register(&pod, Peer::Engine(uid), &name, &link.certificate)
                .doing(|| format!("read the certificate of pod {pod}"))?;
        }
        o.secrets.push(EngineSecret {
            name: secret.name_any(),
            term: term_label(secret.labels()),
            generation: document.map_or(0, |d| plan::number(d.generation.0)),
        });
    }
    for pod in &found {
        let seen = engine_pod(context, pod, &nodes);
        if let Some(ip) = seen.ip {
            let address = SocketAddr::new(ip, context.fabric.ports.control);
            let told = context.links.set_address(&seen.name, address);
            told.map_err(LinkError::from)
                .doing(|| format!("talk to pod {}", seen.name))?;
        }
        o.pods.push(seen);
    }
    o.report = report(context, &o.volume);
    listen_to_drives(context, o).await;
    Ok(())
}

/// What the drives say; an engine that they have lost is asked itself.
async fn listen_to_drives(context: &Context, o: &mut Observed) {
    let Some(status) = o.volume.status.clone() else {
        return;
    };
    let counted_on = |pod: &&EnginePod| pod.trouble.is_none() && !pod.deleting;
    let present = plan::present_pod(o, &status).filter(counted_on);
    let asks = present.is_none() && status.term > 0;
    let words = status.members.iter().map(|m| word(context, m, asks));
    o.heard = join_all(words).await.into_iter().flatten().collect();
    if !silence::is_missed(o, &status) {
        return;
    }
    let name = status.engine.as_ref().map(|engine| &engine.pod);
    let present = o.pods.iter_mut().find(|pod| Some(&pod.name) == name);
    let Some(pod) = present.filter(|pod| pod.trouble.is_none() && pod.ip.is_some()) else {
        return;
    };
    let asking = context.links.look_at_engine(&pod.name);
    match tokio::time::timeout(silence::ANSWER, asking).await {
        Ok(Ok(report)) => o.report = Some(report),
        Ok(Err(error)) if !error.is_silence() => {
            tracing::info!(pod = pod.name, %error, "an engine that its drives miss starts again");
        }
        Ok(Err(_)) | Err(_) => {
            tracing::warn!(
                pod = pod.name,
                node = pod.node,
                "an engine is lost: its drives miss it, and it is silent"
            );
            pod.trouble = Some(Trouble::Silent);
        }
    }
}

/// What the drive of a member has last said of its slice. One that has said nothing since this process
/// began is asked before another term is raised: the resource may be of a backup, older than what is
/// on the drive.
async fn word(context: &Context, member: &VolumeMember, asks: bool) -> Option<SliceStatus> {
    let drive: DriveUid = member.drive_uid.parse().ok()?;
    let said = match context.links.drive(drive) {
        None if asks => {
            let asking = context.links.look_at_drive(drive);
            let answer = tokio::time::timeout(silence::ANSWER, asking).await;
            Arc::new(answer.ok()?.ok()?)
        }
        said => said?,
    };
    silence::word_of(&said, &member.slice_uid).cloned()
}

/// What the engine of the present term has said; names of pods have their term in them.
fn report(context: &Context, volume: &Volume) -> Option<EngineStatus> {
    let pod = &volume.status.as_ref()?.engine.as_ref()?.pod;
    let link = context.links.get(pod)?;
    link.engine_status()
        .map(|status| Arc::unwrap_or_clone(status.clone()))
}

async fn nodes_of(
    context: &Context,
    found: &[Pod],
) -> Result<BTreeMap<String, Option<Node>>, Error> {
    let api: Api<Node> = Api::all(context.client.clone());
    let mut nodes = BTreeMap::new();
    for name in found
        .iter()
        .filter_map(|pod| pod.spec.as_ref()?.node_name.clone())
    {
        if let Entry::Vacant(place) = nodes.entry(name) {
            let name = place.key().clone();
            let node = api
                .get_opt(&name)
                .await
                .doing(|| format!("read Node {name}"))?;
            place.insert(node);
        }
    }
    Ok(nodes)
}

fn term_label(labels: &BTreeMap<String, String>) -> i64 {
    labels
        .get(TERM)
        .and_then(|term| term.parse().ok())
        .unwrap_or(0)
}

fn engine_pod(context: &Context, pod: &Pod, on: &BTreeMap<String, Option<Node>>) -> EnginePod {
    let node = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_name.clone())
        .unwrap_or_default();
    let waiting = pods::waiting_for(pod);
    let trouble = match on.get(&node) {
        Some(None) => Some(Trouble::NodeGone),
        Some(Some(node)) if nodes::is_out_of_service(node) => Some(Trouble::OutOfService),
        _ if pods::has_ended(pod) => Some(Trouble::Ended(ended_why(pod, &waiting))),
        Some(Some(node)) if !nodes::is_ready(node) => Some(Trouble::NodeNotReady),
        _ if pods::in_crash_loop(pod) => Some(Trouble::CrashLoop(waiting.clone())),
        _ => None,
    };
    EnginePod {
        name: pod.name_any(),
        term: term_label(pod.labels()),
        ip: pods::address(pod, &context.fabric),
        node,
        deleting: pod.metadata.deletion_timestamp.is_some(),
        trouble,
        waiting,
    }
}

fn ended_why(pod: &Pod, waiting: &str) -> String {
    let reason = pod.status.as_ref().and_then(|status| status.reason.clone());
    reason.unwrap_or_else(|| waiting.to_owned())
}
