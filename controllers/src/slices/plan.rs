//! What a pass over one Slice decides: observed objects in, a [`Plan`] out.
//!
//! | seen | decided |
//! | --- | --- |
//! | no finalizer | put it on |
//! | the drive lists the slice smaller than the spec | ask the drive to make it larger (harmless to repeat) |
//! | the drive lists the slice | Ready, with what the drive says of it |
//! | never allocated, the drive serves | ask the drive to allocate it (harmless to repeat) |
//! | allocated once, the drive's last word does not list it | ask the drive anew; if that word does not either: lost, and **never** allocated again |
//! | deleted, a live volume is made of it | kept, and said |
//! | deleted, free to go | ask the drive to free it (harmless to repeat), then the finalizer off |
//! | deleted, its drive is no more | the finalizer off |

use super::status;
use crate::shared::{finalizers, quantity};
use jiff::Timestamp;
use weft_crds::{Drive, Phase, Slice, SliceStatus, Volume};
use weft_spec::drive::{DriveState, DriveStatus, SliceRequest, SliceStatus as Seen};
use weft_spec::ids::{SliceUid, VolumeUid};

/// Everything that a pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The slice.
    pub slice: Slice,
    /// The Drive of its `spec.drive`.
    pub drive: Option<Drive>,
    /// The Volume of its `spec.volume`.
    pub volume: Option<Volume>,
    /// The newest status that the drive has pushed.
    pub report: Option<DriveStatus>,
    /// The clock.
    pub now: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Put on the finalizer; nothing else in this pass.
    Claim,
    /// Write the status if it differs.
    Say(Box<SliceStatus>),
    /// Ask the drive, then [`answered`] says what to write.
    Ask(Ask),
    /// Nothing holds the slice at a drive any more: take off the finalizer.
    Release,
}

/// A request to the drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// `PUT /slices/<uid>`: makes it, or makes it larger.
    Allocate(SliceUid, SliceRequest),
    /// `GET /status`.
    Look(SliceUid),
    /// `DELETE /slices/<uid>`.
    Free(SliceUid),
}

/// What the drive answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Allocated: so it is now.
    Allocated(Seen),
    /// Its whole status.
    Looked(DriveStatus),
    /// Freed, or never there.
    Freed,
    /// Understood and refused: HTTP status and the drive's words.
    Refused(u16, String),
    /// No answer.
    Unreachable(String),
}

/// Decides a pass.
pub fn plan(o: &Observed) -> Plan {
    let claimed = finalizers::has(&o.slice);
    if finalizers::is_deleting(&o.slice) {
        return if claimed {
            leave(o)
        } else {
            Plan::Say(Box::new(current(o)))
        };
    }
    if !claimed {
        return Plan::Claim;
    }
    let Some((uid, request)) = request(&o.slice) else {
        return say(o, status::unreadable);
    };
    let Some(drive) = own_drive(o) else {
        return say(o, status::no_drive);
    };
    let ready = drive
        .status
        .as_ref()
        .is_some_and(|s| s.phase == Phase::Ready);
    let report = o.report.as_ref().filter(|r| r.state == DriveState::Serving);
    let seen = report.and_then(|r| r.slices.iter().find(|s| s.slice == uid));
    match (ready, seen, report) {
        (false, _, _) => say(o, status::drive_not_ready),
        (true, Some(seen), _) if seen.size < request.size => Plan::Ask(Ask::Allocate(uid, request)),
        (true, Some(seen), _) => say(o, |o, s| status::allocated(o, s, seen)),
        (true, None, _) if !status::was_allocated(&current(o)) => {
            Plan::Ask(Ask::Allocate(uid, request))
        }
        // Its last word may be older than the allocation.
        (true, None, Some(_)) => Plan::Ask(Ask::Look(uid)),
        (true, None, None) => Plan::Say(Box::new(current(o))),
    }
}

/// What to do with the drive's answer.
pub fn answered(o: &Observed, ask: &Ask, answer: &Answer) -> Plan {
    match (ask, answer) {
        (_, Answer::Allocated(seen)) => say(o, |o, s| status::allocated(o, s, seen)),
        (Ask::Look(uid), Answer::Looked(whole)) => {
            match whole.slices.iter().find(|s| s.slice == *uid) {
                Some(seen) => say(o, |o, s| status::allocated(o, s, seen)),
                None if whole.state == DriveState::Serving => say(o, status::lost),
                None => say(o, status::drive_not_ready),
            }
        }
        (Ask::Free(_), Answer::Freed) => Plan::Release,
        (Ask::Free(_), Answer::Refused(code, words)) => say(o, |o, s| {
            status::not_freed(o, s, &format!("it answers {code}: {words}"))
        }),
        (Ask::Free(_), Answer::Unreachable(why)) => say(o, |o, s| status::not_freed(o, s, why)),
        // It has the slice, smaller: that goes on as it is.
        (Ask::Allocate(..), Answer::Refused(code, words)) if status::was_allocated(&current(o)) => {
            say(o, |o, s| status::not_grown(o, s, *code, words))
        }
        (_, Answer::Refused(code, words)) => say(o, |o, s| status::refused(o, s, *code, words)),
        (_, Answer::Unreachable(why)) => say(o, |o, s| status::unreachable(o, s, why)),
        (_, Answer::Looked(_) | Answer::Freed) => Plan::Say(Box::new(current(o))),
    }
}

fn leave(o: &Observed) -> Plan {
    if let Some(volume) = o.volume.as_ref().filter(|v| needs(v, &o.slice)) {
        return say(o, |o, s| status::needed(o, s, volume));
    }
    let (Some(_), Some((uid, _))) = (own_drive(o), request(&o.slice)) else {
        return Plan::Release;
    };
    Plan::Ask(Ask::Free(uid))
}

/// Whether an engine of the volume may still use the slice. A volume that goes away says that
/// none does by an empty `status.engine`.
fn needs(volume: &Volume, slice: &Slice) -> bool {
    let Some(status) = volume.status.as_ref() else {
        return false;
    };
    let same = volume.spec.uid.as_ref() == Some(&slice.spec.volume_uid);
    let member = status.members.iter().any(|m| m.slice_uid == slice.spec.uid);
    let going = volume.metadata.deletion_timestamp.is_some();
    let unused = status.engine.is_none() && status.hosts.is_empty();
    same && member && !(going && unused)
}

/// The drive that the slice was placed on; another drive under its name is not.
fn own_drive(o: &Observed) -> Option<&Drive> {
    o.drive
        .as_ref()
        .filter(|d| d.spec.uid.as_ref() == Some(&o.slice.spec.drive_uid))
}

fn request(slice: &Slice) -> Option<(SliceUid, SliceRequest)> {
    let volume: VolumeUid = slice.spec.volume_uid.parse().ok()?;
    let request = SliceRequest {
        volume,
        size: quantity::bytes(&slice.spec.size)?,
        overcommit_percent: u32::try_from(slice.spec.overcommit_percent).ok()?,
    };
    Some((slice.spec.uid.parse().ok()?, request))
}

fn current(o: &Observed) -> SliceStatus {
    o.slice.status.clone().unwrap_or_default()
}

fn say(o: &Observed, words: impl FnOnce(&Observed, &mut SliceStatus)) -> Plan {
    let mut status = current(o);
    words(o, &mut status);
    Plan::Say(Box::new(status))
}
