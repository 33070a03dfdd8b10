//! `Volume`: what a consumer sees as one block device.

use crate::common::{Phase, SliceRole};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a consumer sees as one block device: one engine pod composes it from slices and exports it
/// over NVMe/TCP.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Volume",
    status = "VolumeStatus",
    derive = "PartialEq",
    shortname = "wv",
    category = "weft",
    selectable = ".spec.pool",
    doc = "What a consumer sees as one block device: one engine pod composes it from slices of drives and exports it over NVMe/TCP.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.replicas"),
    printcolumn(name = "Engine", type_ = "string", json_path = ".status.engine.node"),
    printcolumn(name = "Attached", type_ = "string", json_path = ".status.attachedTo"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Served",
        type_ = "string",
        json_path = ".status.size",
        priority = "1"
    ),
    printcolumn(
        name = "Term",
        type_ = "integer",
        json_path = ".status.term",
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
    .message("uid cannot be removed: it is the identity that hosts know the volume by; leave it as it is"))]
pub struct VolumeSpec {
    /// Identity that drives and hosts know the volume by; made when empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 36))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("uid cannot be changed: another identity is another volume; make a new Volume with that uid"),
        validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')")
            .message("uid must be a UUID in lower case with hyphens; leave it out and one is made")
    )]
    pub uid: Option<String>,

    /// Name of the Pool whose drives hold the volume.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("pool cannot be changed: make a new Volume in the other pool and copy the data"))]
    pub pool: String,

    /// Bytes of the block device. A greater number grows the volume, also while it is in use;
    /// `status.size` tells what hosts see.
    #[schemars(with = "String", length(max = 24))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isInteger() && quantity(self).asInteger() > 0 && quantity(self).asInteger() % 4096 == 0")
            .message("size must be greater than 0 and a multiple of 4Ki, such as 20Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
            .message("size cannot shrink: a smaller device would cut off data; make a new Volume and copy the data")
    )]
    pub size: Quantity,

    /// How many drives hold each byte, each in a failure domain of its own. Two take a witness in a
    /// third domain: a few KiB that only vote.
    #[serde(default = "one")]
    #[x_kube(
        validation = Rule::new("self >= 1 && self <= 3")
            .message("replicas must be 1, 2 or 3: 2 survives the loss of any one drive (and needs a third for its witness), 3 keeps two copies while one is lost"),
        validation = Rule::new("self == oldSelf || (self > 1 && oldSelf > 1)")
            .message("replicas cannot be changed from 1 or to 1 in this version (docs/limits.md): make a new Volume with the replicas that you want and copy the data")
    )]
    pub replicas: i32,

    /// Names of drives that shall hold nothing of this volume: each of its slices there is replaced by
    /// one elsewhere, with the data copied first. Of a volume with two replicas or more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub evict: Vec<String>,

    /// What consumers meet while no drive with the data answers.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == 'Pause'")
        .message("onNoData must be Pause in this version (docs/limits.md): I/O waits until the data is there again; set Pause or leave it out"))]
    pub on_no_data: OnNoData,
}

const fn one() -> i32 {
    1
}

/// What consumers meet while no drive with the data answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnNoData {
    /// I/O waits until the data is there again.
    #[default]
    Pause,
    /// I/O fails at once.
    Fail,
}

/// What the operator has decided and observed. Hosts, members and term change only by
/// compare-and-swap on this object.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// One word for where the volume stands.
    #[serde(default)]
    pub phase: Phase,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Placed`, of a mirror `Redundant`, and once the volume was grown or its slices moved `Expanded` and `Recomposed`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Raised each time an engine pod is made; used for at most one pod, ever.
    #[serde(default)]
    pub term: i64,
    /// Whether an engine has ever served this volume: empty slices may form it only before that.
    #[serde(default)]
    pub formed: bool,
    /// Which history of records the slices of a mirror belong to; made before the first engine, and
    /// anew by a forced recovery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub lineage: Option<String>,
    /// Generation of the newest document computed for the engine.
    #[serde(default)]
    pub document_generation: i64,
    /// Greatest attach generation given to any host, ever.
    #[serde(default)]
    pub attach_generation: i64,
    /// Bytes that hosts see, as the engine reports them; follows `spec.size`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub size: Option<Quantity>,
    /// Bytes that every slice has at its drive; the engine is told to serve so many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub allocated: Option<Quantity>,
    /// Who may connect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["attachment".into()]))]
    pub hosts: Vec<VolumeHost>,
    /// The slices that make the volume, and where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["slice".into()]))]
    pub members: Vec<VolumeMember>,
    /// The engine's pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "VolumeEngine")]
    pub engine: Option<VolumeEngine>,
    /// Every declared path and what was proven of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub wires: Vec<Wire>,
    /// Slices with the data that serve, of those wanted: `2/2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub replicas: Option<String>,
    /// Nodes that the volume is attached to, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub attached_to: Option<String>,
}

/// One host that may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeHost {
    /// Name of the Attachment.
    pub attachment: String,
    /// Name of the Node.
    pub node: String,
    /// Of the Attachment: part of the host's name on the wire.
    pub generation: i64,
    /// Writes are refused.
    #[serde(default)]
    pub read_only: bool,
    /// Generation of the first document that admits it.
    #[serde(default)]
    pub document: i64,
}

/// One slice of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMember {
    /// Name of the Slice.
    pub slice: String,
    /// Identity of the slice.
    pub slice_uid: String,
    /// Name of the Drive.
    pub drive: String,
    /// Identity of the drive.
    pub drive_uid: String,
    /// Where the drive is: `address:port`; empty while unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Whether it holds the data or only votes.
    #[serde(default)]
    pub role: SliceRole,
    /// It is to have the data and does not vote yet: it takes the place of another once it has all.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joining: bool,
    /// What it is by the record in force, as the engine says; of the data of a mirror alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "MemberState")]
    pub state: Option<MemberState>,
    /// When it came into that state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,
}

/// What a slice of a mirror is by the record in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum MemberState {
    /// Has every acknowledged write.
    InSync,
    /// Lacks some, and is or will be brought up to date; does not count until it is.
    OutOfSync,
}

/// The engine's pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeEngine {
    /// Name of the pod, in the engines' namespace.
    pub pod: String,
    /// Where it runs; empty while not placed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub node: String,
    /// Where hosts connect to: `address:port`; empty while unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    /// Greatest generation of a document that the engine of this pod has accepted and made durable.
    #[serde(default)]
    pub acknowledged: i64,
    /// Whether it serves, by its own newest word.
    #[serde(default)]
    pub serving: bool,
    /// When the term was raised for this pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,
}

/// A declared path between two ends. Ready only when the real handshake has proven identity and
/// the target sees the very source address that the initiator's socket has: no translation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Wire {
    /// `<from>-><to>`.
    pub name: String,
    /// Between which kinds of ends.
    pub kind: WireKind,
    /// The initiator's end.
    pub from: String,
    /// The target's end.
    pub to: String,
    /// Whether it is proven.
    pub state: WireState,
    /// The initiator's address as the target sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub source_seen_by_target: Option<String>,
    /// The initiator's address as its own socket reports it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub source_of_initiator: Option<String>,
    /// Identity that the target answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub identity: Option<String>,
    /// When it came into this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub since: Option<Time>,
    /// Why it is not Ready.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Between which kinds of ends a wire runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub enum WireKind {
    /// From a node that uses the volume.
    ConsumerToEngine,
    /// From the engine to a drive.
    EngineToDrive,
}

/// Whether a wire is proven.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
pub enum WireState {
    /// Declared, not tried yet.
    #[default]
    Pending,
    /// Proven by the real handshake, and the connection lives.
    Ready,
    /// Was tried and does not hold.
    Broken,
}
