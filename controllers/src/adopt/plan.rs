//! What `weft-operator adopt` decides: what drives and API server have in, a [`Plan`] out. Pure.
//!
//! | seen | decided |
//! | --- | --- |
//! | slices of a volume that has no object | a Volume and its Slices, started or held by the [verdict](super::judge) |
//! | the same, with a Volume that an earlier run holds | the verdict anew, in its place |
//! | a Volume that is not held, with a member whose drive was not found before and is now | the member's place is filled in |
//! | any other Volume | left alone; told when the drives name other members than it does |
//! | a Volume or Slice that is being deleted | left alone |
//! | a slice that is no member | left alone, and told |
//!
//! Nothing is deleted, and no number ever goes back: term, document and attach generation begin at the
//! greatest that any slice of the volume has heard.

use super::judge::{Found, Held, Shape, judge};
use super::objects;
use crate::shared::finalizers;
use crate::volumes::held::is_held;
use crate::volumes::plan::{drive_address, number};
use jiff::Timestamp;
use kube::ResourceExt;
use std::collections::{BTreeMap, BTreeSet};
use weft_crds::{Drive, Pool, Slice, Volume};
use weft_spec::drive::RecordedSlice;
use weft_spec::ids::VolumeUid;

/// What a person said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The Drives that there are are all that the cluster has.
    pub all_drives: bool,
    /// Names for volumes whose own is not known any more.
    pub names: BTreeMap<VolumeUid, String>,
}

/// A Drive and all that it has, or why it does not say.
#[derive(Clone, Debug)]
pub struct SeenDrive {
    /// The object.
    pub drive: Drive,
    /// Its slices.
    pub answer: Result<Vec<RecordedSlice>, String>,
}

/// Everything that was read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// All Drives.
    pub drives: Vec<SeenDrive>,
    /// All Volumes.
    pub volumes: Vec<Volume>,
    /// All Slices.
    pub slices: Vec<Slice>,
    /// All Pools.
    pub pools: Vec<Pool>,
    /// What a person said.
    pub wish: Wish,
    /// The clock.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Volumes to write, by uid.
    pub adoptions: Vec<Adoption>,
    /// What is left alone, for people.
    pub remarks: Vec<String>,
}

/// One volume to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Adoption {
    /// The Volume with the whole status wanted; with a `resourceVersion` if it is there already.
    pub volume: Volume,
    /// Slices to create.
    pub slices: Vec<Slice>,
    /// Why it is not started.
    pub held: Option<Held>,
}

/// One volume of which slices were found.
pub(super) struct Case<'a> {
    pub observed: &'a Observed,
    pub uid: VolumeUid,
    pub found: Vec<Found>,
    /// Its object.
    pub there: Option<&'a Volume>,
}

/// Decides.
pub fn plan(o: &Observed) -> Plan {
    let mut plan = Plan::default();
    for seen in &o.drives {
        if let Err(why) = &seen.answer {
            plan.remarks.push(format!(
                "Drive {} was not heard: {why}",
                seen.drive.name_any()
            ));
        }
    }
    let mut taken: BTreeSet<String> = o.volumes.iter().map(ResourceExt::name_any).collect();
    for (uid, found) in by_volume(o) {
        let case = Case {
            observed: o,
            uid,
            there: o.volumes.iter().find(|v| has_uid(v, uid)),
            found,
        };
        match case.decide(&taken) {
            Ok(Some(adoption)) => {
                taken.insert(adoption.volume.name_any());
                plan.remarks.extend(case.spare(&adoption));
                plan.adoptions.push(adoption);
            }
            Ok(None) => {}
            Err(remark) => plan.remarks.push(remark),
        }
    }
    plan
}

fn has_uid(volume: &Volume, uid: VolumeUid) -> bool {
    volume.spec.uid.as_deref() == Some(uid.to_string().as_str())
}

fn by_volume(o: &Observed) -> BTreeMap<VolumeUid, Vec<Found>> {
    let mut volumes: BTreeMap<VolumeUid, Vec<Found>> = BTreeMap::new();
    for seen in &o.drives {
        let uid = seen.drive.spec.uid.as_deref();
        let Some(uid) = uid.and_then(|uid| uid.parse().ok()) else {
            continue;
        };
        for slice in seen.answer.iter().flatten() {
            volumes.entry(slice.status.volume).or_default().push(Found {
                drive: uid,
                drive_name: seen.drive.name_any(),
                address: drive_address(&seen.drive).unwrap_or_default(),
                slice: slice.clone(),
            });
        }
    }
    volumes
}

impl Case<'_> {
    /// What to write, or why the volume is left alone.
    fn decide(&self, taken: &BTreeSet<String>) -> Result<Option<Adoption>, String> {
        let uid = self.uid;
        let leaving = self.objects().find(|s| finalizers::is_deleting(*s));
        if let Some(slice) = leaving {
            let slice = slice.name_any();
            return Err(format!(
                "volume {uid} is left alone: its Slice {slice} is being deleted"
            ));
        }
        match self.there {
            Some(there) if finalizers::is_deleting(there) => Err(format!(
                "Volume {} is left alone: it is being deleted",
                there.name_any()
            )),
            Some(there) if !is_held(there) => self.fill_in(there),
            there => {
                let name = there.map_or_else(|| self.name(), ResourceExt::name_any);
                if there.is_none() && taken.contains(&name) {
                    return Err(format!(
                        "volume {uid} is left alone: another Volume has the name {name}; give it another with --volume-name {uid}=NAME"
                    ));
                }
                Ok(Some(self.adopt(&name)))
            }
        }
    }

    /// Slice objects of this volume.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Slice> {
        let uid = self.uid.to_string();
        let slices = self.observed.slices.iter();
        slices.filter(move |s| s.spec.volume_uid == uid)
    }

    /// Slices that are left know it; else a person may; else it is made from the identity.
    fn name(&self) -> String {
        let known = self.objects().next().map(|s| s.spec.volume.clone());
        let said = self.observed.wish.names.get(&self.uid).cloned();
        known
            .or(said)
            .unwrap_or_else(|| format!("adopted-{}", self.uid))
    }

    fn adopt(&self, name: &str) -> Adoption {
        match self.verdict() {
            Ok(shape) => Adoption {
                volume: objects::started(self, name, &shape),
                slices: objects::slices(self, name, &shape),
                held: None,
            },
            Err(held) => Adoption {
                volume: objects::held(self, name, &held),
                slices: Vec::new(),
                held: Some(held),
            },
        }
    }

    fn verdict(&self) -> Result<Shape, Held> {
        let silent: Vec<_> = self
            .observed
            .drives
            .iter()
            .filter(|seen| seen.answer.is_err())
            .map(|seen| seen.drive.name_any())
            .collect();
        let complete = self.observed.wish.all_drives && silent.is_empty();
        let shape = judge(&self.found, complete).map_err(|mut held| {
            if !silent.is_empty() {
                held.message += &format!(" (not heard: drive {})", silent.join(", drive "));
            }
            held
        })?;
        if self.term() == i64::MAX {
            return Err(Held::new(
                "TermsUsedUp",
                "a drive has heard the greatest term that there is, and the next engine needs a greater one: copy the \
                 data from its slices with the programs of docs/without-kubernetes.md"
                    .to_owned(),
            ));
        }
        let replicas = objects::replicas(&shape);
        let fixed = |there: &&Volume| (there.spec.replicas == 1) != (replicas == 1);
        match self.there.filter(fixed) {
            Some(there) => Err(Held::new(
                "ReplicasDiffer",
                format!(
                    "the records say replicas {replicas}, this object {}, and one cannot become the other: delete this \
                     Volume, which frees nothing at the drives, and run weft-operator adopt again",
                    there.spec.replicas
                ),
            )),
            None => Ok(shape),
        }
    }

    /// A member whose drive was missing when the volume was adopted, and that was found now.
    fn fill_in(&self, there: &Volume) -> Result<Option<Adoption>, String> {
        let mut volume = there.clone();
        let mut slices = Vec::new();
        let status = volume.status.get_or_insert_default();
        for member in status
            .members
            .iter_mut()
            .filter(|m| objects::is_unplaced(m))
        {
            let found = self
                .found
                .iter()
                .find(|at| at.slice.status.slice.to_string() == member.slice_uid);
            if let Some(at) = found {
                objects::put(member, at);
                slices.extend(objects::slice(self, &there.name_any(), member, at));
            }
        }
        if slices.is_empty() && status.members == there.status.clone().unwrap_or_default().members {
            return self.told(there).map_or(Ok(None), Err);
        }
        status.document_generation += 1;
        Ok(Some(Adoption {
            volume,
            slices,
            held: None,
        }))
    }

    /// A restored backup may name other members than the drives do. The engine sees to it by the records.
    fn told(&self, there: &Volume) -> Option<String> {
        let shape = judge(&self.found, true).ok()?;
        let members = there.status.iter().flat_map(|s| &s.members);
        let members: BTreeSet<_> = members.map(|m| m.slice_uid.clone()).collect();
        let seats: BTreeSet<_> = shape.seats.iter().map(|s| s.slice.to_string()).collect();
        let others: Vec<_> = seats.difference(&members).cloned().collect();
        (!others.is_empty() && !members.is_empty()).then(|| {
            format!(
                "Volume {} is left alone: its drives also name slice {}, which it does not (a restored backup?); \
                 its engine goes by the records",
                there.name_any(),
                others.join(", ")
            )
        })
    }

    /// Slices that the volume does without.
    fn spare(&self, adoption: &Adoption) -> Vec<String> {
        let members = adoption.volume.status.iter().flat_map(|s| &s.members);
        let members: BTreeSet<_> = members.map(|m| m.slice_uid.clone()).collect();
        let spare = |at: &&Found| {
            adoption.held.is_none() && !members.contains(&at.slice.status.slice.to_string())
        };
        let left = self.found.iter().filter(spare).map(|at| {
            format!(
                "slice {} of volume {} on drive {} is no member by the record: it is left as it is, without an object",
                at.slice.status.slice, self.uid, at.drive_name
            )
        });
        left.collect()
    }

    /// The greatest term that any of its slices has heard.
    pub(super) fn term(&self) -> i64 {
        let terms = self.found.iter().map(|at| at.slice.status.fence.term.0);
        let recorded = self.found.iter().filter_map(|at| at.slice.record.as_ref());
        let recorded = recorded.map(|record| record.fence.term.0);
        number(terms.chain(recorded).max().unwrap_or(0))
    }

    /// The greatest generation of a document that an engine made durable at any of its slices.
    pub(super) fn document_generation(&self) -> i64 {
        let generations = self.found.iter().map(|at| at.slice.document_generation.0);
        number(generations.max().unwrap_or(0))
    }
}
