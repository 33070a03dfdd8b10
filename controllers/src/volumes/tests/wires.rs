use super::{attachment, now, of, pass, serving};
use crate::volumes::plan::Observed;
use jiff::SignedDuration;
use serde_json::json;
use weft_crds::volume::WireState;
use weft_spec::engine::{DriveWire, HostStatus};
use weft_spec::ids::AttachGeneration;

#[test]
fn a_wire_is_ready_only_when_identity_and_source_are_proven() {
    type Change = fn(&mut DriveWire);
    let cases: [(WireState, &str, Change); 5] = [
        (WireState::Ready, "", |_| {}),
        (WireState::Broken, "no route", |w| {
            (w.connected, w.reason) = (false, "no route".into())
        }),
        (WireState::Broken, "address translation", |w| {
            w.seen_by_drive = Some("10.9.9.9:1".parse().unwrap())
        }),
        (WireState::Broken, "another target answers", |w| {
            w.identity = Some("nqn.other".into())
        }),
        (WireState::Pending, "not reported whom it sees", |w| {
            w.seen_by_drive = None
        }),
    ];
    for (state, reason, change) in cases {
        let mut o = serving();
        change(&mut o.report.as_mut().unwrap().drives[0]);
        let wire = &pass(&o).status.wires[0];
        assert_eq!(wire.state, state);
        assert!(wire.reason.contains(reason), "{}", wire.reason);
        assert_eq!(
            (wire.from.as_str(), wire.to.as_str()),
            ("engine/db", "drive/d0")
        );
    }
}

#[test]
fn a_consumers_wire_waits_for_the_node_and_is_proven_from_both_ends() {
    let cases = [
        (None, Some("10.0.3.1:7"), WireState::Pending),
        (Some("10.0.3.1:7"), Some("10.0.3.1:7"), WireState::Ready),
        (Some("10.0.3.1"), Some("10.0.3.1:7"), WireState::Ready),
        (Some("10.0.3.1:7"), Some("10.0.0.254:7"), WireState::Broken),
        (Some("10.0.3.1:7"), None, WireState::Broken),
    ];
    for (own, seen, state) in cases {
        let mut o = serving();
        o.volume.status.as_mut().unwrap().hosts =
            of(json!([{"attachment": "a1", "node": "n3", "generation": 1}]));
        o.attachments = vec![attachment("a1", own)];
        o.report.as_mut().unwrap().hosts = vec![HostStatus {
            attachment: "a1".into(),
            generation: AttachGeneration(1),
            associations: u32::from(seen.is_some()),
            source: seen.map(|s| s.parse().unwrap()),
        }];
        let wires = pass(&o).status.wires;
        assert_eq!(
            wires[1].state, state,
            "{own:?} {seen:?}: {}",
            wires[1].reason
        );
    }
}

#[test]
fn since_moves_only_with_the_state() {
    let mut o = serving();
    o.volume.status = Some(pass(&o).status);
    let since = |o: &Observed| pass(o).status.wires[0].since.clone().unwrap().0;
    o.now += SignedDuration::from_secs(60);
    o.report.as_mut().unwrap().drives[0].local = Some("10.0.0.9:50001".parse().unwrap());
    o.report.as_mut().unwrap().drives[0].seen_by_drive = Some("10.0.0.9:50001".parse().unwrap());
    assert_eq!(since(&o), now());
    o.report.as_mut().unwrap().drives[0].connected = false;
    assert_eq!(since(&o), o.now);
}
