//! The scenario of `make demo`: drives, a volume by hand, a claim, a pod that moves between a
//! user-space-initiator node and the kernel-initiator node and finds its bytes again.

use crate::kubectl::{get, kubectl, wait, wait_gone, wait_phase};
use crate::pods::{self, Use};
use crate::progress::step;
use crate::{clean, install};
use anyhow::{Context, Result, ensure};
use std::time::Duration;

/// A node with the user-space initiator.
pub const USER_SPACE_NODE: &str = "n1";
/// The node with a Linux kernel that has nvme-tcp.
pub const KERNEL_NODE: &str = "n4";

const SECOND: Duration = Duration::from_secs(1);

/// One whole tour; leaves nothing of its own behind except, when told so, the hand-made volume.
pub fn run(keep_volume: bool) -> Result<()> {
    step(
        "three drives of 1 GiB Ready (two files, one block device)",
        install::examples,
    )?;
    step("a Volume applied by YAML reaches Ready", || {
        install::example("30-volume.yaml")?;
        wait_phase("volumes.weft.storage", "db-0", &["Ready"], 60 * SECOND).map(drop)
    })?;
    let volume = step("a claim is bound", || {
        pods::claim("tour", "256Mi", Use::FileSystem, "weft-fast")?;
        pods::bound("tour")
    })?;
    step("a pod on a user-space node mounts it", || {
        pods::start("tour", USER_SPACE_NODE, "tour", Use::FileSystem)
    })?;
    let sum = step("64 MiB of random data written and summed", write_and_sum)?;
    step("its wires are Ready", || wires_ready(&volume))?;
    crate::progress::say(&kubectl(&["get", "weft"])?);
    move_to(
        KERNEL_NODE,
        "the pod again, on the kernel-initiator node",
        &sum,
    )?;
    initiator_is(&volume, "Kernel")?;
    move_to(
        USER_SPACE_NODE,
        "the pod again, back on the user-space node",
        &sum,
    )?;
    initiator_is(&volume, "UserSpace")?;
    step("pod and claim deleted; the volume goes with them", || {
        pods::stop("tour")?;
        pods::release("tour")
    })?;
    if !keep_volume {
        step("the hand-made volume deleted; nothing is left", || {
            kubectl(&["delete", "volumes.weft.storage", "db-0", "--wait=false"])?;
            wait_gone("volumes.weft.storage", "db-0", None, 60 * SECOND)?;
            clean::nothing_left(60 * SECOND)
        })?;
    }
    Ok(())
}

fn write_and_sum() -> Result<String> {
    pods::shell(
        "tour",
        "dd if=/dev/urandom of=/data/random bs=1M count=64 2>/dev/null && sync",
    )?;
    let sum = pods::shell(
        "tour",
        "sha256sum /data/random | tee /data/sum | cut -d' ' -f1; sync",
    )?;
    ensure!(sum.len() == 64, "not a SHA-256: {sum}");
    Ok(sum)
}

fn move_to(node: &str, what: &str, sum: &str) -> Result<()> {
    step(what, || {
        pods::stop("tour")?;
        pods::start("tour", node, "tour", Use::FileSystem)
    })?;
    step("  the sum is the same", || {
        let again = pods::shell("tour", "sha256sum /data/random | cut -d' ' -f1")?;
        ensure!(again == sum, "wrote {sum}, read {again}");
        pods::shell("tour", "cd /data && sha256sum -c sum").map(drop)
    })
}

/// Waits until every wire of the volume is Ready.
pub fn wires_ready(volume: &str) -> Result<()> {
    wait(&format!("wires of {volume} Ready"), 30 * SECOND, || {
        let object = get("volumes.weft.storage", volume, None)?.context("the volume exists")?;
        let wires = object["status"]["wires"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = wires.len() == 2 && wires.iter().all(|wire| wire["state"] == "Ready");
        Ok(if ready {
            Ok(())
        } else {
            Err(object["status"]["wires"].to_string())
        })
    })
}

fn initiator_is(volume: &str, expected: &str) -> Result<()> {
    wait(
        &format!("{volume} attached by {expected}"),
        30 * SECOND,
        || {
            let seen: Vec<_> = crate::kubectl::list("attachments.weft.storage", "")?
                .into_iter()
                .filter(|a| a["spec"]["volume"] == volume)
                .map(|a| a["status"]["observed"]["initiator"].clone())
                .collect();
            Ok(if seen == [expected] {
                Ok(())
            } else {
                Err(format!("{seen:?}"))
            })
        },
    )
}
