//! What a Fabric is read as, and what it says.

use super::status::{facts, status};
use jiff::Timestamp;
use serde_json::{Value, json};
use weft_crds::{Fabric, Phase};

fn fabric(spec: Value) -> Fabric {
    Fabric::new("default", serde_json::from_value(spec).unwrap())
}

const UID: &str = "5b0f7c1e-96a4-4f0b-a1ef-0d3f0a6b3c11";

#[test]
fn an_empty_fabric_has_the_default_ports() {
    let facts = facts(&fabric(json!({"uid": UID}))).unwrap();
    let ports = facts.ports;
    assert_eq!(
        (ports.drive, ports.engine, ports.control, ports.operator),
        (4421, 4420, 4410, 4411)
    );
    assert_eq!(facts.cluster.to_string(), UID);
}

#[test]
fn a_fabric_without_identity_or_with_a_wrong_port_is_refused_by_name() {
    for (spec, words) in [
        (json!({}), "spec.uid"),
        (
            json!({"uid": UID, "ports": {"drive": 70000}}),
            "spec.ports.drive is 70000",
        ),
    ] {
        let error = facts(&fabric(spec)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_change_of_families_asks_for_a_restart() {
    let before = fabric(json!({"uid": UID}));
    let in_use = facts(&before).unwrap();
    assert_eq!(
        status(&before, &in_use, Timestamp::UNIX_EPOCH).phase,
        Phase::Ready
    );
    let after = fabric(json!({"uid": UID, "families": ["IPv6"]}));
    let status = status(&after, &in_use, Timestamp::UNIX_EPOCH);
    assert_eq!(
        (status.phase, status.conditions[0].reason.as_str()),
        (Phase::Pending, "RestartNeeded")
    );
}
