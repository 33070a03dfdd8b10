//! The objects that a plan asks for: a Volume with its whole status, and its Slices. Pure.
//!
//! What drives do not keep gets a value that every run finds again: names from Slice objects that are
//! left, from a person, or from the identity; the pool that selects all drives of the volume.

use super::judge::{Found, Held, Seat, Shape};
use super::plan::Case;
use crate::shared::conditions::{self, Truth};
use crate::shared::labels;
use crate::shared::quantity;
use crate::volumes::held::ADOPTED;
use crate::volumes::plan::number;
use crate::volumes::status::READY;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::core::{Selector, SelectorExt};
use std::collections::{BTreeMap, BTreeSet};
use weft_crds::slice::SliceSpec;
use weft_crds::volume::{OnNoData, VolumeMember, VolumeSpec};
use weft_crds::{Phase, Pool, Slice, SliceRole, Volume, VolumeStatus};
use weft_spec::ids::{DriveUid, SliceUid};

/// Name of the drive of a member that was not found. `spec.evict` with it replaces the member.
pub const UNKNOWN_DRIVE: &str = "unknown";
/// An address where nothing is (RFC 5737): the engine does without that member.
const NOWHERE: &str = "192.0.2.1:4421";
/// In a pool that nobody knows.
const UNKNOWN_POOL: &str = "adopted";

/// Whether the drive of a member is not known.
pub fn is_unplaced(member: &VolumeMember) -> bool {
    member.drive_uid == unknown_drive()
}

fn unknown_drive() -> String {
    DriveUid(uuid::Uuid::nil()).to_string()
}

/// How many slices have the data.
pub fn replicas(shape: &Shape) -> i32 {
    let data = shape.seats.iter().filter(|s| s.role == SliceRole::Data);
    i32::try_from(data.count()).unwrap_or(i32::MAX)
}

/// A volume that an engine may be started for once its slices are known.
pub fn started(case: &Case, name: &str, shape: &Shape) -> Volume {
    let sizes = || {
        case.at(shape, SliceRole::Data)
            .map(|at| at.slice.status.size)
    };
    let mut volume = case.volume(name, sizes().max(), replicas(shape));
    let mut status = case.status(&volume, shape.loss.map_or(0, |loss| number(loss.0)));
    status.formed |= shape.formed;
    status.lineage = shape.lineage.map(|lineage| lineage.to_string());
    status.allocated = sizes().min().map(quantity::quantity);
    status.members = case.members(name, shape);
    let lacking = status.members.iter().filter(|m| is_unplaced(m));
    let lacking: Vec<_> = lacking.map(|m| m.slice_uid.clone()).collect();
    let mut message = format!(
        "built from {} of {} slices; no term up to {} is used again",
        shape.seats.len() - lacking.len(),
        shape.seats.len(),
        status.term
    );
    if !lacking.is_empty() {
        message += &format!(
            "; not found: slice {}. Bring back its drive and run weft-operator adopt again, or set \
             spec.evict to [{UNKNOWN_DRIVE}] to have it replaced",
            lacking.join(", ")
        );
    }
    status.phase = Phase::Pending;
    case.say(&mut status, ADOPTED, Truth::True, "Adopted", &message);
    case.say(&mut status, READY, Truth::False, "Adopted", &message);
    volume.status = Some(status);
    volume
}

/// A volume that is left alone, and says why.
pub fn held(case: &Case, name: &str, held: &Held) -> Volume {
    let sizes = case.found.iter().map(|at| at.slice.status.size);
    let several =
        i32::from(case.found.len() > 1 || case.found.iter().any(|at| at.slice.record.is_some()));
    let mut volume = case.volume(name, sizes.max(), 1 + several);
    let mut status = case.status(&volume, 0);
    status.phase = Phase::Failed;
    for kind in [ADOPTED, READY] {
        case.say(&mut status, kind, Truth::False, held.reason, &held.message);
    }
    volume.status = Some(status);
    volume
}

/// The Slice objects that the members of a volume lack.
pub fn slices(case: &Case, name: &str, shape: &Shape) -> Vec<Slice> {
    let members = case.members(name, shape);
    let of = |member: &VolumeMember| slice(case, name, member, case.found(member)?);
    members.iter().filter_map(of).collect()
}

/// The Slice object of a member, unless there is one.
pub fn slice(case: &Case, volume: &str, member: &VolumeMember, at: &Found) -> Option<Slice> {
    let there = |s: &Slice| s.spec.uid == member.slice_uid;
    if case.objects().any(there) {
        return None;
    }
    let uid = case.uid.to_string();
    let percent = case
        .pool()
        .map_or(100, |pool| pool.spec.overcommit_percent());
    Some(Slice {
        metadata: ObjectMeta {
            name: Some(member.slice.clone()),
            finalizers: Some(vec![labels::FINALIZER.to_owned()]),
            labels: Some(BTreeMap::from([
                (labels::PART_OF.0.to_owned(), labels::PART_OF.1.to_owned()),
                (labels::VOLUME_UID.to_owned(), uid.clone()),
                (labels::DRIVE_UID.to_owned(), at.drive.to_string()),
            ])),
            ..ObjectMeta::default()
        },
        spec: SliceSpec {
            uid: member.slice_uid.clone(),
            volume: volume.to_owned(),
            volume_uid: uid,
            drive: at.drive_name.clone(),
            drive_uid: at.drive.to_string(),
            role: member.role,
            size: quantity::quantity(at.slice.status.size),
            overcommit_percent: i32::try_from(percent).unwrap_or(100),
        },
        status: None,
    })
}

/// Where a member is.
pub fn put(member: &mut VolumeMember, at: &Found) {
    member.drive.clone_from(&at.drive_name);
    member.drive_uid = at.drive.to_string();
    member.address.clone_from(&at.address);
}

impl Case<'_> {
    fn at<'a>(&'a self, shape: &'a Shape, role: SliceRole) -> impl Iterator<Item = &'a Found> {
        let of_role = shape.seats.iter().filter(move |seat| seat.role == role);
        of_role.filter_map(|seat| self.place(seat.slice))
    }

    fn place(&self, slice: SliceUid) -> Option<&Found> {
        self.found.iter().find(|at| at.slice.status.slice == slice)
    }

    fn found(&self, member: &VolumeMember) -> Option<&Found> {
        self.place(member.slice_uid.parse().ok()?)
    }

    /// The object without its status. One that is there never shrinks.
    fn volume(&self, name: &str, size: Option<u64>, replicas: i32) -> Volume {
        let before = self.there.and_then(|v| quantity::bytes(&v.spec.size));
        let size = quantity::quantity(size.max(before).unwrap_or(0));
        if let Some(there) = self.there {
            let mut volume = there.clone();
            (volume.spec.size, volume.spec.replicas) = (size, replicas);
            return volume;
        }
        let pool = self.pool().map(ResourceExt::name_any);
        Volume {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                finalizers: Some(vec![labels::FINALIZER.to_owned()]),
                annotations: Some(BTreeMap::from([(
                    labels::ADOPTION.to_owned(),
                    "under way, or waits for more drives: weft-operator adopt ends it".to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            spec: VolumeSpec {
                uid: Some(self.uid.to_string()),
                pool: pool.unwrap_or_else(|| UNKNOWN_POOL.to_owned()),
                size,
                replicas,
                evict: Vec::new(),
                on_no_data: OnNoData::Pause,
            },
            status: None,
        }
    }

    /// The first pool that selects every drive of the volume that was found.
    fn pool(&self) -> Option<&Pool> {
        let drives: BTreeSet<_> = self.found.iter().map(|at| &at.drive_name).collect();
        let seen = self.observed.drives.iter().map(|seen| &seen.drive);
        let drives: Vec<_> = seen.filter(|d| drives.contains(&d.name_any())).collect();
        let selects = |pool: &&Pool| {
            let selector = Selector::try_from(pool.spec.selector.clone());
            selector.is_ok_and(|s| drives.iter().all(|drive| s.matches(drive.labels())))
        };
        let pools = self.observed.pools.iter().filter(selects);
        pools.min_by_key(|pool| pool.name_any())
    }

    /// The numbers, none of which goes back. An attachment takes a document, so as many were never given.
    fn status(&self, volume: &Volume, loss: i64) -> VolumeStatus {
        let mut status = volume.status.clone().unwrap_or_default();
        let document = self.document_generation();
        status.term = status.term.max(self.term());
        status.document_generation = status.document_generation.max(document);
        status.attach_generation = status.attach_generation.max(document).max(loss);
        status.observed_generation = volume.metadata.generation;
        status
    }

    fn say(&self, s: &mut VolumeStatus, kind: &str, truth: Truth, reason: &str, message: &str) {
        let (generation, now) = (s.observed_generation, self.observed.now);
        conditions::set(
            &mut s.conditions,
            kind,
            truth,
            reason,
            message,
            generation,
            now,
        );
    }

    fn members(&self, volume: &str, shape: &Shape) -> Vec<VolumeMember> {
        let mut taken: BTreeSet<String> = self
            .observed
            .slices
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        let mut member = |seat: &Seat| {
            let uid = seat.slice.to_string();
            let known = self.objects().find(|s| s.spec.uid == uid);
            let slice = known.map_or_else(
                || free_name(volume, seat.role, &taken),
                ResourceExt::name_any,
            );
            taken.insert(slice.clone());
            let mut member = VolumeMember {
                slice,
                slice_uid: uid,
                drive: UNKNOWN_DRIVE.to_owned(),
                drive_uid: unknown_drive(),
                address: NOWHERE.to_owned(),
                role: seat.role,
                state: seat.state,
                since: None,
                joining: false,
            };
            if let Some(at) = self.place(seat.slice) {
                put(&mut member, at);
            }
            member
        };
        shape.seats.iter().map(&mut member).collect()
    }
}

/// Those that a volume placed anew would have, as far as they are free.
fn free_name(volume: &str, role: SliceRole, taken: &BTreeSet<String>) -> String {
    let letters = match role {
        SliceRole::Data => 'a'..='v',
        SliceRole::Witness => 'w'..='z',
    };
    let mut names = letters.map(|letter| format!("{volume}-{letter}"));
    let free = names.find(|name| !taken.contains(name));
    free.unwrap_or_else(|| format!("{volume}-{}", taken.len()))
}

/// What a person may not choose: it is what the slices say.
pub fn spec_differs(there: &Volume, wanted: &Volume) -> bool {
    let differs = |a: &Quantity, b: &Quantity| quantity::bytes(a) != quantity::bytes(b);
    there.spec.replicas != wanted.spec.replicas || differs(&there.spec.size, &wanted.spec.size)
}
