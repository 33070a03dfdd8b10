//! The condition `Expanded`: whether hosts see the size that the spec asks for. It says nothing of
//! the volume's phase: one that cannot grow serves on as it is.

use super::{Word, say};
use crate::shared::conditions::{self, Truth};
use crate::shared::quantity;
use crate::slices::status::GROWN;
use crate::volumes::growth;
use crate::volumes::placement::Candidate;
use crate::volumes::plan::{self, Observed};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use weft_crds::{Phase, Slice, Volume, VolumeStatus};

/// Hosts see the size that the spec asks for. Only there once the volume was to grow.
pub const EXPANDED: &str = "Expanded";
/// Reason of a volume that does not grow because its drive has promised all that it may.
pub const NO_ROOM: &str = "NoRoom";
/// Reason of an engine that finds its slice smaller than the volume.
const TOO_SMALL: &str = "SliceTooSmall";

fn word(reason: &str, message: String) -> Word {
    Word::new(Phase::Ready, reason, message)
}

fn name_of(slice: &Slice) -> &str {
    slice.metadata.name.as_deref().unwrap_or_default()
}

fn human(size: Option<&Quantity>) -> String {
    let bytes = size.and_then(quantity::bytes);
    bytes.map_or_else(|| "nothing yet".to_owned(), quantity::human)
}

/// The drive of a slice cannot be asked now.
pub fn grows_later(slice: &Slice, why: &str) -> Word {
    let (drive, name) = (&slice.spec.drive, name_of(slice));
    word(
        "DriveNotReady",
        format!(
            "slice {name} is to grow, and drive {drive} does not serve ({why}); it grows by itself when the drive \
             does (kubectl describe drive {drive})"
        ),
    )
}

/// The drive of a slice has promised too much already.
pub fn no_room(volume: &Volume, slice: &Slice, drive: &Candidate, percent: u32) -> Word {
    let served = volume.status.as_ref().and_then(|s| s.size.as_ref());
    let message = format!(
        "asked for {}, slice {} has {}, and drive {} may promise {} more ({percent}% of its size, less its slices): \
         raise the overcommit of pool {}, delete volumes on drive {}, or make a larger volume elsewhere and copy \
         the data; the volume grows by itself once there is room, and serves {} until then",
        human(Some(&volume.spec.size)),
        name_of(slice),
        human(Some(&slice.spec.size)),
        drive.name,
        quantity::human(drive.room()),
        volume.spec.pool,
        drive.name,
        human(served),
    );
    word(NO_ROOM, message)
}

/// How far the volume has come to the size that its spec asks for; `obstacle` is why this very
/// pass could not raise a slice.
pub fn expansion(o: &Observed, status: &mut VolumeStatus, obstacle: Option<Word>) {
    let bytes = |size: &Option<Quantity>| size.as_ref().and_then(quantity::bytes);
    let (size, allocated) = (bytes(&status.size), bytes(&status.allocated));
    let (known, Some(wish)) = (
        conditions::get(&status.conditions, EXPANDED).is_some(),
        quantity::bytes(&o.volume.spec.size),
    ) else {
        return;
    };
    let served = size.is_some_and(|size| size >= wish);
    // The first start of a volume is no expansion.
    let first = size.is_none() && allocated.is_none_or(|a| a >= wish) && obstacle.is_none();
    if !known && (served || first) {
        return;
    }
    let next = if served {
        let mut done = word("Expanded", format!("hosts see {}", quantity::human(wish)));
        done.truth = Truth::True;
        done
    } else {
        obstacle.unwrap_or_else(|| under_way(o, status, wish))
    };
    say(o, status, EXPANDED, &next);
}

fn under_way(o: &Observed, status: &VolumeStatus, wish: u64) -> Word {
    let at_drive = |s: &Slice| quantity::bytes(s.status.as_ref()?.size.as_ref()?);
    let waits = |s: &&Slice| at_drive(s).is_none_or(|size| size < wish);
    if let Some(slice) = growth::members(o, status).find(waits) {
        return slice_grows(slice, wish);
    }
    let of_term = |r: &&weft_spec::engine::EngineStatus| plan::term(r.term) == status.term;
    match o.report.as_ref().filter(of_term) {
        Some(report) if report.reason == TOO_SMALL => word(TOO_SMALL, report.message.clone()),
        _ => word(
            "EngineGrowing",
            format!(
                "the engine is told to serve {}, hosts see {}",
                quantity::human(wish),
                human(status.size.as_ref())
            ),
        ),
    }
}

/// The slice's own words, where its drive has refused.
fn slice_grows(slice: &Slice, wish: u64) -> Word {
    let (drive, name) = (&slice.spec.drive, name_of(slice));
    let conditions = slice.status.as_ref().map(|s| s.conditions.as_slice());
    let refused = conditions.and_then(|c| conditions::get(c, GROWN));
    match refused.filter(|c| c.status != "True") {
        Some(refused) => word(
            &refused.reason,
            format!("slice {name}: {}", refused.message),
        ),
        None => word(
            "SliceGrowing",
            format!(
                "drive {drive} is asked to make slice {name} {} large",
                quantity::human(wish)
            ),
        ),
    }
}
