//! Volumes of two copies: where their slices are, whether they are whole, and what takes a node away.

use crate::kubectl::{condition, get, kubectl, list, name, wait};
use crate::process::node_of;
use crate::progress::step;
use crate::{control_plane, install, lab};
use anyhow::{Context, Result};
use serde_json::Value;
use std::time::Duration;

/// Of Weft.
pub const VOLUMES: &str = "volumes.weft.storage";

/// Nodes of the slices.
pub struct Places {
    /// Of the copies.
    pub data: Vec<String>,
    /// Of the witness.
    pub witness: String,
}

impl Places {
    /// Of a volume with two copies.
    pub fn of(volume: &Value) -> Result<Self> {
        let node = |member: &Value| -> Result<String> {
            let drive = member["drive"].as_str().context("a drive")?;
            let drive = get("drives.weft.storage", drive, None)?.context("it exists")?;
            let node = drive["spec"]["hostExport"]["node"].as_str();
            Ok(node.context("a node")?.to_owned())
        };
        let members = volume["status"]["members"].as_array().context("members")?;
        let (witnesses, data): (Vec<_>, Vec<_>) =
            members.iter().partition(|m| m["role"] == "Witness");
        Ok(Self {
            data: data.into_iter().map(node).collect::<Result<_>>()?,
            witness: node(witnesses.first().context("a witness")?)?,
        })
    }
}

/// Waits until the volume has both copies and says so.
pub fn whole(volume: &str, within: Duration) -> Result<Value> {
    wait(&format!("volume {volume} whole"), within, || {
        let object = get(VOLUMES, volume, None)?.context("it exists")?;
        let redundant = condition(&object, "Redundant").is_some_and(|c| c["status"] == "True");
        let status = &object["status"];
        let whole = redundant && status["phase"] == "Ready" && status["replicas"] == "2/2";
        Ok(if whole {
            Ok(object)
        } else {
            Err(told(&object))
        })
    })
}

/// What a volume says of itself, for messages.
pub fn told(volume: &Value) -> String {
    let redundant = condition(volume, "Redundant").cloned().unwrap_or_default();
    let ready = condition(volume, "Ready").cloned().unwrap_or_default();
    format!(
        "{} {} {} {}",
        volume["status"]["phase"],
        volume["status"]["replicas"],
        redundant["message"],
        ready["message"]
    )
}

/// The beginning of the names of a volume's pods.
pub fn short(volume: &str) -> String {
    volume.chars().take(40).collect()
}

/// Whatever the test left off is on again.
pub fn powered() -> Result<()> {
    for node in ["n1", "n2", "n3"] {
        lab::run(&["node", "start", node])?;
    }
    kubectl(&[
        "wait",
        "--for=condition=Ready",
        "nodes",
        "--all",
        "--timeout=120s",
    ])
    .map(drop)
}

/// An operator that is on the node that is lost would be lost with it.
pub fn operator_elsewhere(node: &str) -> Result<()> {
    let here = |pod: &&Value| node_of(pod).is_ok_and(|at| at == node);
    let operators = list("pods", "app.kubernetes.io/name=weft-operator")?;
    let Some(operator) = operators.iter().find(here) else {
        return Ok(());
    };
    step("the operator moves to another node", || {
        kubectl(&["cordon", node])?;
        kubectl(&["delete", "pod", "-n", install::SYSTEM, name(operator)])?;
        let rolled = control_plane::rolled_out(Duration::from_secs(120));
        kubectl(&["uncordon", node])?;
        rolled
    })
}
