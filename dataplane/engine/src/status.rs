//! What the engine reports, computed in this one place from what was observed.

mod many;

use crate::document::only_slice;
use crate::gate::Association;
use crate::members::State;
use crate::plan::{Engine, Obstacle, Path, Phase};
use crate::slice_link::canonical;
use std::net::SocketAddr;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::engine::{DriveWire, EngineState, EngineStatus, HostStatus, SliceMember};
use weft_transport::PathState;

/// What is known of the association to the drive.
#[derive(Clone, Debug, Default)]
pub struct Wire {
    /// As the path itself tells it; absent before the fence was raised.
    pub path: Option<PathState>,
    /// This end as the drive sees it on the association of now.
    pub seen_by_drive: Option<SocketAddr>,
}

impl Wire {
    /// Takes what the path tells. Whether it is of a new association, whose ends are not known yet:
    /// one that told of a growth or of its ANA state keeps what was proven of it.
    pub fn took(&mut self, path: PathState) -> bool {
        let is_same = |was: &PathState| was.connected && was.local == path.local;
        let is_new = path.connected && !self.path.as_ref().is_some_and(is_same);
        if is_new || !path.connected {
            self.seen_by_drive = None;
        }
        self.path = Some(path);
        is_new
    }
}

/// What is known of all drives.
pub enum Wires<'a> {
    /// Of the one slice.
    One(&'a Wire),
    /// Of the slices of a mirror.
    Many(&'a State),
}

/// The status.
pub fn status(engine: &Engine, wires: &Wires<'_>, associations: &[Association]) -> EngineStatus {
    let ((state, reason, message), drives, members) = match (wires, only_slice(engine.document())) {
        (Wires::One(wire), Some(member)) => (
            verdict(engine, member),
            vec![drive(engine, member, wire)],
            Vec::new(),
        ),
        (Wires::One(_), None) => (many::verdict(engine, None), Vec::new(), Vec::new()),
        (Wires::Many(state), _) => (
            many::verdict(engine, Some(state)),
            many::drives(engine, state),
            many::members(engine, state),
        ),
    };
    EngineStatus {
        version: DOCUMENT_VERSION,
        volume: engine.document().volume,
        term: engine.document().term,
        boot: engine.pair().boot,
        document_generation: engine.recorded(),
        state,
        reason: reason.to_owned(),
        message,
        size: engine.size(),
        hosts: hosts(engine, associations),
        drives,
        members,
    }
}

fn verdict(engine: &Engine, member: &SliceMember) -> (EngineState, &'static str, String) {
    let drive = format!("drive {} at {}", member.drive_name, member.address);
    let waits = "goes on by itself";
    match (engine.phase(), engine.path()) {
        (Phase::Inspecting(Obstacle::None), _) => (
            EngineState::Starting,
            "Inspecting",
            format!("asks {drive} for slice {}", member.slice),
        ),
        (Phase::Inspecting(Obstacle::Unreachable(why)), _) => {
            let message = format!("{drive} does not answer: {why}; {waits} when it does");
            (EngineState::Starting, "DriveUnreachable", message)
        }
        (Phase::Inspecting(Obstacle::Mismatch(found)), _) => {
            let message = format!(
                "{drive} does not have slice {} of this volume: {found}; {waits} when the address is right",
                member.slice
            );
            (EngineState::Starting, "SliceMismatch", message)
        }
        (Phase::Inspecting(Obstacle::TooSmall { slice }), _) => {
            let message = format!(
                "slice {} on {drive} has {slice} bytes, the volume needs {}; allocate a larger slice",
                member.slice,
                engine.document().size
            );
            (EngineState::Starting, "SliceTooSmall", message)
        }
        (Phase::Outdated(known), _) => {
            let message = format!(
                "the document at hand has generation {}, slice {} has recorded {known}: admits nobody until a document of generation {known} or later is put",
                engine.document().generation,
                member.slice
            );
            (EngineState::Starting, "DocumentOutdated", message)
        }
        (Phase::Connecting, _) => (
            EngineState::Starting,
            "Fencing",
            format!("raises the fence at {drive} to {}", engine.pair()),
        ),
        (Phase::Recording, Path::Up) => (
            EngineState::Starting,
            "Recording",
            format!(
                "records generation {} at {drive}",
                engine.document().generation
            ),
        ),
        (Phase::Recording, Path::Lost(why)) => (
            EngineState::Starting,
            "DriveUnreachable",
            format!("{drive} was lost: {why}; {waits} when it answers"),
        ),
        (Phase::Serving, Path::Up) => match engine.too_small() {
            None => (
                EngineState::Serving,
                "Serving",
                format!("serves with fence {}", engine.pair()),
            ),
            Some(slice) => {
                let message = format!(
                    "slice {} on {drive} has {slice} bytes, the volume shall have {}: serves {} until the drive tells that the slice has grown",
                    member.slice,
                    engine.document().size,
                    engine.size()
                );
                (EngineState::Serving, "SliceTooSmall", message)
            }
        },
        (Phase::Serving, Path::Lost(why)) => {
            let message =
                format!("{drive} was lost: {why}; hosts wait, I/O {waits} when it answers");
            (EngineState::Paused, "DriveUnreachable", message)
        }
        (Phase::Parked(by), _) => {
            let by = by.map(|pair| format!(" {pair}")).unwrap_or_default();
            let message = format!(
                "a newer engine{by} owns slice {}; this one was {} and does nothing more: delete its pod",
                member.slice,
                engine.pair()
            );
            (EngineState::Parked, "Fenced", message)
        }
    }
}

fn hosts(engine: &Engine, associations: &[Association]) -> Vec<HostStatus> {
    let admitted = engine.admitted().iter();
    // A host on its way out is reported until it has ended.
    let leaving = associations
        .iter()
        .map(|association| &association.host)
        .filter(|host| !engine.admitted().contains(host));
    let mut hosts: Vec<HostStatus> = Vec::new();
    for host in admitted.chain(leaving) {
        let own: Vec<_> = associations
            .iter()
            .filter(|one| one.host == *host)
            .collect();
        let status = HostStatus {
            attachment: host.attachment.clone(),
            generation: host.generation,
            associations: u32::try_from(own.len()).unwrap_or(u32::MAX),
            source: own.last().map(|association| association.source),
        };
        if !hosts.contains(&status) {
            hosts.push(status);
        }
    }
    hosts
}

fn drive(engine: &Engine, member: &SliceMember, wire: &Wire) -> DriveWire {
    let path = wire.path.as_ref();
    let reason = match (engine.phase(), engine.path()) {
        (Phase::Inspecting(Obstacle::Unreachable(why)), _) | (_, Path::Lost(why)) => why.clone(),
        (_, Path::Up) => String::new(),
    };
    let connected = *engine.path() == Path::Up;
    DriveWire {
        slice: member.slice,
        drive_name: member.drive_name.clone(),
        connected,
        address: member.address,
        local: path
            .filter(|_| connected)
            .and_then(|path| path.local)
            .map(canonical),
        seen_by_drive: wire.seen_by_drive.filter(|_| connected),
        identity: path.and_then(|path| path.subsystem.clone()),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Event;
    use crate::plan::tests::{document, host, inspection, serving};
    use weft_spec::ids::DocumentGeneration;

    fn told(engine: &Engine) -> (EngineState, String) {
        let status = status(engine, &Wires::One(&Wire::default()), &[]);
        (status.state, status.reason)
    }

    #[test]
    fn each_phase_has_its_state_and_reason() {
        let start = Engine::new(document(5)).0;
        let table: [(Engine, Event, EngineState, &str); 7] = [
            (
                start.clone(),
                Event::Unreachable("refused".into()),
                EngineState::Starting,
                "DriveUnreachable",
            ),
            (
                start.clone(),
                Event::Inspected(inspection(7, 0, 9)),
                EngineState::Starting,
                "DocumentOutdated",
            ),
            (
                start.clone(),
                Event::Inspected(inspection(7, 0, 5)),
                EngineState::Starting,
                "Fencing",
            ),
            (
                start,
                Event::Inspected(inspection(9, 0, 5)),
                EngineState::Parked,
                "Fenced",
            ),
            (serving(), Event::PathUp, EngineState::Serving, "Serving"),
            (
                serving(),
                Event::PathLost("reset".into()),
                EngineState::Paused,
                "DriveUnreachable",
            ),
            (serving(), Event::Fenced, EngineState::Parked, "Fenced"),
        ];
        for (mut engine, event, state, reason) in table {
            engine.step(event.clone());
            assert_eq!(told(&engine), (state, reason.to_owned()), "{event:?}");
        }
    }

    #[test]
    fn what_was_proven_of_an_association_lasts_as_long_as_it() {
        let seen = Some("127.0.0.1:5000".parse().unwrap());
        let mut wire = Wire::default();
        assert!(wire.took(path(5000)));
        wire.seen_by_drive = seen;
        let grown = PathState {
            size: 1 << 20,
            ..path(5000)
        };
        assert!(!wire.took(grown));
        assert_eq!(wire.seen_by_drive, seen);
        // The loss in between was not heard of.
        assert!(wire.took(path(5001)));
        assert_eq!(wire.seen_by_drive, None);
        wire.seen_by_drive = seen;
        let lost = PathState {
            connected: false,
            ..path(5001)
        };
        assert!(!wire.took(lost));
        assert_eq!(wire.seen_by_drive, None);
        assert!(wire.took(path(5001)));
    }

    /// A path that is up from this port.
    fn path(port: u16) -> PathState {
        PathState {
            connected: true,
            address: "127.0.0.1:4421".parse().unwrap(),
            local: Some(SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port)),
            subsystem: Some("nqn.slice".into()),
            namespace_uuid: None,
            size: 0,
            invalid_host: false,
            reason: None,
            ana: weft_transport::AnaState::Optimized,
        }
    }

    #[test]
    fn the_wire_tells_both_views_of_one_connection_and_forgets_them_with_it() {
        let wire = Wire {
            path: Some(path(5000)),
            seen_by_drive: Some("127.0.0.1:5000".parse().unwrap()),
        };
        let mut engine = serving();
        let up = &status(&engine, &Wires::One(&wire), &[]).drives[0];
        assert!(up.connected && up.local.is_some());
        assert_eq!(
            (up.local, up.identity.as_deref()),
            (up.seen_by_drive, Some("nqn.slice"))
        );
        engine.step(Event::PathLost("no route".into()));
        let lost = &status(&engine, &Wires::One(&wire), &[]).drives[0];
        assert!(!lost.connected && lost.local.is_none() && lost.seen_by_drive.is_none());
        assert_eq!(lost.reason, "no route");
    }

    #[test]
    fn a_host_is_reported_while_it_is_admitted_or_still_connected() {
        let mut engine = serving();
        let source = "127.0.0.1:6000".parse().unwrap();
        let connected = [Association {
            host: host("n1", 1),
            source,
        }];
        let before = status(&engine, &Wires::One(&Wire::default()), &connected).hosts;
        assert_eq!(
            (before.len(), before[0].associations, before[0].source),
            (1, 1, Some(source))
        );
        let mut put = document(6);
        put.hosts.clear();
        engine.offer(put).unwrap();
        engine.step(Event::Recorded(DocumentGeneration(6)));
        assert_eq!(
            status(&engine, &Wires::One(&Wire::default()), &connected)
                .hosts
                .len(),
            1
        );
        assert!(
            status(&engine, &Wires::One(&Wire::default()), &[])
                .hosts
                .is_empty()
        );
    }
}
