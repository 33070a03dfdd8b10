//! The condition `Recomposed`: whether the slices of a volume are where they should be, and as many.
//! Only there once some were to move.

use super::{Word, say, slice_waits};
use crate::shared::conditions::{self, Truth};
use crate::volumes::plan::Observed;
use crate::volumes::{members, moves, parts};
use weft_crds::{Phase, Slice, Volume, VolumeStatus};

/// Every slice is where it should be.
pub const RECOMPOSED: &str = "Recomposed";

/// Whether a volume waits for a drive that could take a slice.
pub fn waits_for_drive(volume: &Volume) -> bool {
    let status = volume.status.as_ref();
    let told = status.and_then(|s| conditions::get(&s.conditions, RECOMPOSED));
    let waits = [
        "TooFewDomains",
        "NotEnoughCapacity",
        "NoReadyDrive",
        "NoDrive",
    ];
    told.is_some_and(|c| waits.contains(&c.reason.as_str()))
}

/// How far it is; `no_place` is why this very pass found no drive for a slice.
pub fn recomposition(o: &Observed, status: &mut VolumeStatus, no_place: Option<Word>) {
    let known = conditions::get(&status.conditions, RECOMPOSED).is_some();
    let evicts = !o.volume.spec.evict.is_empty();
    if !parts::is_mirror(&o.volume) {
        if evicts || known {
            say(o, status, RECOMPOSED, &one_copy(evicts));
        }
        return;
    }
    let next = if moves::is_under_way(o, status) {
        no_place.unwrap_or_else(|| under_way(o, status))
    } else if known {
        done()
    } else {
        return;
    };
    say(o, status, RECOMPOSED, &next);
}

fn word(reason: &str, message: String) -> Word {
    Word::new(Phase::Ready, reason, message)
}

fn done() -> Word {
    let mut word = word("InPlace", "every slice is where it should be".to_owned());
    word.truth = Truth::True;
    word
}

fn one_copy(evicts: bool) -> Word {
    if !evicts {
        return done();
    }
    let message = "a volume of one copy is not moved in this version: make a new Volume with replicas 2 and copy \
                   the data, or take spec.evict back";
    word("OneCopy", message.to_owned())
}

fn under_way(o: &Observed, status: &VolumeStatus) -> Word {
    if let Some(joining) = members::data(status).find(|m| m.joining) {
        let evicted = status
            .members
            .iter()
            .filter(|m| moves::is_evicted(o, &m.drive));
        let leaving: Vec<_> = evicted
            .map(|m| format!("{} on {}", m.slice, m.drive))
            .collect();
        let leaves = match leaving.as_slice() {
            [] => String::new(),
            some => format!("; then {} leaves", some.join(", ")),
        };
        let message = format!(
            "slice {} on drive {} gets the data{leaves}",
            joining.slice, joining.drive
        );
        return word("Copying", message);
    }
    let is_member = |s: &&Slice| status.members.iter().any(|m| m.slice_uid == s.spec.uid);
    let others = o.slices.iter().filter(|s| !is_member(s));
    let (going, coming): (Vec<_>, Vec<_>) =
        others.partition(|s| s.metadata.deletion_timestamp.is_some());
    if let Some(slice) = coming.first() {
        return slice_waits(slice);
    }
    let names: Vec<_> = going
        .iter()
        .filter_map(|s| s.metadata.name.as_deref())
        .collect();
    let message = match names.as_slice() {
        [] => "the members that have everything are put in force".to_owned(),
        some => format!(
            "the drive of slice {} is asked to free it (kubectl describe slice {})",
            some.join(", "),
            some[0]
        ),
    };
    word("SliceLeaving", message)
}
