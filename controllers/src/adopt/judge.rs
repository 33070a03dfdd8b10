//! What the slices found of one volume prove about it. Pure.
//!
//! | found | verdict |
//! | --- | --- |
//! | a slice on two drives | held: one of the two is a copy of its medium |
//! | two records of the same (term, boot, config) that differ, or a record of another volume | held |
//! | two lineages, each with a majority of its own | held |
//! | the greatest record without a majority of its voters | held |
//! | no slice that has every acknowledged write | held |
//! | votes that no `replicas` makes | held |
//! | one slice without a record, no drive unheard, and a person's word that these are all drives | a volume of one slice |
//! | no record at all else | held: a copy that was never finished looks the same |
//! | a majority, and one that can lead | the members are the voters of the greatest record |
//!
//! The order and the majority are those by which an engine starts (design section 6, lines 1 to 4).

use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;
use weft_crds::SliceRole;
use weft_crds::volume::MemberState;
use weft_spec::drive::{Config, MemberState as Recorded, RecordedSlice, SliceRecord};
use weft_spec::ids::{AttachGeneration, DriveUid, FencePair, SliceUid};

/// A slice, and the drive that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Identity of the drive.
    pub drive: DriveUid,
    /// Name of the Drive.
    pub drive_name: String,
    /// Where the drive is: `address:port`; empty while unknown.
    pub address: String,
    /// What it has.
    pub slice: RecordedSlice,
}

/// A volume that can be started.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Of a mirror.
    pub lineage: Option<Uuid>,
    /// Up to this attach generation acknowledged bytes were lost.
    pub loss: Option<AttachGeneration>,
    /// Whether an engine has ever served it.
    pub formed: bool,
    /// Its slices, those with the data first; also those that were not found.
    pub seats: Vec<Seat>,
}

/// One slice of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Which.
    pub slice: SliceUid,
    /// What it is for.
    pub role: SliceRole,
    /// By the record; of the data of a mirror alone.
    pub state: Option<MemberState>,
}

/// Why a volume is not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// PascalCase.
    pub reason: &'static str,
    /// What was found, and the way out.
    pub message: String,
}

impl Held {
    pub(super) fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Decides on one volume. `complete`: every drive of the cluster has answered.
pub fn judge(found: &[Found], complete: bool) -> Result<Shape, Held> {
    each_once(found)?;
    let Some(greatest) = agreed(found)? else {
        return unrecorded(found, complete);
    };
    one_lineage(found, greatest)?;
    if !majority(found, greatest) {
        return Err(no_majority(found, greatest));
    }
    let seats = seats(greatest)?;
    let leads =
        |seat: &Seat| seat.state == Some(MemberState::InSync) && votes(found, greatest, seat.slice);
    if !seats.iter().any(leads) {
        let missing = seats
            .iter()
            .filter(|s| s.state == Some(MemberState::InSync));
        return Err(Held::new(
            "NoLeader",
            format!(
                "no slice with every acknowledged write was found, only such as lack some; bring back the drive \
                 with slice {}, apply its Drive and run weft-operator adopt again",
                list(missing.map(|s| s.slice))
            ),
        ));
    }
    Ok(Shape {
        lineage: Some(greatest.lineage),
        loss: greatest.loss,
        formed: true,
        seats,
    })
}

fn each_once(found: &[Found]) -> Result<(), Held> {
    let mut places: BTreeMap<SliceUid, &str> = BTreeMap::new();
    for at in found {
        let (uid, drive) = (at.slice.status.slice, at.drive_name.as_str());
        if let Some(other) = places.insert(uid, drive) {
            return Err(Held::new(
                "SliceTwice",
                format!(
                    "slice {uid} is on drive {other} and on drive {drive}: a slice is allocated once, so the medium \
                     of one is a copy of the other's; delete the Drive of the copy and run weft-operator adopt again"
                ),
            ));
        }
    }
    Ok(())
}

fn order(record: &SliceRecord) -> (FencePair, Config) {
    (record.fence, record.config)
}

fn records(found: &[Found]) -> impl Iterator<Item = (&Found, &SliceRecord)> {
    found
        .iter()
        .filter_map(|at| Some((at, at.slice.record.as_ref()?)))
}

/// The greatest record, if there is one and nothing contradicts it.
fn agreed(found: &[Found]) -> Result<Option<&SliceRecord>, Held> {
    for (at, record) in records(found) {
        if record.volume != at.slice.status.volume {
            return Err(disagree(format!(
                "slice {} on drive {} belongs to volume {} and bears a record of volume {}",
                at.slice.status.slice, at.drive_name, at.slice.status.volume, record.volume
            )));
        }
    }
    let Some((first, greatest)) = records(found).max_by_key(|(_, record)| order(record)) else {
        return Ok(None);
    };
    // Each slice has the record with what that slice is in it.
    let same = |record: &SliceRecord| {
        let record = SliceRecord {
            state: greatest.state,
            ..record.clone()
        };
        record == *greatest
    };
    let tied = records(found).find(|(_, r)| order(r) == order(greatest) && !same(r));
    match tied {
        Some((other, _)) => Err(disagree(format!(
            "the records of slice {} on drive {} and of slice {} on drive {} are both of ({}, {}) and differ",
            first.slice.status.slice,
            first.drive_name,
            other.slice.status.slice,
            other.drive_name,
            greatest.fence,
            greatest.config.0
        ))),
        None => Ok(Some(greatest)),
    }
}

fn disagree(what: String) -> Held {
    let way_out = "no engine writes that, so a medium was changed by something else; take away the Drive that is \
                   wrong and run weft-operator adopt again";
    Held::new("RecordsDisagree", format!("{what}: {way_out}"))
}

/// A forced recovery leaves slices of the lineage before; those never have a majority.
fn one_lineage(found: &[Found], greatest: &SliceRecord) -> Result<(), Held> {
    let other = |record: &&SliceRecord| record.lineage != greatest.lineage;
    let others = records(found).map(|(_, record)| record).filter(other);
    let Some(rival) = others
        .max_by_key(|r| order(r))
        .filter(|r| majority(found, r))
    else {
        return Ok(());
    };
    Err(Held::new(
        "LineagesDisagree",
        format!(
            "lineage {} ({}) and lineage {} ({}) both have a majority: slices of two lineages are never merged; take \
             away the Drives of the one that is not wanted and run weft-operator adopt again",
            greatest.lineage, greatest.fence, rival.lineage, rival.fence
        ),
    ))
}

/// Whether what was found at a slice counts for the lineage of a record.
fn votes(found: &[Found], on: &SliceRecord, slice: SliceUid) -> bool {
    let mut records = records(found).filter(|(at, _)| at.slice.status.slice == slice);
    records.any(|(_, at)| at.lineage == on.lineage && at.state != Recorded::Retired)
}

fn majority(found: &[Found], on: &SliceRecord) -> bool {
    let of = |list: &[SliceUid]| {
        let voting = list
            .iter()
            .filter(|slice| votes(found, on, **slice))
            .count();
        2 * voting > list.len()
    };
    of(&on.voters) && (on.old_voters.is_empty() || of(&on.old_voters))
}

fn no_majority(found: &[Found], on: &SliceRecord) -> Held {
    let voters: BTreeSet<_> = on.voters.iter().chain(&on.old_voters).copied().collect();
    let missing = voters.iter().filter(|slice| !votes(found, on, **slice));
    Held::new(
        "NoMajority",
        format!(
            "{} of {} slices that vote were found, which is no majority: newer writes may be elsewhere; bring back \
             the drives with slice {}, apply their Drives and run weft-operator adopt again",
            voters.len() - missing.clone().count(),
            voters.len(),
            list(missing.copied())
        ),
    )
}

/// The voters: who joins or leaves when the record was written has no vote, and comes or goes anew.
fn seats(record: &SliceRecord) -> Result<Vec<Seat>, Held> {
    let in_sync = |slice: &SliceUid| record.in_sync.iter().any(|m| m.slice == *slice);
    let out = |slice: &SliceUid| record.out_of_sync.iter().any(|m| m.slice == *slice);
    let seat = |slice: &SliceUid| {
        let (role, state) = match (in_sync(slice), out(slice)) {
            (true, _) => (SliceRole::Data, Some(MemberState::InSync)),
            (false, true) => (SliceRole::Data, Some(MemberState::OutOfSync)),
            (false, false) => (SliceRole::Witness, None),
        };
        Seat {
            slice: *slice,
            role,
            state,
        }
    };
    let mut seats: Vec<_> = record.voters.iter().map(seat).collect();
    // In an order that every run finds again.
    seats.sort_by_key(|seat| (seat.role == SliceRole::Witness, seat.slice));
    let data = seats.iter().filter(|s| s.role == SliceRole::Data).count();
    let witnesses = seats.len() - data;
    match (data, witnesses) {
        (2, 1) | (3, 0) => Ok(seats),
        _ => Err(Held::new(
            "UnknownShape",
            format!(
                "the record has {data} voters with the data and {witnesses} without, which is neither replicas 2 nor \
                 3: an operator that knows this layout must adopt it; use the version that wrote it"
            ),
        )),
    }
}

fn unrecorded(found: &[Found], complete: bool) -> Result<Shape, Held> {
    match found {
        [only] if complete => Ok(Shape {
            lineage: None,
            loss: None,
            formed: only.slice.status.fence > FencePair::default(),
            seats: vec![Seat {
                slice: only.slice.status.slice,
                role: SliceRole::Data,
                state: None,
            }],
        }),
        [only] => Err(Held::new(
            "NoRecord",
            format!(
                "slice {} on drive {} bears no record: it is a volume of one slice, or the unfinished copy of one \
                 whose other drives are missing; apply all Drives of the cluster, wait until each is Ready, and run \
                 weft-operator adopt --all-drives",
                only.slice.status.slice, only.drive_name
            ),
        )),
        _ => Err(Held::new(
            "NoRecord",
            format!(
                "slices {} bear no record: the volume never served, or the slices with its data are missing; bring \
                 back their drives and run weft-operator adopt again, or delete this Volume, which frees nothing at \
                 the drives",
                list(found.iter().map(|at| at.slice.status.slice))
            ),
        )),
    }
}

fn list(slices: impl Iterator<Item = SliceUid>) -> String {
    let names: Vec<_> = slices.map(|slice| slice.to_string()).collect();
    names.join(", ")
}
