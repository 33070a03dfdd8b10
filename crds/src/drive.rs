//! `Drive`: one medium with its own place on the network.

use crate::common::Phase;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One medium with its own place on the network. A small pod on its node exports slices of it over
/// NVMe/TCP. Deleting a Drive takes the pod away and leaves the data on the medium.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Drive",
    status = "DriveStatus",
    derive = "PartialEq",
    shortname = "wd",
    category = "weft",
    doc = "One medium with its own place on the network: a small pod on its node exports slices of it over NVMe/TCP.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.hostExport.node"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.free"),
    printcolumn(name = "Slices", type_ = "integer", json_path = ".status.slices"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Address",
        type_ = "string",
        json_path = ".status.address",
        priority = "1"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    )
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("!has(oldSelf.uid) || has(self.uid)")
    .message("uid cannot be removed: it is the identity written on the drive; leave it as it is"))]
pub struct DriveSpec {
    /// Identity written on the drive; made when empty. Set it only to take a known drive back
    /// (with adoption Adopt).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("uid cannot be changed: another identity is another drive; make a new Drive with that uid"),
        validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')")
            .message("uid must be a UUID in lower case with hyphens; leave it out and one is made")
    )]
    pub uid: Option<String>,

    /// A medium in one of the cluster's own nodes.
    pub host_export: HostExport,

    /// What may be done with a medium that does not carry this drive yet.
    #[serde(default)]
    pub adoption: Adoption,

    /// `Drain`: no slice is put here any more, and those of volumes with two replicas or more are
    /// replaced by others elsewhere. Without it: nothing special.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Maintenance")]
    pub maintenance: Option<Maintenance>,
}

/// What is being done to a drive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Maintenance {
    /// Its slices go elsewhere.
    Drain,
}

/// A medium in one of the cluster's own nodes: a block device or a file.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.device) != has(self.file)")
        .message("hostExport takes exactly one of device and file: set device to a block device's stable path, or file to {path, size}"),
    validation = Rule::new("has(self.device) == has(oldSelf.device)")
        .message("hostExport cannot change between device and file: make a new Drive for the other medium")
)]
pub struct HostExport {
    /// Name of the Node that has the medium.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("hostExport.node cannot be changed: delete this Drive (the data stays) and make one for the other node with the same uid and adoption Adopt"))]
    pub node: String,

    /// Stable path of a whole block device on the node, such as /dev/disk/by-id/…, below one of
    /// the operator's allowed prefixes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 512))]
    #[x_kube(
        validation = Rule::new("self.startsWith('/dev/') && !self.contains('/../') && !self.contains('/./') && !self.contains('//') && !self.endsWith('/') && !self.endsWith('/..')")
            .message("hostExport.device must be an absolute path below /dev/ without '..': use the device's link in /dev/disk/by-id/"),
        validation = Rule::new("!self.matches('^/dev/[^/]+$')")
            .message("hostExport.device must be a stable name: names such as /dev/sda or /dev/nvme0n1 may mean another device after a reboot; use the device's link in /dev/disk/by-id/"),
        validation = Rule::new("self == oldSelf")
            .message("hostExport.device cannot be changed: make a new Drive for another device")
    )]
    pub device: Option<String>,

    /// A preallocated file on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "FileMedium")]
    pub file: Option<FileMedium>,
}

/// A file as a medium; made when it does not exist.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileMedium {
    /// Absolute path on the node, below the operator's drives root.
    #[schemars(length(min = 2, max = 512))]
    #[x_kube(
        validation = Rule::new("self.startsWith('/') && !self.contains('/../') && !self.contains('/./') && !self.contains('//') && !self.endsWith('/') && !self.endsWith('/..')")
            .message("hostExport.file.path must be the absolute path of a file without '..', below the operator's drives root (chart value drives.root)"),
        validation = Rule::new("self == oldSelf")
            .message("hostExport.file.path cannot be changed: make a new Drive for another file")
    )]
    pub path: String,

    /// Bytes of the file.
    #[schemars(with = "String", length(max = 24))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isInteger() && quantity(self).asInteger() > 0 && quantity(self).asInteger() % 4096 == 0")
            .message("hostExport.file.size must be greater than 0 and a multiple of 4Ki, such as 1Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) == 0")
            .message("hostExport.file.size cannot be changed: make a second Drive for more space")
    )]
    pub size: Quantity,
}

/// What may be done with a medium that does not carry this drive yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Adoption {
    /// Nothing: only a medium that already carries this drive is served.
    #[default]
    Never,
    /// Format it if it is blank.
    IfBlank,
    /// Take over a Weft drive of this cluster.
    Adopt,
}

/// What the operator has observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveStatus {
    /// One word for where the drive stands.
    #[serde(default)]
    pub phase: Phase,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Adopted`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Bytes that slices can use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub size: Option<Quantity>,
    /// Bytes not allocated to any chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub free: Option<Quantity>,
    /// Sum of the sizes promised to slices (thin provisioning may promise more than there is).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub promised: Option<Quantity>,
    /// How many slices the drive holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub slices: Option<i64>,
    /// Name of the pod, in the drives' namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub pod: Option<String>,
    /// Where the drive's NVMe/TCP target is: `address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub address: Option<String>,
    /// Generation of the newest document written for the drive's pod.
    #[serde(default)]
    pub document_generation: i64,
}
