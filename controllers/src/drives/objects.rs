//! What a Plan asks for: document, Secret, pod, and a block device's PersistentVolume and claim.

use super::plan::adoption;
use crate::shared::documents::Place;
use crate::shared::labels::{self, Component, DRIVE_UID};
use crate::shared::settings::Settings;
use crate::shared::{nodes, pods, quantity};
use k8s_openapi::api::core::v1::{
    Affinity, Container, ContainerPort, EnvVar, HostPathVolumeSource, LocalVolumeSource, Node,
    NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference,
    PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec,
    PersistentVolumeClaimVolumeSource, PersistentVolumeSpec, Pod, PodSpec, ResourceRequirements,
    Volume, VolumeDevice, VolumeMount, VolumeNodeAffinity, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::ObjectMeta;
use kube::{Resource, ResourceExt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weft_crds::Drive;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::control::ControlLink;
use weft_spec::drive::{DriveDocument, Medium};
use weft_spec::ids::{ClusterUid, DocumentGeneration, DriveUid};
use weft_spec::keys::Key;

/// Name of the pod's volume with the medium.
const MEDIUM_VOLUME: &str = "medium";
/// Where the medium is in the pod: the device itself, or the directory of the file.
const MEDIUM: &str = "/medium";
/// What a local PersistentVolume must say and nobody uses: the drive knows its device's size.
const NOMINAL_SIZE: u64 = 1 << 30;
/// A drive closes its connections and flushes in less.
const GRACE_SECONDS: i64 = 30;

/// What a document is made of besides the Drive.
pub struct DocumentParts<'a> {
    /// Of the document.
    pub generation: DocumentGeneration,
    /// From the Fabric.
    pub cluster: ClusterUid,
    /// From the Fabric.
    pub port: u16,
    /// The operator's.
    pub master: &'a Key,
    /// How pod and operator reach each other.
    pub control: ControlLink,
}

/// The document; `None` when the Drive has no medium, which the API server refuses.
pub fn document(drive: &Drive, uid: DriveUid, parts: DocumentParts<'_>) -> Option<DriveDocument> {
    Some(DriveDocument {
        version: DOCUMENT_VERSION,
        generation: parts.generation,
        cluster: parts.cluster,
        drive: uid,
        name: drive.name_any(),
        medium: medium(drive)?,
        adoption: adoption(drive.spec.adoption),
        port: parts.port,
        key: parts.master.drive(uid),
        slices: Vec::new(),
        control: Some(parts.control),
    })
}

fn medium(drive: &Drive) -> Option<Medium> {
    let export = &drive.spec.host_export;
    if let Some(file) = &export.file {
        let name = Path::new(&file.path).file_name()?;
        return Some(Medium::File {
            path: Path::new(MEDIUM).join(name),
            size: quantity::bytes(&file.size)?,
        });
    }
    export.device.as_ref().map(|_| Medium::Device {
        path: PathBuf::from(MEDIUM),
    })
}

/// Name of the drive's pod and Secret.
pub fn pod_name(drive: &Drive, uid: DriveUid) -> String {
    labels::pod_name(&drive.name_any(), &uid.short())
}

/// Name of a block device's PersistentVolume and claim.
pub fn volume_name(uid: DriveUid) -> String {
    format!("weft-drive-{}", uid.short())
}

/// Where pod and Secret stand. Both can be made again, so the Drive owns them.
pub fn place(drive: &Drive, uid: DriveUid, settings: &Settings) -> Place {
    Place {
        name: pod_name(drive, uid),
        namespace: settings.namespaces.drives.clone(),
        labels: labels::labels(Component::Drive, DRIVE_UID, uid.0),
        annotations: labels::owner_annotation(&drive.name_any()),
        owner: drive.controller_owner_ref(&()),
    }
}

/// The pod: no privilege, the medium, the document.
pub fn pod(drive: &Drive, uid: DriveUid, node: &Node, settings: &Settings, ports: [u16; 2]) -> Pod {
    let (document_volume, document_mount) = pods::document_volume(&pod_name(drive, uid));
    let (medium_volume, medium_mount, medium_device) = medium_volume(drive, uid);
    let container = Container {
        name: "drive".to_owned(),
        image: Some(settings.images.drive.clone()),
        image_pull_policy: Some(settings.images.pull_policy.clone()),
        command: Some(pods::command("weft-drive")),
        env: Some(vec![EnvVar {
            name: "RUST_LOG".to_owned(),
            value: Some(settings.pod_log.clone()),
            value_from: None,
        }]),
        ports: Some(vec![port("nvme-tcp", ports[0]), port("control", ports[1])]),
        resources: Some(resources()),
        // The medium's owner is root; without capabilities that is all that root means here.
        security_context: Some(pods::locked_down(0)),
        volume_mounts: Some(
            [Some(document_mount), medium_mount]
                .into_iter()
                .flatten()
                .collect(),
        ),
        volume_devices: medium_device.map(|device| vec![device]),
        ..Container::default()
    };
    Pod {
        metadata: place(drive, uid, settings).metadata(),
        spec: Some(PodSpec {
            affinity: Some(Affinity {
                node_affinity: Some(NodeAffinity {
                    required_during_scheduling_ignored_during_execution: Some(on_node(node)),
                    ..NodeAffinity::default()
                }),
                ..Affinity::default()
            }),
            containers: vec![container],
            volumes: Some(vec![document_volume, medium_volume]),
            ..pods::base_spec(GRACE_SECONDS)
        }),
        status: None,
    }
}

fn medium_volume(
    drive: &Drive,
    uid: DriveUid,
) -> (Volume, Option<VolumeMount>, Option<VolumeDevice>) {
    let mut volume = Volume {
        name: MEDIUM_VOLUME.to_owned(),
        ..Volume::default()
    };
    if let Some(file) = &drive.spec.host_export.file {
        let directory = Path::new(&file.path).parent().unwrap_or(Path::new("/"));
        volume.host_path = Some(HostPathVolumeSource {
            path: directory.display().to_string(),
            type_: Some("DirectoryOrCreate".to_owned()),
        });
        let mount = VolumeMount {
            name: MEDIUM_VOLUME.to_owned(),
            mount_path: MEDIUM.to_owned(),
            ..VolumeMount::default()
        };
        return (volume, Some(mount), None);
    }
    volume.persistent_volume_claim = Some(PersistentVolumeClaimVolumeSource {
        claim_name: volume_name(uid),
        read_only: None,
    });
    let device = VolumeDevice {
        name: MEDIUM_VOLUME.to_owned(),
        device_path: MEDIUM.to_owned(),
    };
    (volume, None, Some(device))
}

fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        ..ContainerPort::default()
    }
}

/// Requests: what an idle drive was measured to hold. Limit: its queues, all full.
fn resources() -> ResourceRequirements {
    let amount = |name: &str, text: &str| (name.to_owned(), Quantity(text.to_owned()));
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            amount("cpu", "10m"),
            amount("memory", "16Mi"),
        ])),
        limits: Some(BTreeMap::from([amount("memory", "256Mi")])),
        ..ResourceRequirements::default()
    }
}

fn on_node(node: &Node) -> NodeSelector {
    NodeSelector {
        node_selector_terms: vec![NodeSelectorTerm {
            match_expressions: Some(vec![NodeSelectorRequirement {
                key: nodes::HOSTNAME.to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![nodes::hostname(node)]),
            }]),
            match_fields: None,
        }],
    }
}

fn device_metadata(drive: &Drive, uid: DriveUid, namespace: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(volume_name(uid)),
        namespace: namespace.map(str::to_owned),
        labels: Some(labels::labels(Component::Drive, DRIVE_UID, uid.0)),
        annotations: Some(labels::owner_annotation(&drive.name_any())),
        ..ObjectMeta::default()
    }
}

/// The PersistentVolume of a block device; it has no owner, the Drive's finalizer cleans up.
pub fn volume(
    drive: &Drive,
    uid: DriveUid,
    device: &str,
    node: &Node,
    settings: &Settings,
) -> PersistentVolume {
    PersistentVolume {
        metadata: device_metadata(drive, uid, None),
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            capacity: Some(BTreeMap::from([(
                "storage".to_owned(),
                quantity::quantity(NOMINAL_SIZE),
            )])),
            claim_ref: Some(ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("PersistentVolumeClaim".to_owned()),
                name: Some(volume_name(uid)),
                namespace: Some(settings.namespaces.drives.clone()),
                ..ObjectReference::default()
            }),
            local: Some(LocalVolumeSource {
                path: device.to_owned(),
                fs_type: None,
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(on_node(node)),
            }),
            persistent_volume_reclaim_policy: Some("Retain".to_owned()),
            volume_mode: Some("Block".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}

/// The claim that the pod names; bound to that one PersistentVolume.
pub fn claim(drive: &Drive, uid: DriveUid, settings: &Settings) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: device_metadata(drive, uid, Some(&settings.namespaces.drives)),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    quantity::quantity(NOMINAL_SIZE),
                )])),
                limits: None,
            }),
            // Empty, not absent: no default class may take hold of it.
            storage_class_name: Some(String::new()),
            volume_mode: Some("Block".to_owned()),
            volume_name: Some(volume_name(uid)),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
