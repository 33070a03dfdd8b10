//! What the engine says of each slice of a mirror, and what that makes the volume. Pure.

use super::plan::Observed;
use crate::shared::conditions::whole_second;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weft_crds::volume::{MemberState, VolumeMember, Wire, WireKind, WireState};
use weft_crds::{SliceRole, VolumeStatus};
use weft_spec::drive::MemberState as Reported;
use weft_spec::engine::{EngineStatus, MemberStatus};

/// Takes over what the engine says; `since` moves only when a state does.
pub fn follow(members: &mut [VolumeMember], report: &EngineStatus, now: Timestamp) {
    for member in members.iter_mut().filter(|m| m.role == SliceRole::Data) {
        let same = |m: &&MemberStatus| m.slice.to_string() == member.slice_uid;
        let Some(said) = report.members.iter().find(same) else {
            continue;
        };
        let state = match said.state {
            Reported::Current => MemberState::InSync,
            Reported::Rebuilding | Reported::Retired => MemberState::OutOfSync,
        };
        if member.state != Some(state) {
            member.state = Some(state);
            member.since = Some(Time(whole_second(now)));
        }
    }
}

/// Members that hold the data.
pub fn data(status: &VolumeStatus) -> impl Iterator<Item = &VolumeMember> {
    status.members.iter().filter(|m| m.role == SliceRole::Data)
}

/// Those of them that count: not those that join.
pub fn full(status: &VolumeStatus) -> impl Iterator<Item = &VolumeMember> {
    data(status).filter(|m| !m.joining)
}

/// The drive's end of the wire to a member. What joins may be on the drive of what leaves.
pub fn end(member: &VolumeMember) -> String {
    match member.joining {
        true => format!("drive/{}/{}", member.drive, member.slice),
        false => format!("drive/{}", member.drive),
    }
}

/// The wire from the engine to the drive of a member.
pub fn wire<'a>(status: &'a VolumeStatus, member: &VolumeMember) -> Option<&'a Wire> {
    let to = end(member);
    let is_it = |w: &&Wire| w.kind == WireKind::EngineToDrive && w.to == to;
    status.wires.iter().find(is_it)
}

/// Whether the engine reaches the drive of a member.
pub fn is_reached(status: &VolumeStatus, member: &VolumeMember) -> bool {
    wire(status, member).is_some_and(|w| w.state == WireState::Ready)
}

/// Whether an engine that does without the drives of this node could serve: a majority of the slices
/// is elsewhere, and one of them has every acknowledged write.
pub fn can_do_without(o: &Observed, status: &VolumeStatus, node: &str) -> bool {
    let is_there = |m: &&VolumeMember| {
        let drive = o.drive_of(m);
        drive.is_some_and(|d| d.spec.host_export.node == node)
    };
    let voters: Vec<_> = status.members.iter().filter(|m| !m.joining).collect();
    let left: Vec<_> = voters.iter().filter(|m| !is_there(m)).collect();
    let leads =
        |m: &&&VolumeMember| m.role == SliceRole::Data && m.state != Some(MemberState::OutOfSync);
    left.len() * 2 > voters.len() && left.iter().any(leads)
}
