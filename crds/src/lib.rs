//! The custom resources of Weft: what a person writes and what `kubectl` shows.
//!
//! | file | kind | what it is |
//! | --- | --- | --- |
//! | [`drive`] | [`Drive`] | one medium with its own place on the network |
//! | [`pool`] | [`Pool`] | a placement set over drives; no process, no endpoint |
//! | [`volume`] | [`Volume`] | what a consumer sees as one block device |
//! | [`slice`](mod@slice) | [`Slice`] | the piece of one drive given to one volume |
//! | [`attachment`] | [`Attachment`] | the right of one node to use one volume |
//! | [`fabric`] | [`Fabric`] | the declaration of the L3 network |
//! | [`common`] | – | what several kinds share |
//!
//! The YAML beside the sources (`crds/yaml/`) is printed by `weft-operator crds` and compared by a
//! test. Rules that need only the object itself are CEL in the schema, so that a mistake is refused
//! at `kubectl apply` with a message that names the field, the rule and the way out. Rules that
//! need other objects or the settings are conditions.
//!
//! Two habits of these files: an optional field carries `schemars(with = …)`, which keeps
//! `nullable` out of the schema, so that CEL's `has()` never meets an explicit null; and a number
//! is `i32` or `i64`, because API servers know no other integer format.

#![expect(
    clippy::duplicated_attributes,
    reason = "the lint takes the keys of several printcolumn(…) for one attribute given twice"
)]

pub mod attachment;
pub mod common;
pub mod drive;
pub mod fabric;
pub mod pool;
pub mod slice;
pub mod volume;

pub use attachment::{Attachment, AttachmentSpec, AttachmentStatus};
pub use common::{Phase, SliceRole};
pub use drive::{Drive, DriveSpec, DriveStatus};
pub use fabric::{Fabric, FabricSpec, FabricStatus};
pub use pool::{Pool, PoolSpec, PoolStatus};
pub use slice::{Slice, SliceSpec, SliceStatus};
pub use volume::{Volume, VolumeSpec, VolumeStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// API group of every kind.
pub const GROUP: &str = "weft.storage";
/// The one version there is.
pub const VERSION: &str = "v1alpha1";

/// Every CustomResourceDefinition, in the order in which a newcomer meets them.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![
        Drive::crd(),
        Pool::crd(),
        Volume::crd(),
        Slice::crd(),
        Attachment::crd(),
        Fabric::crd(),
    ]
}

#[cfg(test)]
mod tests;
