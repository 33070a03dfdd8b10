//! Which slices a volume is made of: their names, and what each is for. Pure.
//!
//! | `replicas` | slices |
//! | --- | --- |
//! | 1 | `<volume>-a` |
//! | 2 | `<volume>-a`, `<volume>-b` and the witness `<volume>-w`, so that the number of votes is odd |
//! | 3 | `<volume>-a`, `<volume>-b`, `<volume>-c` |
//!
//! Names are fixed, so that a pass cut short makes no second one.

use super::plan::Observed;
use super::status;
use weft_crds::volume::VolumeMember;
use weft_crds::{Phase, Slice, SliceRole, Volume};

/// One slice that a volume is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Name of the Slice object.
    pub name: String,
    /// What it is for.
    pub role: SliceRole,
}

/// Why a volume is not made of its slices yet.
pub enum Missing {
    /// These slices are to be made.
    Slices(Vec<Part>),
    /// Something else is waited for.
    Word(status::Word),
}

/// All parts of a volume, those with the data first.
pub fn wanted(volume: &Volume) -> Vec<Part> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let replicas = usize::try_from(volume.spec.replicas).unwrap_or(1).max(1);
    let data = ('a'..='z').take(replicas).map(|letter| Part {
        name: format!("{name}-{letter}"),
        role: SliceRole::Data,
    });
    let witness = replicas.is_multiple_of(2).then(|| Part {
        name: format!("{name}-w"),
        role: SliceRole::Witness,
    });
    data.chain(witness).collect()
}

/// Whether the volume has several slices, and a record of which of them count.
pub fn is_mirror(volume: &Volume) -> bool {
    volume.spec.replicas > 1
}

/// Parts that have no Slice object.
pub fn without_slice(o: &Observed) -> Vec<Part> {
    let is_there = |part: &Part| slice_of(o, part).is_some();
    let all = wanted(&o.volume).into_iter();
    all.filter(|part| !is_there(part)).collect()
}

fn slice_of<'a>(o: &'a Observed, part: &Part) -> Option<&'a Slice> {
    let named = |s: &&Slice| s.metadata.name.as_ref() == Some(&part.name);
    o.slices.iter().find(named)
}

/// The members that the slices of this volume make, once their drives have allocated all of them.
pub fn members(o: &Observed) -> Result<Vec<VolumeMember>, Missing> {
    let all = wanted(&o.volume);
    let there: Vec<_> = all
        .iter()
        .filter_map(|part| Some((part, slice_of(o, part)?)))
        .collect();
    let own = |s: &Slice| Some(&s.spec.volume_uid) == o.volume.spec.uid.as_ref();
    if let Some((_, foreign)) = there.iter().find(|(_, s)| !own(s)) {
        return Err(Missing::Word(status::foreign_slice(foreign)));
    }
    let is_leaving = |s: &Slice| s.metadata.deletion_timestamp.is_some();
    if let Some((_, leaving)) = there.iter().find(|(_, s)| is_leaving(s)) {
        return Err(Missing::Word(status::slice_leaving(leaving)));
    }
    if there.len() < all.len() {
        return Err(Missing::Slices(without_slice(o)));
    }
    let is_ready = |s: &Slice| s.status.as_ref().is_some_and(|s| s.phase == Phase::Ready);
    if let Some((_, waits)) = there.iter().find(|(_, s)| !is_ready(s)) {
        return Err(Missing::Word(status::slice_waits(waits)));
    }
    Ok(there
        .into_iter()
        .map(|(part, slice)| member(part, slice))
        .collect())
}

fn member(part: &Part, slice: &Slice) -> VolumeMember {
    VolumeMember {
        slice: part.name.clone(),
        slice_uid: slice.spec.uid.clone(),
        drive: slice.spec.drive.clone(),
        drive_uid: slice.spec.drive_uid.clone(),
        role: part.role,
        ..VolumeMember::default()
    }
}
