//! What a Fabric says, read into types, and its status.

use crate::shared::conditions::{self, Truth};
use crate::shared::context::{FabricFacts, PortNumbers};
use crate::shared::errors::Error;
use jiff::Timestamp;
use weft_crds::fabric::FabricStatus;
use weft_crds::{Fabric, Phase};

/// The operator works with what the Fabric says.
pub const READY: &str = "Ready";

/// Reads a Fabric into types.
pub fn facts(fabric: &Fabric) -> Result<FabricFacts, Error> {
    let uid = fabric.spec.uid.as_deref().and_then(|uid| uid.parse().ok());
    let cluster = uid
        .ok_or_else(|| Error::unusable(fabric, "spec.uid is no UUID; remove it and one is made"))?;
    let port = |name: &str, number: i32| {
        u16::try_from(number).map_err(|_| {
            Error::unusable(
                fabric,
                format!("spec.ports.{name} is {number}; a port is 1 to 65535"),
            )
        })
    };
    let ports = &fabric.spec.ports;
    Ok(FabricFacts {
        cluster,
        ports: PortNumbers {
            drive: port("drive", ports.drive)?,
            engine: port("engine", ports.engine)?,
            control: port("control", ports.control)?,
            operator: port("operator", ports.operator)?,
        },
        families: fabric.spec.families.clone(),
    })
}

/// The status: Ready when the operator works with what the Fabric says now.
pub fn status(fabric: &Fabric, in_use: &FabricFacts, now: Timestamp) -> FabricStatus {
    let mut status = fabric.status.clone().unwrap_or_default();
    let families: Vec<String> = in_use.families.iter().map(ToString::to_string).collect();
    status.families = Some(if families.is_empty() {
        "Cluster".to_owned()
    } else {
        families.join(",")
    });
    status.observed_generation = fabric.metadata.generation;
    let same = facts(fabric).is_ok_and(|facts| facts == *in_use);
    let (phase, reason, message) = if same {
        (
            Phase::Ready,
            "InUse",
            "one rail of plain routed L3; translation is forbidden",
        )
    } else {
        (
            Phase::Pending,
            "RestartNeeded",
            "the Fabric has changed since the operator started; restart it: kubectl -n weft-system rollout restart deployment weft-operator",
        )
    };
    status.phase = phase;
    conditions::set(
        &mut status.conditions,
        READY,
        Truth::from(same),
        reason,
        message,
        fabric.metadata.generation,
        now,
    );
    status
}
