//! What a pass over one Drive decides: observed objects and a clock in, a [`Plan`] out.
//!
//! | seen | decided |
//! | --- | --- |
//! | no finalizer or no uid | claim: both in one patch |
//! | a path or device that is not allowed, no such node, a uid that another Drive has | nothing is made; a condition says so |
//! | no Secret | make one, with a new identity for the pod |
//! | Secret with another document than wanted, or older than what the drive accepted | write the next generation |
//! | drive that reports an older document | put the document to it, unless it has tried that one |
//! | device, but no PersistentVolume or claim | make both |
//! | no pod | make it; a pod that has ended is deleted first |
//! | a pod, its node gone by a person's word | forget it: no kubelet is there to end it; made anew when the node is back |
//! | deleted, slices left | wait, and say for whose |
//! | deleted, no slices | pod, then Secret, claim and PersistentVolume, then the finalizer |

use super::objects;
use crate::shared::settings::Settings;
use crate::shared::{finalizers, nodes, pods};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use std::path::{Component, Path};
use std::sync::Arc;
use weft_crds::drive::Adoption;
use weft_crds::{Drive, Slice};
use weft_spec::drive::{DriveDocument, DriveState, DriveStatus};
use weft_spec::ids::{DocumentGeneration, DriveUid};

/// Everything that a pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The drive.
    pub drive: Drive,
    /// Its node, if there is one of that name.
    pub node: Option<Node>,
    /// Another Drive with the same uid that was made before this one.
    pub twin: Option<String>,
    /// The pod's Secret.
    pub secret: Option<Secret>,
    /// The document in it, when it can be read.
    pub document: Option<DriveDocument>,
    /// The document as it should be, except for its generation and the pod's identity, which are
    /// those of `document`; `None` while the drive has no uid.
    pub wanted: Option<DriveDocument>,
    /// The pod.
    pub pod: Option<Pod>,
    /// Of a block device.
    pub volume: Option<PersistentVolume>,
    /// Of a block device.
    pub claim: Option<PersistentVolumeClaim>,
    /// Slices on the drive.
    pub slices: Vec<Slice>,
    /// What the drive itself last said.
    pub report: Option<Arc<DriveStatus>>,
    /// Whether the pod's control link has an address.
    pub reachable: bool,
    /// The clock.
    pub now: Timestamp,
}

/// What to do; the status is written as well, whatever the plan is.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Put on the finalizer and, if given, the identity; nothing else in this pass.
    Claim(Option<DriveUid>),
    /// Nothing can be made: the status says why.
    Refuse(Refusal),
    /// Perform these in order.
    Steps(Vec<Step>),
    /// Slices are left: wait for them to go.
    Hold,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the Secret with a new identity for the pod and a document of this generation.
    MakeSecret(DocumentGeneration),
    /// Write this document into the Secret.
    WriteSecret(Box<DriveDocument>),
    /// Put this document to the pod.
    PutDocument(Box<DriveDocument>),
    /// Make or mend the PersistentVolume.
    MakeVolume,
    /// Make or mend the claim.
    MakeClaim,
    /// Make the pod.
    MakePod,
    /// Delete the pod.
    DeletePod,
    /// Delete the pod without its kubelet, which is gone with the node.
    ForgetPod,
    /// Delete the Secret.
    DeleteSecret,
    /// Delete the claim.
    DeleteClaim,
    /// Delete the PersistentVolume.
    DeleteVolume,
    /// Take the finalizer off.
    Release,
}

/// Why nothing can be made: a reason and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// PascalCase.
    pub reason: &'static str,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Decides.
pub fn plan(o: &Observed, settings: &Settings) -> Plan {
    if finalizers::is_deleting(&o.drive) {
        return delete(o);
    }
    let missing_uid = o.drive.spec.uid.is_none();
    if missing_uid || !finalizers::has(&o.drive) {
        return Plan::Claim(missing_uid.then(DriveUid::random));
    }
    if o.pod.is_some() && nodes::is_gone(o.node.as_ref()) {
        return Plan::Steps(vec![Step::ForgetPod]);
    }
    if let Some(refusal) = refusal(o, settings) {
        return Plan::Refuse(refusal);
    }
    let mut steps = Vec::new();
    document(o, &mut steps);
    if o.drive.spec.host_export.device.is_some() {
        device(o, &mut steps);
    }
    pod(o, &mut steps);
    Plan::Steps(steps)
}

/// A Drive is power over a node: what it may name is bounded by the settings.
fn refusal(o: &Observed, settings: &Settings) -> Option<Refusal> {
    // What runs goes on running: a check that fails later must not take data away.
    if o.pod.is_some() {
        return None;
    }
    let export = &o.drive.spec.host_export;
    if let Some(twin) = &o.twin {
        let message = format!(
            "Drive {twin} has the same uid; delete this Drive, or make it anew without spec.uid"
        );
        return Some(Refusal {
            reason: "IdentityTaken",
            message,
        });
    }
    if let Some(file) = &export.file
        && !is_below(Path::new(&file.path), &settings.drives_root)
    {
        let root = settings.drives_root.display();
        let message = format!(
            "file {} does not lie below {root}; choose a path below it, or set drives.root of the chart",
            file.path
        );
        return Some(Refusal {
            reason: "PathNotAllowed",
            message,
        });
    }
    if let Some(device) = &export.device
        && !settings
            .device_prefixes
            .iter()
            .any(|prefix| device.starts_with(prefix.as_str()))
    {
        let message = format!(
            "device {device} begins with none of {}; use such a link, or set drives.devicePrefixes of the chart",
            settings.device_prefixes.join(", ")
        );
        return Some(Refusal {
            reason: "DeviceNotAllowed",
            message,
        });
    }
    node_refusal(o)
}

fn node_refusal(o: &Observed) -> Option<Refusal> {
    let name = &o.drive.spec.host_export.node;
    let (reason, message) = match &o.node {
        None => (
            "NodeNotFound",
            format!(
                "there is no Node {name}; the drive starts by itself when it joins, else make a Drive for another node"
            ),
        ),
        Some(node) if nodes::is_out_of_service(node) => ("NodeOutOfService", out_of_service(name)),
        Some(_) => return None,
    };
    Some(Refusal { reason, message })
}

/// What a drive of a node that is out of service says.
pub fn out_of_service(node: &str) -> String {
    format!(
        "Node {node} has the taint node.kubernetes.io/out-of-service; the drive starts by itself when the taint is \
         taken off (kubectl taint nodes {node} node.kubernetes.io/out-of-service-)"
    )
}

fn is_below(path: &Path, root: &Path) -> bool {
    let plain = |path: &Path| {
        path.components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
    };
    plain(path) && path.starts_with(root) && path != root
}

fn document(o: &Observed, steps: &mut Vec<Step>) {
    let accepted = o
        .report
        .as_ref()
        .map(|report| report.document_generation)
        .unwrap_or_default();
    let recorded = o
        .drive
        .status
        .as_ref()
        .map_or(0, |status| status.document_generation);
    let greatest = accepted.max(DocumentGeneration(
        u64::try_from(recorded).unwrap_or_default(),
    ));
    let (Some(present), Some(wanted)) = (&o.document, &o.wanted) else {
        // Unreadable, or none: the pod's identity is lost with it, so a pod that runs must go too.
        if o.secret.is_some() {
            steps.push(Step::DeleteSecret);
        }
        if o.pod.is_some() {
            steps.push(Step::DeletePod);
        }
        steps.push(Step::MakeSecret(DocumentGeneration(greatest.0 + 1)));
        return;
    };
    let newest = if present != wanted || present.generation < accepted {
        let generation = DocumentGeneration(greatest.max(present.generation).0 + 1);
        let document = Box::new(DriveDocument {
            generation,
            ..wanted.clone()
        });
        steps.push(Step::WriteSecret(document.clone()));
        document
    } else {
        Box::new(present.clone())
    };
    // Only to a process that has spoken: one that starts reads its Secret. One that has tried this
    // document and cannot serve under it waits for a newer, or for its medium.
    let tried = o
        .report
        .as_ref()
        .filter(|report| report.state != DriveState::Serving)
        .map(|report| report.document_tried);
    let lacks = accepted < newest.generation && tried.is_none_or(|tried| tried < newest.generation);
    if o.reachable && o.report.is_some() && lacks {
        steps.push(Step::PutDocument(newest));
    }
}

fn device(o: &Observed, steps: &mut Vec<Step>) {
    if o.volume.is_none() {
        steps.push(Step::MakeVolume);
    }
    if o.claim.is_none() {
        steps.push(Step::MakeClaim);
    }
}

fn pod(o: &Observed, steps: &mut Vec<Step>) {
    match &o.pod {
        None => steps.push(Step::MakePod),
        // A pod that goes is made anew when it is gone: its name and its medium are taken till then.
        Some(pod) if finalizers::is_deleting(pod) => {}
        Some(pod) if pods::has_ended(pod) && !steps.contains(&Step::DeletePod) => {
            steps.push(Step::DeletePod);
        }
        Some(_) => {}
    }
}

fn delete(o: &Observed) -> Plan {
    if !finalizers::has(&o.drive) {
        return Plan::Steps(Vec::new());
    }
    if !o.slices.is_empty() {
        return Plan::Hold;
    }
    if let Some(pod) = &o.pod {
        return Plan::Steps(if nodes::is_gone(o.node.as_ref()) {
            vec![Step::ForgetPod]
        } else if finalizers::is_deleting(pod) {
            Vec::new()
        } else {
            vec![Step::DeletePod]
        });
    }
    let mut steps = Vec::new();
    if o.secret.is_some() {
        steps.push(Step::DeleteSecret);
    }
    if o.claim.is_some() {
        steps.push(Step::DeleteClaim);
    }
    if o.volume.is_some() {
        steps.push(Step::DeleteVolume);
    }
    steps.push(Step::Release);
    Plan::Steps(steps)
}

/// How a document names the rule of the resource.
pub fn adoption(rule: Adoption) -> weft_spec::drive::Adoption {
    match rule {
        Adoption::Never => weft_spec::drive::Adoption::Never,
        Adoption::IfBlank => weft_spec::drive::Adoption::IfBlank,
        Adoption::Adopt => weft_spec::drive::Adoption::Adopt,
    }
}

/// The drive's uid, once it has one.
pub fn uid(drive: &Drive) -> Option<DriveUid> {
    drive.spec.uid.as_deref()?.parse().ok()
}

/// Name of the drive's pod and Secret, once it has a uid.
pub fn pod_name(drive: &Drive) -> Option<String> {
    Some(objects::pod_name(drive, uid(drive)?))
}
