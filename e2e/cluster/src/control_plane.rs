//! Operator and API server, taken away and brought back.

use crate::kubectl::{kubectl, list, wait};
use crate::{install, lab};
use anyhow::Result;
use std::time::Duration;

const OPERATOR: &str = "deployment/weft-operator";

/// Ends the operator, then the API server.
pub fn stop() -> Result<()> {
    scale(0)?;
    wait("no operator", Duration::from_secs(60), || {
        let left = list("pods", "app.kubernetes.io/name=weft-operator")?.len();
        Ok(if left == 0 {
            Ok(())
        } else {
            Err(format!("{left} pods"))
        })
    })?;
    lab::run(&["control", "stop"]).map(drop)
}

/// Brings both back. The kubelets notice a returned API server in their own time, up to a minute and a
/// half later.
pub fn restore() -> Result<()> {
    lab::run(&["control", "start"])?;
    scale(1)?;
    rolled_out(Duration::from_secs(300))
}

/// Waits until the operator that is wanted runs.
pub fn rolled_out(within: Duration) -> Result<()> {
    let timeout = format!("--timeout={}s", within.as_secs());
    kubectl(&[
        "rollout",
        "status",
        OPERATOR,
        "-n",
        install::SYSTEM,
        &timeout,
    ])
    .map(drop)
}

fn scale(operators: u8) -> Result<()> {
    let replicas = format!("--replicas={operators}");
    kubectl(&["scale", OPERATOR, "-n", install::SYSTEM, &replicas]).map(drop)
}
