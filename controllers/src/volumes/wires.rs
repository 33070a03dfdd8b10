//! The wires of one volume: every declared path and what was proven of it. Pure.
//!
//! A wire is Ready only when the real handshake has proven the target's identity **and** the
//! target sees the very source address that the initiator's own socket has: no translation on
//! the way. What nobody has reported yet is Pending; an engine of another term has no word.

use super::members;
use super::plan::{self, Observed};
use crate::shared::conditions::whole_second;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use weft_crds::volume::{VolumeHost, VolumeMember, Wire, WireKind, WireState};
use weft_crds::{Attachment, VolumeStatus};
use weft_spec::engine::{DriveWire, EngineStatus, HostStatus};
use weft_spec::ids::SliceUid;
use weft_spec::nqn;

/// The wires now; `since` moves only when a wire's state does.
pub fn wires(o: &Observed, status: &VolumeStatus) -> Vec<Wire> {
    let report = o
        .report
        .as_ref()
        .filter(|r| plan::term(r.term) == status.term);
    if report.is_none() && !status.wires.is_empty() && plan::present_pod(o, status).is_some() {
        // This operator has just started and the engine has not been heard yet: what was proven stays.
        return status.wires.clone();
    }
    let drives = status
        .members
        .iter()
        .map(|m| to_drive(o, status, m, report));
    let hosts = status.hosts.iter().map(|h| from_host(o, status, h, report));
    drives
        .chain(hosts)
        .map(|wire| keep_since(wire, status, o))
        .collect()
}

fn keep_since(mut wire: Wire, status: &VolumeStatus, o: &Observed) -> Wire {
    let before = status
        .wires
        .iter()
        .find(|w| w.name == wire.name && w.state == wire.state);
    wire.since = before
        .and_then(|w| w.since.clone())
        .or_else(|| Some(Time(whole_second(o.now))));
    wire
}

fn blank(kind: WireKind, from: &str, to: &str) -> Wire {
    Wire {
        name: format!("{from}->{to}"),
        kind,
        from: from.to_owned(),
        to: to.to_owned(),
        state: WireState::Pending,
        source_seen_by_target: None,
        source_of_initiator: None,
        identity: None,
        since: None,
        reason: String::new(),
    }
}

fn engine_end(o: &Observed) -> String {
    format!(
        "engine/{}",
        o.volume.metadata.name.as_deref().unwrap_or_default()
    )
}

fn to_drive(
    o: &Observed,
    status: &VolumeStatus,
    member: &VolumeMember,
    report: Option<&EngineStatus>,
) -> Wire {
    let to = members::end(member);
    let mut wire = blank(WireKind::EngineToDrive, &engine_end(o), &to);
    let Ok(slice) = member.slice_uid.parse::<SliceUid>() else {
        return wire;
    };
    let Some(seen) = report.and_then(|r| r.drives.iter().find(|d| d.slice == slice)) else {
        wire.reason = format!("engine of term {} has not reported yet", status.term);
        return wire;
    };
    wire.source_of_initiator = seen.local.map(|a| a.to_string());
    wire.source_seen_by_target = seen.seen_by_drive.map(|a| a.to_string());
    wire.identity.clone_from(&seen.identity);
    (wire.state, wire.reason) = judge_drive(seen, &nqn::slice(slice));
    wire
}

fn judge_drive(seen: &DriveWire, wanted: &str) -> (WireState, String) {
    if !seen.connected {
        let reason = if seen.reason.is_empty() {
            "not connected"
        } else {
            &seen.reason
        };
        return (
            WireState::Broken,
            format!("{reason} (drive address {})", seen.address),
        );
    }
    let seen_by = seen.seen_by_drive.map(|a| a.to_string());
    let own = seen.local.map(|a| a.to_string());
    judge_ends(
        seen.identity.as_deref(),
        wanted,
        own.as_deref(),
        seen_by.as_deref(),
    )
}

/// Identity and source address, both ways; what is not known yet leaves the wire Pending.
fn judge_ends(
    identity: Option<&str>,
    wanted: &str,
    own: Option<&str>,
    seen_by_target: Option<&str>,
) -> (WireState, String) {
    match (identity, own, seen_by_target) {
        (Some(identity), _, _) if identity != wanted => (
            WireState::Broken,
            format!("another target answers: {identity} instead of {wanted}"),
        ),
        (Some(_), Some(own), Some(seen)) if own == seen => (WireState::Ready, String::new()),
        (Some(_), Some(own), Some(seen)) => (
            WireState::Broken,
            format!(
                "address translation on the way: the initiator connects from {own}, the target sees {seen}; \
                 route the pod network without NAT"
            ),
        ),
        (None, _, _) => (
            WireState::Pending,
            "the target's identity is not reported yet".into(),
        ),
        (_, None, _) => (
            WireState::Pending,
            "the initiator's own address is not reported yet".into(),
        ),
        (_, _, None) => (
            WireState::Pending,
            "the target has not reported whom it sees yet".into(),
        ),
    }
}

fn from_host(
    o: &Observed,
    status: &VolumeStatus,
    host: &VolumeHost,
    report: Option<&EngineStatus>,
) -> Wire {
    let mut wire = blank(
        WireKind::ConsumerToEngine,
        &format!("node/{}/{}", host.node, host.attachment),
        &engine_end(o),
    );
    let named = |a: &&Attachment| a.metadata.name.as_ref() == Some(&host.attachment);
    let attachment = o
        .attachments
        .iter()
        .find(named)
        .and_then(|a| a.status.as_ref());
    let observed = attachment.and_then(|a| a.observed.as_ref());
    let same = |h: &&HostStatus| {
        h.attachment == host.attachment && plan::number(h.generation.0) == host.generation
    };
    let seen = report.and_then(|r| r.hosts.iter().find(same));
    let live = seen.is_some_and(|s| s.associations > 0);
    let seen_source = seen.and_then(|s| s.source).map(|a| a.to_string());
    let Some(observed) = observed.filter(|o| o.source.is_some()) else {
        wire.source_seen_by_target = seen_source;
        wire.reason = "the node has not staged the volume".into();
        return wire;
    };
    wire.source_of_initiator.clone_from(&observed.source);
    wire.identity.clone_from(&observed.identity);
    let volume = o
        .volume
        .spec
        .uid
        .as_deref()
        .and_then(|uid| uid.parse().ok());
    let wanted = volume.map(nqn::volume).unwrap_or_default();
    (wire.state, wire.reason) = match report {
        None => (
            WireState::Pending,
            format!("engine of term {} has not reported yet", status.term),
        ),
        Some(_) if !live => (
            WireState::Broken,
            format!(
                "the engine of term {} has no connection from this node",
                status.term
            ),
        ),
        // By address alone: the kernel tells no port, and a connection made anew has another one
        // before the node has said so.
        Some(_) => judge_ends(
            observed.identity.as_deref(),
            &wanted,
            observed.source.as_deref().map(host_part).as_deref(),
            seen.and_then(|s| s.source)
                .map(|a| a.ip().to_string())
                .as_deref(),
        ),
    };
    wire.source_seen_by_target = seen_source;
    wire
}

/// The address of `address` or `address:port`.
fn host_part(end: &str) -> String {
    end.parse::<std::net::SocketAddr>()
        .map_or_else(|_| end.to_owned(), |a| a.ip().to_string())
}
