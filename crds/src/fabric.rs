//! `Fabric`: the declaration of the L3 network.

use crate::common::Phase;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The declaration of the network that wires run over: one rail, plain routed L3. The one named
/// `default` is made by the operator when there is none, and carries the cluster's identity.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Fabric",
    status = "FabricStatus",
    derive = "PartialEq",
    shortname = "wf",
    category = "weft",
    doc = "The network that wires run over: one rail of plain routed L3. The Fabric named default is made by the operator when there is none, and carries the cluster's identity.",
    printcolumn(name = "Families", type_ = "string", json_path = ".status.families"),
    printcolumn(name = "Translation", type_ = "string", json_path = ".spec.translation"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default'")
        .message("metadata.name must be default: this version has one fabric; edit the Fabric named default")
)]
#[cfg_attr(test, kube(cel))]
#[x_kube(validation = Rule::new("!has(oldSelf.uid) || has(self.uid)")
    .message("uid cannot be removed: it is the cluster's identity, written on every drive; leave it as it is"))]
pub struct FabricSpec {
    /// The cluster's identity, written on every drive; made when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("uid cannot be changed: it is the cluster's identity, written on every drive"),
        validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')")
            .message("uid must be a UUID in lower case with hyphens; leave it out and one is made")
    )]
    pub uid: Option<String>,

    /// Address families that wires may use, the preferred one first; the cluster's when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.all(x, self.exists_one(y, x == y))")
        .message("families must name each family once: IPv4, IPv6 or both; leave it empty for the cluster's"))]
    pub families: Vec<IpFamily>,

    /// TCP ports that Weft's pods listen on.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("ports cannot be changed: running pods listen on them; set them in a Fabric applied before the operator's first start"))]
    pub ports: Ports,

    /// Whether addresses may be translated on the way.
    #[serde(default)]
    pub translation: Translation,
}

/// TCP ports that Weft's pods listen on.
#[derive(KubeSchema, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.drive != self.control && self.engine != self.control")
    .message("ports.control must differ from ports.drive and ports.engine: one pod listens on both"))]
pub struct Ports {
    /// NVMe/TCP of drives.
    #[serde(default = "drive_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub drive: i32,
    /// NVMe/TCP of engines.
    #[serde(default = "engine_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub engine: i32,
    /// Control link in drive and engine pods.
    #[serde(default = "control_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub control: i32,
    /// Where the operator takes the statuses that pods push.
    #[serde(default = "operator_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub operator: i32,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            drive: drive_port(),
            engine: engine_port(),
            control: control_port(),
            operator: operator_port(),
        }
    }
}

const fn drive_port() -> i32 {
    4421
}
const fn engine_port() -> i32 {
    4420
}
const fn control_port() -> i32 {
    4410
}
const fn operator_port() -> i32 {
    4411
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum IpFamily {
    /// Internet Protocol version 4.
    IPv4,
    /// Internet Protocol version 6.
    IPv6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether addresses may be translated on the way.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum Translation {
    /// A wire whose target sees another source address than the initiator has is not Ready.
    #[default]
    Forbidden,
}

/// What the operator has observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FabricStatus {
    /// One word for where the fabric stands.
    #[serde(default)]
    pub phase: Phase,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Families in use, for people: `IPv4`, `IPv4,IPv6`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub families: Option<String>,
}
