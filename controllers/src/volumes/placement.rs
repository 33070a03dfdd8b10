//! Which drives the slices of a volume go to. Pure: candidates in, names or a refusal out.
//!
//! No two slices of a volume share a drive, nor a domain of the last (the finest) node label of
//! `Pool.spec.spreadBy`: what takes one away must leave the others. Beyond that the order of
//! preference is, each only to break a tie in the one before: for each label, the domain with the
//! fewest slices of this volume; for each label, the domain with the fewest slices of the pool's
//! drives; the drive with the most room; the name, so that the same observation always gives
//! the same answer.

use super::parts::Part;
use super::plan::{Observed, Placement};
use super::status;
use super::{moves, objects};
use crate::shared::quantity;
use k8s_openapi::api::core::v1::Node;
use std::collections::{BTreeMap, BTreeSet};
use weft_crds::{Drive, Phase, Pool, Slice};

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
    /// Whether it holds one of this volume.
    pub is_taken: bool,
}

impl Candidate {
    /// Bytes that a new slice may be promised.
    pub fn room(&self) -> u64 {
        self.promised_limit.saturating_sub(self.promised)
    }

    fn domain(&self, key: &str) -> &str {
        self.node_labels.get(key).map_or("", String::as_str)
    }

    fn take(&mut self, size: u64) {
        self.promised = self.promised.saturating_add(size);
        self.slices += 1;
        self.is_taken = true;
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
    /// Every ready drive shares a drive or a failure domain with another slice of the volume.
    TooFewDomains {
        /// The node label that tells domains apart; `None` where only drives count.
        key: Option<String>,
        /// Domains (or drives) that can take a slice.
        domains: Vec<String>,
    },
}

/// Chooses a drive for one more slice of `size` bytes.
pub fn pick<'a>(
    candidates: &'a [Candidate],
    spread_by: &[String],
    size: u64,
) -> Result<&'a Candidate, Refusal> {
    if candidates.is_empty() {
        return Err(Refusal::NoDrive);
    }
    let ready = || candidates.iter().filter(|c| c.ready);
    if ready().next().is_none() {
        let reasons: Vec<_> = candidates
            .iter()
            .take(3)
            .map(|c| format!("{} ({})", c.name, c.reason))
            .collect();
        return Err(Refusal::NoneReady(reasons.join(", ")));
    }
    let finest = spread_by.last();
    let apart = || ready().filter(|c| is_apart(c, candidates, finest));
    let Some(roomiest) = apart().max_by_key(|c| c.room()) else {
        return Err(too_few_domains(candidates, finest));
    };
    apart()
        .filter(|c| c.room() >= size)
        .min_by_key(|c| {
            let count = |taken: bool| -> Vec<usize> {
                let crowd = |key: &String| crowd(candidates, key, c.domain(key), taken);
                spread_by.iter().map(crowd).collect()
            };
            let room = std::cmp::Reverse(c.room());
            (count(true), count(false), room, c.name.clone())
        })
        .ok_or_else(|| Refusal::TooLarge {
            asked: size,
            drive: roomiest.name.clone(),
            room: roomiest.room(),
        })
}

/// Whether a failure that takes this drive away leaves every other slice of the volume.
fn is_apart(candidate: &Candidate, all: &[Candidate], finest: Option<&String>) -> bool {
    let together = |other: &Candidate| {
        finest.is_some_and(|key| other.domain(key) == candidate.domain(key))
            || other.name == candidate.name
    };
    !all.iter().filter(|c| c.is_taken).any(together)
}

fn too_few_domains(candidates: &[Candidate], finest: Option<&String>) -> Refusal {
    let named = |c: &Candidate| {
        finest
            .map_or(c.name.as_str(), |key| c.domain(key))
            .to_owned()
    };
    let usable = candidates.iter().filter(|c| c.ready || c.is_taken);
    let domains: BTreeSet<_> = usable.map(named).collect();
    Refusal::TooFewDomains {
        key: finest.cloned(),
        domains: domains.into_iter().collect(),
    }
}

/// Slices in a domain: those of this volume, or all.
fn crowd(candidates: &[Candidate], key: &str, domain: &str, of_volume: bool) -> usize {
    let here = candidates.iter().filter(|c| c.domain(key) == domain);
    here.map(|c| match of_volume {
        true => usize::from(c.is_taken),
        false => c.slices,
    })
    .sum()
}

/// What each of the parts goes on.
pub type Chosen<'a> = Vec<(&'a Part, &'a Drive)>;

/// Chooses a drive for each part of a volume that has none, or says why that cannot be: all of them
/// or none.
pub fn choose<'a>(
    o: &Observed,
    parts: &'a [Part],
    placement: &'a Placement,
) -> Result<(&'a Pool, Chosen<'a>), status::Word> {
    let volume = &o.volume;
    let Some(pool) = &placement.pool else {
        return Err(status::unknown_pool(volume));
    };
    let percent = pool.spec.overcommit_percent();
    let mut candidates: Vec<Candidate> = placement
        .drives
        .iter()
        .map(|drive| free_of(o, drive, candidate(drive, percent, placement)))
        .collect();
    let mut chosen = Vec::new();
    for part in parts {
        let size = quantity::bytes(&objects::slice_size(volume, part.role)).unwrap_or(u64::MAX);
        let picked = pick(&candidates, &pool.spec.spread_by, size);
        let name = picked
            .map_err(|refusal| status::refused(volume, refusal))?
            .name
            .clone();
        let taken = candidates.iter_mut().zip(&placement.drives);
        for (candidate, drive) in taken.filter(|(c, _)| c.name == name) {
            candidate.take(size);
            chosen.push((part, drive));
        }
    }
    Ok((pool, chosen))
}

/// What the volume has there already, and what is on its way out, which takes no domain.
fn free_of(o: &Observed, drive: &Drive, mut candidate: Candidate) -> Candidate {
    let leaves = moves::is_evicted(o, &candidate.name) || drive.spec.maintenance.is_some();
    if leaves {
        (candidate.ready, candidate.reason) = (false, "its slices go elsewhere".to_owned());
    }
    let here = o.slices.iter().filter(|s| is_on(s, drive));
    candidate.is_taken = here.filter(|s| moves::stays(o, s)).count() > 0;
    candidate
}

fn is_on(slice: &Slice, drive: &Drive) -> bool {
    drive.metadata.name.as_ref() == Some(&slice.spec.drive)
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
    let Some(drive) = o.drives.iter().find(same) else {
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
    let here = placement.slices.iter().filter(|s| is_on(s, drive));
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
        is_taken: false,
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
            is_taken: false,
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
    fn slices_of_one_volume_never_share_a_domain_of_the_finest_label_or_a_drive() {
        let mut drives = [
            drive("a0", "z1", 100, 0),
            drive("a1", "z1", 100, 0),
            drive("b", "z2", 10, 9),
        ];
        drives[0].is_taken = true;
        assert_eq!(pick(&drives, &zones(), 10).unwrap().name, "b");
        drives[2].is_taken = true;
        let refusal = Refusal::TooFewDomains {
            key: Some("zone".into()),
            domains: vec!["z1".into(), "z2".into()],
        };
        assert_eq!(pick(&drives, &zones(), 10), Err(refusal));
        assert_eq!(pick(&drives, &[], 10).unwrap().name, "a1");
        drives[1].is_taken = true;
        assert!(matches!(
            pick(&drives, &[], 10),
            Err(Refusal::TooFewDomains { key: None, .. })
        ));
    }

    #[test]
    fn slices_of_one_volume_spread_over_the_coarser_labels_too() {
        let host = |mut drive: Candidate, host: &str| {
            drive.node_labels.insert("host".into(), host.into());
            drive
        };
        let mut drives = [
            host(drive("a", "z1", 100, 0), "h1"),
            host(drive("b", "z1", 100, 0), "h2"),
            host(drive("c", "z2", 100, 7), "h3"),
        ];
        let keys = ["zone".to_owned(), "host".to_owned()];
        drives[0].is_taken = true;
        assert_eq!(pick(&drives, &keys, 10).unwrap().name, "c");
        drives[2].is_taken = true;
        assert_eq!(pick(&drives, &keys, 10).unwrap().name, "b");
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
