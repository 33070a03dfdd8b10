//! The condition `Redundant` of a mirror: whether any one of its drives may be lost now. It says
//! nothing of `Ready`; a volume that serves with less than it should is `Degraded`.

use super::{READY, Word, say};
use crate::shared::conditions::{self, Truth};
use crate::volumes::plan::Observed;
use crate::volumes::{members, parts};
use weft_crds::volume::{MemberState, VolumeMember};
use weft_crds::{Phase, SliceRole, VolumeStatus};

/// Any one drive may be lost without a pause.
pub const REDUNDANT: &str = "Redundant";

/// Says it, and turns a volume that serves with less into a degraded one.
pub fn settle(o: &Observed, status: &mut VolumeStatus) {
    if !parts::is_mirror(&o.volume) {
        return;
    }
    let known = members::full(status).any(|m| m.state.is_some());
    let serves = conditions::get(&status.conditions, READY).is_some_and(|c| c.status == "True");
    if !known || !serves {
        if conditions::get(&status.conditions, REDUNDANT).is_some() {
            say(o, status, REDUNDANT, &unknown());
        }
        return;
    }
    let next = lacking(status).unwrap_or_else(|| whole(status));
    if next.truth != Truth::True {
        status.phase = Phase::Degraded;
    }
    say(o, status, REDUNDANT, &next);
}

fn unknown() -> Word {
    let message = "the volume does not serve; condition Ready says why";
    let mut word = Word::new(Phase::Paused, "NotServing", message);
    word.truth = Truth::Unknown;
    word
}

fn whole(status: &VolumeStatus) -> Word {
    let all = members::full(status).count();
    let message = format!("{all} of {all} members are in-sync, and every slice answers");
    let mut word = Word::new(Phase::Ready, "AllInSync", message);
    word.truth = Truth::True;
    word
}

/// What is missing, the data before the votes.
fn lacking(status: &VolumeStatus) -> Option<Word> {
    let stale = members::full(status).find(|m| m.state == Some(MemberState::OutOfSync));
    if let Some(member) = stale {
        return Some(stale_member(status, member));
    }
    let away = status
        .members
        .iter()
        .find(|m| !m.joining && !members::is_reached(status, m))?;
    Some(silent(status, away))
}

fn stale_member(status: &VolumeStatus, member: &VolumeMember) -> Word {
    let all = members::full(status).count();
    let in_sync = members::full(status)
        .filter(|m| m.state == Some(MemberState::InSync))
        .count();
    let goes_on = format!("writes go on with {in_sync} of {all} members");
    let (slice, drive) = (&member.slice, &member.drive);
    let since = member.since.as_ref();
    let since = since.map_or(String::new(), |since| format!(" since {}", since.0));
    if members::is_reached(status, member) {
        let message = format!(
            "slice {slice} on drive {drive} lacks writes{since} and is brought up to date now; {goes_on} meanwhile"
        );
        return Word::new(Phase::Degraded, "Rebuilding", message);
    }
    let message = format!(
        "slice {slice} on drive {drive} does not answer{since} ({}); {goes_on}. The rebuild starts by itself when \
         the drive answers (kubectl describe drive {drive})",
        wire(status, member)
    );
    Word::new(Phase::Degraded, "MemberStale", message)
}

/// In-sync by the record, or a witness, and not reached.
fn silent(status: &VolumeStatus, member: &VolumeMember) -> Word {
    let (slice, drive) = (&member.slice, &member.drive);
    let (reason, what) = match member.role {
        SliceRole::Data => ("MemberSilent", "slice"),
        SliceRole::Witness => ("WitnessSilent", "witness"),
    };
    let message = format!(
        "{what} {slice} on drive {drive} does not answer ({}): one more loss would pause the volume. It is used \
         again by itself when the drive answers (kubectl describe drive {drive})",
        wire(status, member)
    );
    Word::new(Phase::Degraded, reason, message)
}

fn wire(status: &VolumeStatus, member: &VolumeMember) -> String {
    let Some(wire) = members::wire(status, member) else {
        return "no wire is known".to_owned();
    };
    let (from, to) = (&wire.from, &wire.to);
    format!("wire {from} to {to}: {}", wire.reason)
}
