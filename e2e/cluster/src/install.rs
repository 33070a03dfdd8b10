//! Images, chart, and the examples of `docs/examples`.

use crate::kubectl::{apply, wait_phase};
use crate::lab::{self, root};
use anyhow::{Context, Result};
use std::time::Duration;

/// Name of the chart's release and of its namespace.
const RELEASE: &str = "weft";
/// Namespace of the operator and the CSI plugins.
pub const SYSTEM: &str = "weft-system";

/// Builds the images from the static executables and loads them onto every node.
pub fn images() -> Result<()> {
    lab::run(&["images"]).map(drop)
}

/// Installs or upgrades the chart and waits until its pods are Ready.
pub fn chart() -> Result<()> {
    let chart = root().join("charts/weft");
    lab::run(&[
        "helm",
        "upgrade",
        "--install",
        RELEASE,
        &chart.to_string_lossy(),
        "--namespace",
        SYSTEM,
        "--create-namespace",
        "--set",
        "images.provisioner=weft.storage/csi-provisioner:lab",
        "--set",
        "images.attacher=weft.storage/csi-attacher:lab",
        "--set",
        "images.resizer=weft.storage/csi-resizer:lab",
        "--wait",
        "--timeout",
        "180s",
    ])
    .map(drop)
}

/// Applies one example.
pub fn example(file: &str) -> Result<()> {
    let path = root().join("docs/examples").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    apply(&text).map(drop)
}

/// Drives, pool and class of the examples, with the three drives Ready.
pub fn examples() -> Result<()> {
    for file in ["10-drives.yaml", "20-pool.yaml", "50-storageclass.yaml"] {
        example(file)?;
    }
    for drive in ["n1-d0", "n2-d0", "n3-d0"] {
        wait_phase(
            "drives.weft.storage",
            drive,
            &["Ready"],
            Duration::from_secs(90),
        )?;
    }
    Ok(())
}

/// The lab up, Weft installed, three drives Ready: what every test begins with. Harmless when it is so.
pub fn ready() -> Result<()> {
    lab::up()?;
    images()?;
    chart()?;
    examples()
}
