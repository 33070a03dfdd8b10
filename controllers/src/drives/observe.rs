//! Reads all that a pass needs.

use super::objects::{self, DocumentParts};
use super::plan::{Observed, uid};
use crate::shared::context::Context;
use crate::shared::errors::{Doing, Error};
use crate::shared::links::{LinkError, Peer};
use crate::shared::{documents, finalizers, pods};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use kube::api::ListParams;
use kube::runtime::reflector::Store;
use kube::{Api, ResourceExt};
use std::net::SocketAddr;
use std::sync::Arc;
use weft_control::tls::Identity;
use weft_crds::{Drive, Slice};
use weft_spec::drive::DriveDocument;
use weft_spec::ids::DriveUid;

/// What was read, and where the drive's target is.
pub struct Sight {
    /// For the plan.
    pub observed: Observed,
    /// `address:port` of the NVMe/TCP target, when the pod has an address.
    pub target: Option<SocketAddr>,
}

/// Reads all that a pass needs, and makes the pod known to the links.
pub async fn observe(
    context: &Context,
    drives: &Store<Drive>,
    drive: Arc<Drive>,
) -> Result<Sight, Error> {
    let name = drive.name_any();
    let reading = |what: &str| format!("read the {what} of Drive {name}");
    let nodes: Api<Node> = Api::all(context.client.clone());
    let node = nodes
        .get_opt(&drive.spec.host_export.node)
        .await
        .doing(|| reading("node"))?;
    let mut observed = Observed {
        node,
        twin: twin(drives, &drive),
        slices: slices(context, &drive).await?,
        drive: (*drive).clone(),
        secret: None,
        document: None,
        wanted: None,
        pod: None,
        volume: None,
        claim: None,
        report: None,
        reachable: false,
        now: Timestamp::now(),
    };
    let Some(uid) = uid(&drive) else {
        return Ok(Sight {
            observed,
            target: None,
        });
    };
    let target = made(context, uid, &mut observed).await?;
    Ok(Sight { observed, target })
}

/// What has been made for the drive so far.
async fn made(
    context: &Context,
    uid: DriveUid,
    o: &mut Observed,
) -> Result<Option<SocketAddr>, Error> {
    let namespace = context.settings.namespaces.drives.as_str();
    let (name, pod_name) = (o.drive.name_any(), objects::pod_name(&o.drive, uid));
    let reading = |what: &str| format!("read the {what} of Drive {name}");
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let running: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    o.secret = secrets
        .get_opt(&pod_name)
        .await
        .doing(|| reading("Secret"))?;
    o.pod = running.get_opt(&pod_name).await.doing(|| reading("pod"))?;
    if o.drive.spec.host_export.device.is_some() {
        let volumes: Api<PersistentVolume> = Api::all(context.client.clone());
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(context.client.clone(), namespace);
        let volume_name = objects::volume_name(uid);
        o.volume = volumes
            .get_opt(&volume_name)
            .await
            .doing(|| reading("PersistentVolume"))?;
        o.claim = claims
            .get_opt(&volume_name)
            .await
            .doing(|| reading("claim"))?;
    }
    o.document = o.secret.as_ref().and_then(documents::read::<DriveDocument>);
    o.wanted = wanted(context, &o.drive, uid, o.document.as_ref());
    link(context, uid, &pod_name, o)
}

/// The document as it should be, with the generation and the pod's identity of the present one.
fn wanted(
    context: &Context,
    drive: &Drive,
    uid: DriveUid,
    present: Option<&DriveDocument>,
) -> Option<DriveDocument> {
    let present = present?;
    let identity = documents::identity(present.control.as_ref()?);
    objects::document(drive, uid, parts(context, present.generation, &identity))
}

/// What a document is made of besides the Drive.
pub fn parts<'a>(
    context: &'a Context,
    generation: weft_spec::ids::DocumentGeneration,
    identity: &Identity,
) -> DocumentParts<'a> {
    DocumentParts {
        generation,
        cluster: context.fabric.cluster,
        port: context.fabric.ports.drive,
        master: &context.keys.master,
        control: documents::control_link(context, identity),
    }
}

/// Makes the pod known to the links, and takes what it last said.
fn link(
    context: &Context,
    uid: DriveUid,
    pod_name: &str,
    o: &mut Observed,
) -> Result<Option<SocketAddr>, Error> {
    let links = &context.links;
    let Some(document) = &o.document else {
        links.forget(pod_name);
        return Ok(None);
    };
    let Some(control) = &document.control else {
        return Ok(None);
    };
    let owner = o.drive.name_any();
    links
        .register(pod_name, Peer::Drive(uid), &owner, &control.certificate)
        .doing(|| format!("read the certificate of Drive {owner}"))?;
    let Some(pod) = &o.pod else {
        // What the pod before it said is not true any more.
        links.reset(pod_name);
        return Ok(None);
    };
    let Some(ip) = pods::address(pod, &context.fabric) else {
        return Ok(None);
    };
    links
        .set_address(pod_name, SocketAddr::new(ip, control.port))
        .map_err(LinkError::from)
        .doing(|| format!("reach the pod of Drive {owner}"))?;
    if let Some(link) = links.get(pod_name) {
        o.report = link.drive_status().cloned();
        o.reachable = true;
    }
    Ok(Some(SocketAddr::new(ip, document.port)))
}

/// Slices on the drive, from the API server itself: a Drive must not go on the word of a cache.
/// Only a deletion asks for them.
async fn slices(context: &Context, drive: &Drive) -> Result<Vec<Slice>, Error> {
    if !finalizers::is_deleting(drive) {
        return Ok(Vec::new());
    }
    let name = drive.name_any();
    let slices: Api<Slice> = Api::all(context.client.clone());
    let here = ListParams::default().fields(&format!("spec.drive={name}"));
    Ok(slices
        .list(&here)
        .await
        .doing(|| format!("list the slices on Drive {name}"))?
        .items)
}

/// Another Drive with the same uid that was made before this one.
fn twin(drives: &Store<Drive>, drive: &Drive) -> Option<String> {
    let uid = drive.spec.uid.as_ref()?;
    let age = |drive: &Drive| {
        (
            drive.creation_timestamp().map(|time| time.0),
            drive.name_any(),
        )
    };
    drives
        .find(|other| {
            other.spec.uid.as_ref() == Some(uid)
                && other.name_any() != drive.name_any()
                && age(other) < age(drive)
        })
        .map(|other| other.name_any())
}
