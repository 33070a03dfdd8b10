//! What an engine's word means for what it is told next. Pure.

use super::plan::number;
use weft_crds::VolumeStatus;
use weft_crds::volume::{VolumeHost, VolumeMember};
use weft_spec::engine::{DriveWire, EngineState, EngineStatus, HostStatus};

/// Whether a host that is out of the document still has a connection: a command of it may be
/// under way, so the document does not count as acknowledged yet.
pub fn leaving(report: &EngineStatus, hosts: &[VolumeHost]) -> bool {
    let known = |h: &HostStatus| {
        let same =
            |k: &VolumeHost| k.attachment == h.attachment && k.generation == number(h.generation.0);
        hosts.iter().any(same)
    };
    report.hosts.iter().any(|h| h.associations > 0 && !known(h))
}

/// Whether putting a document to the engine can change anything: while it starts, all that it
/// reports is that nothing is durable yet, and the answer would be held back until it is.
pub fn takes_documents(report: &EngineStatus, status: &VolumeStatus) -> bool {
    let elsewhere = |d: &DriveWire| {
        let here = |m: &VolumeMember| m.drive == d.drive_name && m.address == d.address.to_string();
        !status.members.iter().any(here)
    };
    match report.state {
        EngineState::Serving | EngineState::Paused => true,
        EngineState::Starting => {
            report.reason == "DocumentOutdated" || report.drives.iter().any(elsewhere)
        }
        EngineState::Parked => false,
    }
}
