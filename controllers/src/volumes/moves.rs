//! How a volume's slices are replaced: a drive is evicted or drained, or the number of copies changes.
//! Pure.
//!
//! | seen | decided |
//! | --- | --- |
//! | fewer copies stay than are wanted, a slice is there that is no member | it joins: the engine copies the data to it |
//! | the same, no such slice | choose a drive, create one |
//! | as many copies as are wanted have everything | they are the members, the others leave, and the witness follows: one swap, so that the number of votes stays odd |
//! | a witness is wanted elsewhere, its slice is there | it takes the place of the one before |
//! | a slice that is no member, and the engine says so | delete it |
//!
//! A copy leaves only when the others have everything by the record in force, and its slice is deleted
//! only when the engine says that it is of no use any more.

use super::parts::Part;
use super::plan::{Observed, Pass, Step, drive_address, number, term};
use super::{members, parts, placement, status};
use crate::shared::finalizers;
use weft_crds::drive::Maintenance;
use weft_crds::volume::{MemberState, VolumeMember};
use weft_crds::{Phase, Slice, SliceRole, VolumeStatus};
use weft_spec::engine::{EngineState, EngineStatus};
use weft_spec::ids::VolumeUid;

/// Parts that have to be made so that the volume can be as it should be.
pub fn missing(o: &Observed) -> Vec<Part> {
    let Some(status) = o.volume.status.as_ref() else {
        return Vec::new();
    };
    if !applies(o, status) {
        return Vec::new();
    }
    let wish = Wish::of(o, status);
    let lacks =
        |wanted: usize, role: SliceRole| wanted.saturating_sub(spare(o, status, role).len());
    let data = new_parts(o, SliceRole::Data, lacks(wish.data, SliceRole::Data));
    let witness = new_parts(
        o,
        SliceRole::Witness,
        lacks(wish.witnesses, SliceRole::Witness),
    );
    data.into_iter().chain(witness).collect()
}

/// Whether anything on this drive shall go.
pub fn is_evicted(o: &Observed, drive: &str) -> bool {
    let named = |d: &&weft_crds::Drive| d.metadata.name.as_deref() == Some(drive);
    let drained = o.drives.iter().find(named);
    let drained = drained.is_some_and(|d| d.spec.maintenance == Some(Maintenance::Drain));
    drained || o.volume.spec.evict.iter().any(|name| name == drive)
}

/// Whether this slice stays with the volume; where one leaves, another may come.
pub fn stays(o: &Observed, slice: &Slice) -> bool {
    let leaving = o.volume.status.as_ref().filter(|status| applies(o, status));
    let surplus = leaving.is_some_and(|status| match slice.spec.role {
        SliceRole::Witness => witnesses(o) == 0,
        SliceRole::Data => surplus(o, status).any(|m| m.slice_uid == slice.spec.uid),
    });
    !surplus && !is_evicted(o, &slice.spec.drive)
}

/// Copies beyond those that are wanted: who has everything stays before who has not, and who has been
/// a member before who joins.
fn surplus<'a>(o: &Observed, status: &'a VolumeStatus) -> impl Iterator<Item = &'a VolumeMember> {
    let here = members::data(status).filter(|m| !is_evicted(o, &m.drive));
    let mut here: Vec<_> = here.collect();
    here.sort_by_key(|m| (m.state != Some(MemberState::InSync), m.joining));
    here.into_iter().skip(replicas(o))
}

fn applies(o: &Observed, status: &VolumeStatus) -> bool {
    let placed = !status.members.is_empty() && status.formed;
    placed && parts::is_mirror(&o.volume) && !finalizers::is_deleting(&o.volume)
}

/// Whether the volume has, or is to have, other slices than it should.
pub fn is_under_way(o: &Observed, status: &VolumeStatus) -> bool {
    let evicted = |m: &VolumeMember| is_evicted(o, &m.drive);
    let of = |role| {
        status
            .members
            .iter()
            .filter(move |m| m.role == role)
            .count()
    };
    let other = of(SliceRole::Data) != replicas(o) || of(SliceRole::Witness) != witnesses(o);
    let is_member = |s: &Slice| status.members.iter().any(|m| m.slice_uid == s.spec.uid);
    applies(o, status)
        && (other
            || status.members.iter().any(|m| m.joining || evicted(m))
            || o.slices.iter().any(|s| !is_member(s)))
}

/// How many slices have to come beside the members.
struct Wish {
    data: usize,
    witnesses: usize,
}

impl Wish {
    fn of(o: &Observed, status: &VolumeStatus) -> Self {
        let stays = |role: SliceRole| {
            let of_role = status.members.iter().filter(move |m| m.role == role);
            of_role.filter(|m| !is_evicted(o, &m.drive)).count()
        };
        Self {
            data: replicas(o).saturating_sub(stays(SliceRole::Data)),
            witnesses: witnesses(o).saturating_sub(stays(SliceRole::Witness)),
        }
    }
}

fn replicas(o: &Observed) -> usize {
    usize::try_from(o.volume.spec.replicas).unwrap_or(1)
}

/// An even number of copies takes a vote more.
fn witnesses(o: &Observed) -> usize {
    usize::from(replicas(o).is_multiple_of(2))
}

/// Slices of the volume that are no members and could become some.
fn spare<'a>(o: &'a Observed, status: &VolumeStatus, role: SliceRole) -> Vec<&'a Slice> {
    let is_member = |s: &Slice| status.members.iter().any(|m| m.slice_uid == s.spec.uid);
    let usable = |s: &&Slice| {
        s.spec.role == role
            && Some(&s.spec.volume_uid) == o.volume.spec.uid.as_ref()
            && s.metadata.deletion_timestamp.is_none()
            && !is_member(s)
            && !is_evicted(o, &s.spec.drive)
    };
    o.slices.iter().filter(usable).collect()
}

/// The first names that no slice has.
fn new_parts(o: &Observed, role: SliceRole, count: usize) -> Vec<Part> {
    let volume = o.volume.metadata.name.as_deref().unwrap_or_default();
    let letters = match role {
        SliceRole::Data => 'a'..='v',
        SliceRole::Witness => 'w'..='z',
    };
    let names = letters.map(|letter| format!("{volume}-{letter}"));
    let is_free = |name: &String| {
        o.slices
            .iter()
            .all(|s| s.metadata.name.as_ref() != Some(name))
    };
    let part = |name| Part { name, role };
    names.filter(is_free).take(count).map(part).collect()
}

/// What the engine says that serves in the present term.
fn report<'a>(o: &'a Observed, status: &VolumeStatus) -> Option<&'a EngineStatus> {
    let serves = |r: &&EngineStatus| term(r.term) == status.term && r.state == EngineState::Serving;
    o.report.as_ref().filter(serves)
}

/// A slice as the member that it becomes, once its drive has allocated it and can be reached.
fn joins(o: &Observed, slice: &Slice) -> Option<VolumeMember> {
    let status = slice.status.as_ref();
    status.filter(|s| s.phase == Phase::Ready)?;
    let uid = Some(&slice.spec.drive_uid);
    let drive = o.drives.iter().find(|d| d.spec.uid.as_ref() == uid)?;
    Some(VolumeMember {
        address: drive_address(drive)?,
        slice: slice.metadata.name.clone().unwrap_or_default(),
        slice_uid: slice.spec.uid.clone(),
        drive: slice.spec.drive.clone(),
        drive_uid: slice.spec.drive_uid.clone(),
        role: slice.spec.role,
        joining: slice.spec.role == SliceRole::Data,
        ..VolumeMember::default()
    })
}

impl Pass {
    /// One step towards the slices that the volume should have.
    pub(super) fn recompose(&mut self, o: &Observed) {
        if !applies(o, &self.status) {
            return;
        }
        let before = self.status.members.clone();
        self.let_join(o);
        if report(o, &self.status).is_some() {
            self.exchange(o);
        }
        if shape(&self.status.members) != shape(&before) {
            self.status.document_generation += 1;
        }
        self.let_go(o);
    }

    /// Chooses drives for slices that have to come; gives what stands in the way.
    pub(super) fn replace(&mut self, o: &Observed, uid: VolumeUid) -> Option<status::Word> {
        let parts = missing(o);
        let placement = o.placement.as_ref().filter(|_| !parts.is_empty())?;
        match placement::choose(o, &parts, placement) {
            Ok((pool, chosen)) => {
                self.create(o, uid, pool, &chosen);
                None
            }
            Err(word) => Some(word),
        }
    }

    /// A copy begins at the slices that wait.
    fn let_join(&mut self, o: &Observed) {
        let wish = Wish::of(o, &self.status);
        let spare = spare(o, &self.status, SliceRole::Data);
        let ready = spare.into_iter().filter_map(|slice| joins(o, slice));
        let joining: Vec<_> = ready.take(wish.data).collect();
        self.status.members.extend(joining);
    }

    /// Once enough copies are whole elsewhere, they are the volume.
    fn exchange(&mut self, o: &Observed) {
        let mut whole: Vec<VolumeMember> = members::data(&self.status)
            .filter(|m| m.state == Some(MemberState::InSync) && !is_evicted(o, &m.drive))
            .cloned()
            .collect();
        // Who has been a member stays before who joins.
        whole.sort_by_key(|m| m.joining);
        whole.truncate(replicas(o));
        let Some(witnesses) = self.witnesses(o) else {
            return;
        };
        if whole.len() < replicas(o) {
            // The votes stay as many as they are: a witness may move meanwhile.
            let kept = self.status.members.iter();
            let kept = kept.filter(|m| m.role == SliceRole::Witness).count();
            if kept == witnesses.len() {
                self.status.members.retain(|m| m.role == SliceRole::Data);
                self.status.members.extend(witnesses);
            }
            return;
        }
        whole.iter_mut().for_each(|m| m.joining = false);
        whole.extend(witnesses);
        self.status.members = whole;
    }

    /// The witnesses that should be, once all of them can.
    fn witnesses(&self, o: &Observed) -> Option<Vec<VolumeMember>> {
        let present = self.status.members.iter();
        let present = present.filter(|m| m.role == SliceRole::Witness && !is_evicted(o, &m.drive));
        let spare = spare(o, &self.status, SliceRole::Witness).into_iter();
        let ready = spare.filter_map(|slice| joins(o, slice));
        let all: Vec<_> = present.cloned().chain(ready).take(witnesses(o)).collect();
        (all.len() == witnesses(o)).then_some(all)
    }

    /// Slices that nobody needs, by the word of the engine that has the newest document.
    fn let_go(&mut self, o: &Observed) {
        let wanted = self.status.document_generation;
        let newest = |r: &&EngineStatus| number(r.document_generation.0) >= wanted;
        let Some(report) = report(o, &self.status).filter(newest) else {
            return;
        };
        let needed = Wish::of(o, &self.status);
        for role in [SliceRole::Data, SliceRole::Witness] {
            let coming = match role {
                SliceRole::Data => needed.data,
                SliceRole::Witness => needed.witnesses,
            };
            let spare: Vec<_> = spare(o, &self.status, role);
            let kept: Vec<_> = spare.iter().take(coming).map(|s| &s.spec.uid).collect();
            for slice in o.slices.iter().filter(|s| s.spec.role == role) {
                let uid = &slice.spec.uid;
                let member = self.status.members.iter().any(|m| m.slice_uid == *uid);
                let said = report.members.iter().any(|m| m.slice.to_string() == *uid);
                let own = Some(&slice.spec.volume_uid) == o.volume.spec.uid.as_ref();
                let leaving = slice.metadata.deletion_timestamp.is_some();
                if own && !member && !said && !leaving && !kept.contains(&uid) {
                    let name = slice.metadata.name.clone();
                    self.steps.extend(name.map(Step::DeleteSlice));
                }
            }
        }
    }
}

/// What the engine's document has of it.
fn shape(members: &[VolumeMember]) -> Vec<(&str, bool)> {
    let mut shape: Vec<_> = members
        .iter()
        .map(|m| (m.slice_uid.as_str(), m.joining))
        .collect();
    shape.sort_unstable();
    shape
}
