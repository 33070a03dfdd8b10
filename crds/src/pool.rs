//! `Pool`: a placement set. It has no process and no endpoint.

use crate::common::Phase;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

/// A placement set: a selection of drives with rules. It has no endpoint and no process; no byte
/// goes through a pool.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "weft.storage",
    version = "v1alpha1",
    kind = "Pool",
    status = "PoolStatus",
    derive = "PartialEq",
    shortname = "wp",
    category = "weft",
    doc = "A placement set: a selection of drives with rules for placing slices on them. It has no endpoint and no process: no byte goes through a pool.",
    printcolumn(name = "Drives", type_ = "integer", json_path = ".status.drives"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.ready"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Free", type_ = "string", json_path = ".status.free"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[cfg_attr(test, kube(cel))]
pub struct PoolSpec {
    /// Labels of the drives that belong to the pool; an empty selector takes every drive.
    #[serde(default)]
    pub selector: LabelSelector,

    /// Node labels to spread slices over, most important first: each value of a label is a
    /// failure domain.
    #[serde(default = "default_spread")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 317)))]
    pub spread_by: Vec<String>,

    /// How much may be promised to slices, as a percentage of each drive's size.
    #[serde(default = "default_overcommit")]
    #[schemars(length(max = 5))]
    #[x_kube(validation = Rule::new("self.matches('^[1-9][0-9]{2,3}%$')")
        .message("overcommit must be a percentage from 100% to 9999%: 100% promises no more than there is, 200% twice as much"))]
    pub overcommit: String,
}

impl PoolSpec {
    /// [`PoolSpec::overcommit`] as a number; 100 when it cannot be read.
    pub fn overcommit_percent(&self) -> u32 {
        self.overcommit.trim_end_matches('%').parse().unwrap_or(100)
    }
}

fn default_spread() -> Vec<String> {
    vec!["kubernetes.io/hostname".to_owned()]
}

fn default_overcommit() -> String {
    "100%".to_owned()
}

/// What the operator has observed.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolStatus {
    /// One word for where the pool stands.
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
    /// Drives that the selector takes.
    #[serde(default)]
    pub drives: i64,
    /// Those of them that are Ready.
    #[serde(default)]
    pub ready: i64,
    /// Sum of the sizes of the drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub size: Option<Quantity>,
    /// Sum of what is free on the drives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub free: Option<Quantity>,
}
