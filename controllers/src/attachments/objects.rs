//! The objects that a plan asks for: Secret, initiator's pod and its budget. Pure.

use super::plan::Host;
use crate::shared::documents::{self, Place};
use crate::shared::errors::Error;
use crate::shared::labels::{self, Component};
use crate::shared::pods;
use crate::shared::settings::Settings;
use k8s_openapi::api::core::v1::{
    Container, EnvVar, HostPathVolumeSource, Pod, ResourceRequirements, Secret, SecurityContext,
    Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::path::Path;
use uuid::Uuid;
use weft_crds::Attachment;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::ids::AttachGeneration;
use weft_spec::initiator::InitiatorDocument;
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;

/// Label: `metadata.uid` of the Attachment. It is never written on a drive or a wire, so
/// Kubernetes' own uid is enough.
pub const ATTACHMENT_UID: &str = "weft.storage/attachment-uid";
/// Key of the host's name in the Secret, for the kernel initiator.
pub const HOST_NQN: &str = "host-nqn";
/// Key of the host's identifier in the Secret.
pub const HOST_ID: &str = "host-id";
/// Directory on the node below which each initiator mounts its files.
pub const ROOT: &str = "/var/lib/weft/attachments";

/// What an idle initiator was measured to need, and what one may never exceed: its queues are bounded.
const MEMORY: (&str, &str) = ("16Mi", "256Mi");
/// Share of a processor to be scheduled by.
const CPU: &str = "10m";
/// Seconds for unmounting.
const GRACE_SECONDS: i64 = 30;

/// Name of Secret and pod: another for each generation, so that a mount point which a dead
/// initiator has left behind is never met again.
pub fn name(attachment: &Attachment, generation: i64) -> String {
    let uid = attachment.uid().unwrap_or_default();
    let hash = Uuid::new_v5(
        &Uuid::NAMESPACE_OID,
        format!("{uid}:{generation}").as_bytes(),
    );
    let tail: String = hash.simple().to_string().chars().take(8).collect();
    labels::pod_name(&attachment.name_any(), &tail)
}

fn labels_of(attachment: &Attachment) -> BTreeMap<String, String> {
    BTreeMap::from([
        (labels::PART_OF.0.to_owned(), labels::PART_OF.1.to_owned()),
        (
            labels::COMPONENT.to_owned(),
            Component::Initiator.as_str().to_owned(),
        ),
        (
            ATTACHMENT_UID.to_owned(),
            attachment.uid().unwrap_or_default(),
        ),
    ])
}

fn place(settings: &Settings, attachment: &Attachment, name: &str) -> Place {
    Place {
        name: name.to_owned(),
        namespace: settings.namespaces.system.clone(),
        labels: labels_of(attachment),
        annotations: labels::owner_annotation(&attachment.name_any()),
        owner: attachment.controller_owner_ref(&()),
    }
}

/// How the host calls itself: a secret.
pub fn host_nqn(master: &Key, attachment: &Attachment, host: &Host) -> HostNqn {
    let generation = AttachGeneration(u64::try_from(host.generation).unwrap_or_default());
    let key = master.attach(host.volume, generation);
    HostNqn::host(&key, host.volume, &attachment.spec.node, generation)
}

/// The Secret of a host, with a document where a user-space initiator reads one.
pub fn secret(
    settings: &Settings,
    master: &Key,
    attachment: &Attachment,
    host: &Host,
) -> Result<Secret, Error> {
    let nqn = host_nqn(master, attachment, host);
    let id = nqn.host_id().to_string();
    let document = InitiatorDocument {
        version: DOCUMENT_VERSION,
        volume: host.volume,
        attachment: attachment.name_any(),
        host: nqn.clone(),
        path: host.path,
        mount_point: Path::new(ROOT).join(&host.name),
        header_digest: false,
        data_digest: false,
    };
    let place = place(settings, attachment, &host.name);
    let more = [(HOST_NQN, nqn.expose()), (HOST_ID, id.as_str())];
    let mut secret = documents::secret(&place, &document, &more)?;
    if !host.user_space {
        secret
            .data
            .iter_mut()
            .for_each(|data| drop(data.remove(documents::KEY)));
    }
    Ok(secret)
}

/// The pod of a user-space initiator. It is privileged: it mounts a file system that the node sees.
pub fn pod(settings: &Settings, attachment: &Attachment, name: &str) -> Pod {
    let (document, document_mount) = pods::document_volume(name);
    let amount = |memory: &str| ("memory".to_owned(), Quantity(memory.to_owned()));
    let container = Container {
        name: "initiator".to_owned(),
        image: Some(settings.images.initiator.clone()),
        image_pull_policy: Some(settings.images.pull_policy.clone()),
        command: Some(pods::command("weft-initiator")),
        env: Some(vec![EnvVar {
            name: "RUST_LOG".to_owned(),
            value: Some(settings.pod_log.clone()),
            value_from: None,
        }]),
        resources: Some(ResourceRequirements {
            requests: Some(BTreeMap::from([
                amount(MEMORY.0),
                ("cpu".to_owned(), Quantity(CPU.to_owned())),
            ])),
            limits: Some(BTreeMap::from([amount(MEMORY.1)])),
            ..ResourceRequirements::default()
        }),
        security_context: Some(SecurityContext {
            privileged: Some(true),
            read_only_root_filesystem: Some(true),
            run_as_user: Some(0),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            document_mount,
            VolumeMount {
                name: "attachments".to_owned(),
                mount_path: ROOT.to_owned(),
                mount_propagation: Some("Bidirectional".to_owned()),
                ..VolumeMount::default()
            },
        ]),
        ..Container::default()
    };
    let mut spec = pods::base_spec(GRACE_SECONDS);
    spec.node_name = Some(attachment.spec.node.clone());
    spec.host_network = Some(true);
    spec.priority_class_name = Some("system-node-critical".to_owned());
    spec.containers = vec![container];
    spec.volumes = Some(vec![
        document,
        Volume {
            name: "attachments".to_owned(),
            host_path: Some(HostPathVolumeSource {
                path: ROOT.to_owned(),
                type_: Some("DirectoryOrCreate".to_owned()),
            }),
            ..Volume::default()
        },
    ]);
    let place = place(settings, attachment, name);
    Pod {
        metadata: place.metadata(),
        spec: Some(spec),
        status: None,
    }
}

/// A drain takes the initiator last: after the pods that use the volume, when the plugin has
/// unstaged it and the operator has deleted pod and budget.
pub fn budget(settings: &Settings, attachment: &Attachment, name: &str) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: place(settings, attachment, name).metadata(),
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(labels_of(attachment)),
                match_expressions: None,
            }),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
