//! How a volume grows. Pure.
//!
//! | seen | decided |
//! | --- | --- |
//! | `spec.size` above that of a slice, its drive can promise so much | raise the Slice's size |
//! | the drive cannot, or does not serve | nothing; `Expanded` says why, and what to do |
//! | every slice is larger at its drive | `status.allocated` follows, with a newer document of the same term |
//! | the engine reports a greater size | `status.size` follows |
//!
//! `status.size` ≤ `status.allocated` ≤ each slice at its drive ≤ each Slice object ≤ `spec.size`: each
//! follows only its right neighbour, so an operator may die between any two.

use super::plan::{Observed, Pass, Step};
use super::status;
use super::{members, placement};
use crate::shared::{finalizers, quantity};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use weft_crds::{Slice, Volume, VolumeStatus};

/// Whether a Slice is to be raised, so that the room of its drive has to be known.
pub fn is_wanted(o: &Observed) -> bool {
    o.volume
        .status
        .as_ref()
        .is_some_and(|status| smaller(o, status).is_some())
}

/// Whether a volume waits for room on the drive that it is on.
pub fn waits_for_room(volume: &Volume) -> bool {
    let is_so = |c: &Condition| c.type_ == status::EXPANDED && c.reason == status::NO_ROOM;
    let status = volume.status.as_ref();
    status.is_some_and(|status| status.conditions.iter().any(is_so))
}

/// The slices that hold the data of the volume; a witness never grows.
pub fn members<'a>(o: &'a Observed, status: &'a VolumeStatus) -> impl Iterator<Item = &'a Slice> {
    let is_member = |s: &&Slice| members::data(status).any(|m| m.slice_uid == s.spec.uid);
    o.slices.iter().filter(is_member)
}

/// A member whose object asks for less than the volume does. None before the volume was placed.
fn smaller<'a>(o: &'a Observed, status: &'a VolumeStatus) -> Option<&'a Slice> {
    let wish = quantity::bytes(&o.volume.spec.size)?;
    status.allocated.as_ref()?;
    let deleting = finalizers::is_deleting(&o.volume);
    let mut members = members(o, status).filter(|_| !deleting);
    members.find(|s| quantity::bytes(&s.spec.size).is_some_and(|size| size < wish))
}

impl Pass {
    /// Gives what stands in the way of a slice that has to grow.
    pub(super) fn grow(&mut self, o: &Observed) -> Option<status::Word> {
        self.follow_slices(o);
        // Without what placement knows: it is read in the pass that this one's swap calls for.
        let (slice, placement) = (smaller(o, &self.status)?, o.placement.as_ref()?);
        match placement::room_to_grow(o, slice, placement) {
            Ok(overcommit_percent) => {
                let mut larger = slice.clone();
                larger.spec.size = o.volume.spec.size.clone();
                larger.spec.overcommit_percent = overcommit_percent;
                self.steps.push(Step::GrowSlice(Box::new(larger)));
                None
            }
            Err(word) => Some(word),
        }
    }

    /// What every slice has, the engine may serve: never less than it was told before.
    fn follow_slices(&mut self, o: &Observed) {
        let at_drive = |s: &Slice| quantity::bytes(s.status.as_ref()?.size.as_ref()?);
        let sizes: Vec<_> = members(o, &self.status).map(at_drive).collect();
        let all = sizes.len() == members::data(&self.status).count();
        let Some(least) = sizes.into_iter().min().flatten().filter(|_| all) else {
            return;
        };
        let wish = quantity::bytes(&o.volume.spec.size).unwrap_or(least);
        let next = least.min(wish);
        let told = quantity::bytes(told_size(&o.volume, &self.status)).unwrap_or(0);
        if self.status.allocated.is_none() || next > told {
            self.status.allocated = Some(quantity::quantity(next));
            if self.status.term > 0 && next != told {
                self.status.document_generation += 1;
            }
        }
    }
}

/// The size that the engine's document has. An operator that knew no growth wrote no `allocated`.
pub fn told_size<'a>(volume: &'a Volume, status: &'a VolumeStatus) -> &'a Quantity {
    status.allocated.as_ref().unwrap_or(&volume.spec.size)
}
