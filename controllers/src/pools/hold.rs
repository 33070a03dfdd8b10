//! Which volumes could not serve without a failure domain. Pure.
//!
//! A volume of one copy holds nothing: no rebuild will ever make it independent of its drive, and a
//! drain that waited for it would not end. Its I/O waits until the drive's pod is made anew.
//! Nor does a volume that could not serve with the domain either.

use super::domains::{self, Domain};
use super::plan::Observed;
use crate::shared::labels::DRIVE_UID;
use crate::shared::{conditions, finalizers};
use crate::volumes::members;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use std::collections::BTreeSet;
use weft_crds::volume::{MemberState, VolumeMember, Wire, WireState};
use weft_crds::{Drive, SliceRole, Volume, VolumeStatus};

/// How long after its pod was made a drive counts again: an engine takes up to 5 s to notice that it was
/// gone, and what the volume says of its copies is old until then.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(15);

/// A volume that holds a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its name.
    pub volume: String,
    /// What of it elsewhere does not count, and why.
    pub waits_for: Vec<String>,
}

/// The volumes that could serve with the domain and could not without.
pub fn held(o: &Observed, domain: &Domain) -> Vec<Held> {
    let leaving = domains::drives(o, domain);
    let holds = |volume: &Volume| hold(o, volume, &leaving);
    o.volumes.iter().filter_map(holds).collect()
}

fn hold(o: &Observed, volume: &Volume, leaving: &BTreeSet<String>) -> Option<Held> {
    let status = volume.status.as_ref().filter(|status| status.formed)?;
    let voters: Vec<_> = status.members.iter().filter(|m| !m.joining).collect();
    if voters.len() < 2 {
        return None;
    }
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        voters.iter().partition(|m| leaving.contains(&m.drive_uid));
    let lacks = |m: &&VolumeMember| lack(o, status, m);
    let usable: Vec<_> = elsewhere
        .iter()
        .copied()
        .filter(|m| lacks(m).is_none())
        .collect();
    let with: Vec<_> = usable.iter().chain(&here).copied().collect();
    let need = voters.len();
    if here.is_empty() || serves(&usable, need) || !serves(&with, need) {
        return None;
    }
    let told = |m: &&VolumeMember| {
        let stale = is_stale(m).then(|| "lacks writes".to_owned());
        let why = lacks(m).or(stale)?;
        Some(format!("{} on drive {} {why}", m.slice, m.drive))
    };
    Some(Held {
        volume: volume.metadata.name.clone().unwrap_or_default(),
        waits_for: elsewhere.iter().copied().filter_map(|m| told(&m)).collect(),
    })
}

/// Whether these are enough: a majority of the votes, and one with every acknowledged write.
fn serves(members: &[&VolumeMember], voters: usize) -> bool {
    let leads = |m: &&VolumeMember| m.role == SliceRole::Data && !is_stale(m);
    members.len() * 2 > voters && members.iter().any(leads)
}

fn is_stale(member: &VolumeMember) -> bool {
    member.role == SliceRole::Data && member.state != Some(MemberState::InSync)
}

/// Why a member cannot be counted on now.
fn lack(o: &Observed, status: &VolumeStatus, member: &VolumeMember) -> Option<String> {
    let same = |drive: &&Drive| drive.spec.uid.as_ref() == Some(&member.drive_uid);
    let Some(drive) = o.drives.iter().find(same) else {
        return Some("is not there: there is no such Drive".to_owned());
    };
    let ready = drive.status.as_ref();
    let ready = ready.is_some_and(|status| conditions::is_true(&status.conditions, "Ready"));
    if !ready || finalizers::is_deleting(drive) {
        return Some("does not serve".to_owned());
    }
    let of_drive = |pod: &&Pod| {
        let labels = pod.metadata.labels.as_ref();
        labels.and_then(|labels| labels.get(DRIVE_UID)) == Some(&member.drive_uid)
    };
    let Some(pod) = o.pods.iter().find(of_drive) else {
        return Some("waits for its pod".to_owned());
    };
    let made = pod.metadata.creation_timestamp.as_ref();
    let young = made.is_some_and(|made| o.now.duration_since(made.0) < SETTLED_AFTER);
    if pod.metadata.deletion_timestamp.is_some() || young {
        return Some("has just got another pod".to_owned());
    }
    let broken = |wire: &Wire| wire.state == WireState::Broken;
    if members::wire(status, member).is_some_and(broken) {
        return Some("is not reached by the engine".to_owned());
    }
    domains::is_open(o, drive).then(|| "may be evicted itself".to_owned())
}
