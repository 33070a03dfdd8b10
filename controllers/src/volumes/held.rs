//! Volumes that were built from drives and are not to be touched by anybody else. Pure.
//!
//! One that is being made has an annotation from its first write on: without it a Volume whose slices
//! are not known yet would be placed anew, empty. One whose drives do not say enough keeps the
//! condition too, so that taking the annotation off by hand starts nothing.

use crate::shared::conditions;
use crate::shared::labels::ADOPTION;
use kube::ResourceExt;
use weft_crds::Volume;

/// Whether a volume was built from its drives. Only there on one that was.
pub const ADOPTED: &str = "Adopted";

/// Whether the volume is left alone until `weft-operator adopt` has all that it needs.
pub fn is_held(volume: &Volume) -> bool {
    let status = volume.status.as_ref();
    let adopted = status.and_then(|s| conditions::get(&s.conditions, ADOPTED));
    let refused = adopted.is_some_and(|condition| condition.status == "False");
    refused || volume.annotations().contains_key(ADOPTION)
}
