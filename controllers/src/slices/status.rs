//! What a Slice's status says. Pure.
//!
//! `Allocated` turns True once, when the drive has first said so, and never back: a slice that
//! was allocated once holds data, and a drive that does not list it has lost it. `Ready` is True
//! while the drive serves it.

use super::plan::Observed;
use crate::shared::conditions::{self, Truth};
use crate::shared::quantity;
use weft_crds::common::Fence;
use weft_crds::{Phase, SliceStatus, Volume};
use weft_spec::drive::SliceStatus as Seen;

/// The drive has allocated the slice, at some time.
pub const ALLOCATED: &str = "Allocated";
/// The drive has made the slice as large as its spec says. Only there once the drive has refused.
pub const GROWN: &str = "Grown";
/// The drive serves the slice.
pub const READY: &str = "Ready";

/// Reasons that are steps on the way: no event tells of them.
pub const QUIET: &[&str] = &["DriveNotReady", "InUse"];

/// HTTP status of a drive that has no room (RFC 4918 section 11.5).
const INSUFFICIENT_STORAGE: u16 = 507;

/// Whether the drive has ever allocated it.
pub fn was_allocated(status: &SliceStatus) -> bool {
    status
        .conditions
        .iter()
        .any(|c| c.type_ == ALLOCATED && c.status == "True")
}

fn set(o: &Observed, s: &mut SliceStatus, kind: &str, truth: Truth, reason: &str, message: &str) {
    let generation = o.slice.metadata.generation;
    conditions::set(
        &mut s.conditions,
        kind,
        truth,
        reason,
        message,
        generation,
        o.now,
    );
    s.observed_generation = generation;
}

fn not_ready(o: &Observed, s: &mut SliceStatus, phase: Phase, reason: &str, message: &str) {
    s.phase = phase;
    set(o, s, READY, Truth::False, reason, message);
}

/// Before it was allocated a slice is Pending, after that Paused: what was there waits.
fn waiting(s: &SliceStatus) -> Phase {
    if was_allocated(s) {
        Phase::Paused
    } else {
        Phase::Pending
    }
}

/// The drive lists it.
pub fn allocated(o: &Observed, s: &mut SliceStatus, seen: &Seen) {
    let drive = &o.slice.spec.drive;
    let size = quantity::human(seen.size);
    set(
        o,
        s,
        ALLOCATED,
        Truth::True,
        "Allocated",
        &format!("{size} promised by drive {drive}"),
    );
    set(
        o,
        s,
        READY,
        Truth::True,
        "Serving",
        &format!("drive {drive} serves it"),
    );
    let whole = quantity::bytes(&o.slice.spec.size).is_some_and(|wish| seen.size >= wish);
    if whole && conditions::get(&s.conditions, GROWN).is_some() {
        let message = format!("drive {drive} has made it {size} large");
        set(o, s, GROWN, Truth::True, "Grown", &message);
    }
    s.phase = Phase::Ready;
    s.size = Some(quantity::quantity(seen.size));
    s.used = Some(quantity::rounded(seen.allocated));
    s.fence = Some(Fence {
        term: i64::try_from(seen.fence.term.0).unwrap_or(i64::MAX),
        boot: i64::try_from(seen.fence.boot.0).unwrap_or(i64::MAX),
    });
}

/// The spec holds something that is no identity or size.
pub fn unreadable(o: &Observed, s: &mut SliceStatus) {
    let message =
        "uid, volumeUid or size cannot be read: the operator makes slices; delete this one";
    not_ready(o, s, Phase::Failed, "Unreadable", message);
}

/// No Drive, or another under its name.
pub fn no_drive(o: &Observed, s: &mut SliceStatus) {
    let (drive, uid) = (&o.slice.spec.drive, &o.slice.spec.drive_uid);
    let message = format!(
        "there is no Drive {drive} with uid {uid}: make it again with that uid and adoption Adopt, on the node \
         that has the medium"
    );
    let phase = if was_allocated(s) {
        Phase::Failed
    } else {
        Phase::Pending
    };
    not_ready(o, s, phase, "UnknownDrive", &message);
}

/// The drive does not serve.
pub fn drive_not_ready(o: &Observed, s: &mut SliceStatus) {
    let drive = &o.slice.spec.drive;
    let message = format!("waits for drive {drive} to serve (kubectl describe drive {drive})");
    not_ready(o, s, waiting(s), "DriveNotReady", &message);
}

/// The drive does not answer although it should.
pub fn unreachable(o: &Observed, s: &mut SliceStatus, why: &str) {
    let message = format!(
        "drive {} does not answer on its control link: {why}",
        o.slice.spec.drive
    );
    not_ready(o, s, waiting(s), "DriveUnreachable", &message);
}

/// The drive says no.
pub fn refused(o: &Observed, s: &mut SliceStatus, code: u16, words: &str) {
    let (drive, volume) = (&o.slice.spec.drive, &o.slice.spec.volume);
    let name = o.slice.metadata.name.as_deref().unwrap_or_default();
    if code == INSUFFICIENT_STORAGE {
        let message = format!(
            "asked drive {drive} for {}: {words}; free space there, or kubectl delete slice {name} so that volume \
             {volume} is placed anew",
            o.slice.spec.size.0
        );
        not_ready(o, s, waiting(s), "NotEnoughCapacity", &message);
    } else {
        let message = format!("drive {drive} refuses the slice ({code}): {words}");
        not_ready(o, s, Phase::Failed, "Refused", &message);
    }
}

/// The drive has it and does not make it larger.
pub fn not_grown(o: &Observed, s: &mut SliceStatus, code: u16, words: &str) {
    let (drive, asked) = (&o.slice.spec.drive, &o.slice.spec.size.0);
    let (reason, message) = if code == INSUFFICIENT_STORAGE {
        let message = format!(
            "asked drive {drive} for {asked}: {words}; it grows by itself once there is room, and serves as it is \
             until then"
        );
        ("NoRoom", message)
    } else {
        let message = format!("drive {drive} refuses to make it {asked} large ({code}): {words}");
        ("Refused", message)
    };
    set(o, s, GROWN, Truth::False, reason, &message);
}

/// The drive serves and does not have it although it was allocated once.
pub fn lost(o: &Observed, s: &mut SliceStatus) {
    let (drive, volume) = (&o.slice.spec.drive, &o.slice.spec.volume);
    let message = format!(
        "drive {drive} serves but no longer has this slice: its medium was replaced or wiped; the slice is not made \
         again, since it would read as zeros; restore volume {volume} from a backup into a new Volume"
    );
    not_ready(o, s, Phase::Failed, "SliceLost", &message);
}

/// Deleted while a volume is made of it.
pub fn needed(o: &Observed, s: &mut SliceStatus, volume: &Volume) {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let message = if volume.metadata.deletion_timestamp.is_some() {
        format!(
            "volume {name} is being deleted and still uses it; it is freed after the engine has ended"
        )
    } else {
        format!(
            "volume {name} is made of it, so it is kept; to free it, kubectl delete volume {name}"
        )
    };
    set(o, s, READY, Truth::True, "InUse", &message);
    s.phase = Phase::Deleting;
}

/// Deleted, and the drive has not freed it.
pub fn not_freed(o: &Observed, s: &mut SliceStatus, why: &str) {
    let drive = &o.slice.spec.drive;
    let name = o.slice.metadata.name.as_deref().unwrap_or_default();
    let message = format!(
        "waits for drive {drive} to free it: {why}; if the drive is gone for good, kubectl patch slice {name} --type \
         merge -p '{{\"metadata\":{{\"finalizers\":[]}}}}'"
    );
    not_ready(o, s, Phase::Deleting, "DriveUnreachable", &message);
}
