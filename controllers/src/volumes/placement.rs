//! Which drive a slice goes to. Pure: candidates in, one name or a refusal out.
//!
//! Order of preference, each only to break a tie in the one before: for each node label of
//! `Pool.spec.spreadBy`, the domain with the fewest slices of the pool's drives; then the
//! drive with the most room; then the name, so that the same observation always gives the
//! same answer.

use super::plan::{Observed, Placement};
use super::status;
use crate::shared::quantity;
use k8s_openapi::api::core::v1::Node;
use std::collections::BTreeMap;
use weft_crds::{Drive, Phase, Pool, Slice, Volume};

/// A drive that the pool selects, as far as placement cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Name of the Drive object.
    pub name: String,
    /// Whether it serves now.
    pub ready: bool,
    /// Why it does not, for the message.
    pub reason: String,
    /// Labels of the node that it is on.
    pub node_labels: BTreeMap<String, String>,
    /// Bytes that slices may be promised: capacity times the pool's overcommit.
    pub promised_limit: u64,
    /// Bytes that slices are promised already.
    pub promised: u64,
    /// How many slices it holds.
    pub slices: usize,
}

impl Candidate {
    /// Bytes that a new slice may be promised.
    pub fn room(&self) -> u64 {
        self.promised_limit.saturating_sub(self.promised)
    }

    fn domain(&self, key: &str) -> &str {
        self.node_labels.get(key).map_or("", String::as_str)
    }
}

/// Why no drive was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The pool's selector matches no drive.
    NoDrive,
    /// Drives are selected, none is ready.
    NoneReady(String),
    /// Ready drives are too full.
    TooLarge {
        /// Bytes wanted.
        asked: u64,
        /// The drive with the most room.
        drive: String,
        /// Its room.
        room: u64,
    },
}

/// Chooses a drive for a slice of `size` bytes.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    spread_by: &[String],
    size: u64,
) -> Result<&'a Candidate, Refusal> {
    if candidates.is_empty() {
        return Err(Refusal::NoDrive);
    }
    let ready = || candidates.iter().filter(|c| c.ready);
    let Some(roomiest) = ready().max_by_key(|c| c.room()) else {
        let reasons: Vec<_> = candidates
            .iter()
            .take(3)
            .map(|c| format!("{} ({})", c.name, c.reason))
            .collect();
        return Err(Refusal::NoneReady(reasons.join(", ")));
    };
    ready()
        .filter(|c| c.room() >= size)
        .min_by_key(|c| {
            let crowd: Vec<usize> = spread_by
                .iter()
                .map(|key| slices_in_domain(candidates, key, c.domain(key)))
                .collect();
            (crowd, std::cmp::Reverse(c.room()), c.name.clone())
        })
        .ok_or_else(|| Refusal::TooLarge {
            asked: size,
            drive: roomiest.name.clone(),
            room: roomiest.room(),
        })
}

fn slices_in_domain(candidates: &[Candidate], key: &str, domain: &str) -> usize {
    candidates
        .iter()
        .filter(|c| c.domain(key) == domain)
        .map(|c| c.slices)
        .sum()
}

/// Chooses a drive for the slice of a volume, or says why there is none.
pub fn choose<'a>(
    volume: &Volume,
    placement: &'a Placement,
) -> Result<(&'a Drive, &'a Pool), status::Word> {
    let Some(pool) = &placement.pool else {
        return Err(status::unknown_pool(volume));
    };
    let candidates: Vec<Candidate> = placement
        .drives
        .iter()
        .map(|d| candidate(d, pool.spec.overcommit_percent(), placement))
        .collect();
    let size = quantity::bytes(&volume.spec.size).unwrap_or(u64::MAX);
    let refused = |refusal: Refusal| status::refused(volume, refusal);
    let chosen = pick(&candidates, &pool.spec.spread_by, size).map_err(refused)?;
    let found = placement
        .drives
        .iter()
        .find(|d| d.metadata.name.as_ref() == Some(&chosen.name));
    found
        .map(|drive| (drive, pool))
        .ok_or_else(|| status::refused(volume, Refusal::NoDrive))
}

/// Whether the drive of a slice can promise what the volume asks for more: the percentage of its
/// size that it may promise then, or why not. A slice does not move to grow.
pub fn room_to_grow(
    o: &Observed,
    slice: &Slice,
    placement: &Placement,
) -> Result<i32, status::Word> {
    // A pool that is gone leaves what it allowed when the slice was placed.
    let before = u32::try_from(slice.spec.overcommit_percent).unwrap_or(100);
    let pool = placement.pool.as_ref();
    let percent = pool.map_or(before, |pool| pool.spec.overcommit_percent());
    let same = |d: &&Drive| d.spec.uid.as_ref() == Some(&slice.spec.drive_uid);
    let Some(drive) = o.drive.as_ref().filter(same) else {
        return Err(status::grows_later(slice, "it does not exist"));
    };
    let drive = candidate(drive, percent, placement);
    if !drive.ready {
        return Err(status::grows_later(slice, &drive.reason));
    }
    let wish = quantity::bytes(&o.volume.spec.size).unwrap_or(u64::MAX);
    let has = quantity::bytes(&slice.spec.size).unwrap_or(0);
    if wish.saturating_sub(has) > drive.room() {
        return Err(status::no_room(&o.volume, slice, &drive, percent));
    }
    Ok(i32::try_from(percent).unwrap_or(100))
}

fn candidate(drive: &Drive, percent: u32, placement: &Placement) -> Candidate {
    let status = drive.status.clone().unwrap_or_default();
    let ready = status.phase == Phase::Ready
        && drive.metadata.deletion_timestamp.is_none()
        && drive.spec.uid.is_some();
    let capacity = status.size.as_ref().and_then(quantity::bytes).unwrap_or(0);
    let limit = u128::from(capacity) * u128::from(percent) / 100;
    let here = placement
        .slices
        .iter()
        .filter(|s| drive.metadata.name.as_ref() == Some(&s.spec.drive));
    let sizes: Vec<u64> = here
        .map(|s| quantity::bytes(&s.spec.size).unwrap_or(0))
        .collect();
    let on_node = |n: &&Node| n.metadata.name.as_ref() == Some(&drive.spec.host_export.node);
    let node = placement.nodes.iter().find(on_node);
    Candidate {
        name: drive.metadata.name.clone().unwrap_or_default(),
        ready,
        reason: status::drive_reason(drive),
        node_labels: node
            .and_then(|n| n.metadata.labels.clone())
            .unwrap_or_default(),
        promised_limit: u64::try_from(limit).unwrap_or(u64::MAX),
        promised: sizes.iter().fold(0, |sum, size| sum.saturating_add(*size)),
        slices: sizes.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drive(name: &str, zone: &str, room: u64, slices: usize) -> Candidate {
        Candidate {
            name: name.into(),
            ready: true,
            reason: String::new(),
            node_labels: BTreeMap::from([("zone".into(), zone.into())]),
            promised_limit: room,
            promised: 0,
            slices,
        }
    }

    fn zones() -> Vec<String> {
        vec!["zone".into()]
    }

    #[test]
    fn the_emptiest_domain_wins_over_the_roomiest_drive() {
        let drives = [drive("a", "z1", 100, 2), drive("b", "z2", 50, 1)];
        assert_eq!(pick(&drives, &zones(), 10).unwrap().name, "b");
    }

    #[test]
    fn a_domain_counts_the_slices_of_all_its_drives_also_of_those_not_ready() {
        let mut down = drive("a0", "z1", 10, 5);
        down.ready = false;
        let drives = [down, drive("a1", "z1", 100, 0), drive("b", "z2", 50, 1)];
        assert_eq!(pick(&drives, &zones(), 10).unwrap().name, "b");
    }

    #[test]
    fn within_a_domain_the_roomiest_drive_wins_and_then_the_name() {
        let drives = [
            drive("b", "z1", 50, 0),
            drive("a", "z1", 50, 0),
            drive("c", "z1", 60, 0),
        ];
        assert_eq!(pick(&drives, &zones(), 10).unwrap().name, "c");
        assert_eq!(pick(&drives[..2], &zones(), 10).unwrap().name, "a");
    }

    #[test]
    fn a_refusal_tells_the_drive_that_came_closest() {
        let drives = [drive("a", "z1", 50, 0), drive("b", "z2", 60, 9)];
        let refusal = Refusal::TooLarge {
            asked: 70,
            drive: "b".into(),
            room: 60,
        };
        assert_eq!(pick(&drives, &zones(), 70), Err(refusal));
        assert_eq!(pick(&[], &zones(), 70), Err(Refusal::NoDrive));
    }

    #[test]
    fn drives_that_are_not_ready_are_named_with_their_reason() {
        let mut down = drive("a", "z1", 50, 0);
        (down.ready, down.reason) = (false, "ForeignData".into());
        let refusal = Refusal::NoneReady("a (ForeignData)".into());
        assert_eq!(pick(&[down], &zones(), 1), Err(refusal));
    }
}
