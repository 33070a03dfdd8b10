//! `Slice`: the piece of one drive given to one volume.

use crate::common::{Fence, Phase, SliceRole};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// The piece of one drive given to one volume. The operator makes and deletes slices.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Slice",
    status = "SliceStatus",
    derive = "PartialEq",
    shortname = "wsl",
    category = "weft",
    selectable = ".spec.volume",
    selectable = ".spec.drive",
    doc = "The piece of one drive given to one volume. The operator makes and deletes slices.",
    printcolumn(name = "Volume", type_ = "string", json_path = ".spec.volume"),
    printcolumn(name = "Drive", type_ = "string", json_path = ".spec.drive"),
    printcolumn(name = "Role", type_ = "string", json_path = ".spec.role"),
    printcolumn(name = "Size", type_ = "string", json_path = ".spec.size"),
    printcolumn(name = "Used", type_ = "string", json_path = ".status.used"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = "1"
    )
)]
#[cfg_attr(test, kube(cel))]
pub struct SliceSpec {
    /// Identity of the slice: allocated once, never used again.
    #[schemars(length(max = 36))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("uid cannot be changed: another identity is another slice; the operator makes slices"),
        validation = Rule::new("self.matches('^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$')")
            .message("uid must be a UUID in lower case with hyphens; the operator makes slices")
    )]
    pub uid: String,

    /// Name of the Volume.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("volume cannot be changed: a slice belongs to one volume for life"))]
    pub volume: String,

    /// Identity of the volume.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("volumeUid cannot be changed: a slice belongs to one volume for life"))]
    pub volume_uid: String,

    /// Name of the Drive.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("drive cannot be changed: data moves by a new slice on the other drive"))]
    pub drive: String,

    /// Identity of the drive.
    #[schemars(length(max = 36))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("driveUid cannot be changed: data moves by a new slice on the other drive"))]
    pub drive_uid: String,

    /// Whether it holds the data or only votes.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("role cannot be changed: a slice holds data or votes for life; the operator makes slices"))]
    pub role: SliceRole,

    /// Bytes of the slice. The operator raises it when the volume grows.
    #[schemars(with = "String", length(max = 24))]
    #[x_kube(
        validation = Rule::new("isQuantity(self) && quantity(self).isInteger() && quantity(self).asInteger() > 0 && quantity(self).asInteger() % 4096 == 0")
            .message("size must be greater than 0 and a multiple of 4Ki, such as 20Gi"),
        validation = Rule::new("!isQuantity(self) || !isQuantity(oldSelf) || quantity(self).compareTo(quantity(oldSelf)) >= 0")
            .message("size cannot shrink: a smaller slice would cut off data; slices follow the size of their volume, so make a smaller Volume and copy the data")
    )]
    pub size: Quantity,

    /// How much the drive may promise to slices in all, as a percentage of its size (from the
    /// pool, when the slice was placed).
    #[serde(default = "hundred")]
    #[schemars(range(min = 100, max = 9999))]
    pub overcommit_percent: i32,
}

const fn hundred() -> i32 {
    100
}

/// What the operator has observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceStatus {
    /// One word for where the slice stands.
    #[serde(default)]
    pub phase: Phase,
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// `Allocated`, `Ready`, and while the drive cannot make it larger `Grown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Bytes that the drive has promised it: those of the spec once the drive has taken them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub size: Option<Quantity>,
    /// Bytes of chunks that the drive has given it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub used: Option<Quantity>,
    /// The greatest fence pair that the drive has heard for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Fence")]
    pub fence: Option<Fence>,
}
