//! `Attachment`: the right of one node to use one volume.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The right of one node to use one volume. By hand it admits the host and tells in its status how
/// to connect; it mounts nothing.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Attachment",
    status = "AttachmentStatus",
    derive = "PartialEq",
    shortname = "wa",
    category = "weft",
    selectable = ".spec.volume",
    selectable = ".spec.node",
    doc = "The right of one node to use one volume. By hand it admits the host and tells in its status how to connect; it mounts nothing.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(name = "Initiator", type_ = "string", json_path = ".status.initiator"),
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
        json_path = r#".status.conditions[?(@.type=="Admitted")].message"#,
        priority = "1"
    )
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("self.access != 'ReadOnlyMany' || self.readOnly")
    .message("access ReadOnlyMany needs readOnly: true: nodes that share a volume must not write; set readOnly to true or access to ReadWriteOnce"))]
pub struct AttachmentSpec {
    /// Name of the Volume.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("volume cannot be changed: make a new Attachment for the other volume"))]
    pub volume: String,

    /// Name of the Node.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("node cannot be changed: make a new Attachment for the other node"))]
    pub node: String,

    /// Who else may use the volume at the same time.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("access cannot be changed: delete this Attachment and make a new one"))]
    pub access: Access,

    /// The engine refuses this host's writes.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("readOnly cannot be changed: delete this Attachment and make a new one"))]
    pub read_only: bool,

    /// Which NVMe/TCP initiator to use on the node.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("initiator cannot be changed: delete this Attachment and make a new one"))]
    pub initiator: InitiatorChoice,
}

/// Who else may use the volume at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Access {
    /// No other node.
    #[default]
    ReadWriteOnce,
    /// Other nodes that only read.
    ReadOnlyMany,
}

/// Which NVMe/TCP initiator to use on the node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum InitiatorChoice {
    /// The kernel's where the node has one, else the user-space one.
    #[default]
    Auto,
    /// The kernel's (`nvme-tcp`), or none.
    Kernel,
    /// The user-space one, in a pod of its own.
    UserSpace,
}

/// Which NVMe/TCP initiator is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum Initiator {
    /// The kernel's (`nvme-tcp`).
    Kernel,
    /// The user-space one, in a pod of its own.
    UserSpace,
}

/// Where an attachment stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum AttachmentPhase {
    /// The engine does not admit the host yet.
    #[default]
    Pending,
    /// The engine admits the host.
    Admitted,
    /// The host is connected and the volume staged.
    Attached,
    /// The right is being taken back.
    Detaching,
}

impl fmt::Display for AttachmentPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What the operator has decided and what the node plugin has observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentStatus {
    /// One word for where the attachment stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AttachmentPhase")]
    pub phase: Option<AttachmentPhase>,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Admitted`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Grows each time the right is given anew: part of the host's name on the wire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub generation: Option<i64>,
    /// Where the engine is: `address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub address: Option<String>,
    /// Term of the engine there: a host never goes back to a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub term: Option<i64>,
    /// Subsystem that the volume answers as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub subsystem_nqn: Option<String>,
    /// Host identifier that goes with the host's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub host_id: Option<String>,
    /// Secret with the host's name on the wire (`host-nqn`), in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub secret_name: Option<String>,
    /// Which initiator is to be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Initiator")]
    pub initiator: Option<Initiator>,
    /// Pod of the user-space initiator, in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub initiator_pod: Option<String>,
    /// Written only by the node plugin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Observed")]
    pub observed: Option<Observed>,
}

/// What the node plugin has observed; written by nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Observed {
    /// Which initiator is in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Initiator")]
    pub initiator: Option<Initiator>,
    /// The initiator's own address, `address:port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub source: Option<String>,
    /// Subsystem NQN that the target answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub identity: Option<String>,
    /// Whether the volume is staged on the node.
    #[serde(default)]
    pub staged: bool,
    /// Whether the node plugin has begun to make a file system and not got to the end yet: what is
    /// on the volume then is half a file system and nobody's data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub formatting: bool,
}
