//! Zero left: objects, slices at the drives, associations.

use crate::kubectl::{list, name, wait};
use crate::lab::on_node;
use crate::process::{node_of, pids, pod_of};
use anyhow::{Context, Result};
use serde_json::Value;
use std::time::Duration;

/// Kinds of which nothing may be left when no volume is in use.
const KINDS: &[&str] = &[
    "volumes.weft.storage",
    "slices.weft.storage",
    "attachments.weft.storage",
    "volumeattachments",
];

/// Waits until nothing of any volume is left: no object, no engine or initiator pod, no document,
/// no slice at any drive.
pub fn nothing_left(within: Duration) -> Result<()> {
    wait("nothing of any volume left", within, || {
        let left = leftovers()?;
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        })
    })
}

/// What is left of volumes, in words.
pub fn leftovers() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for kind in KINDS {
        left.extend(
            list(kind, "")?
                .iter()
                .map(|object| format!("{kind} {}", name(object))),
        );
    }
    for kind in ["pods", "secrets"] {
        for component in ["engine", "initiator"] {
            let objects = list(kind, &format!("weft.storage/component={component}"))?;
            left.extend(
                objects
                    .iter()
                    .map(|object| format!("{kind} {}", name(object))),
            );
        }
    }
    for drive in list("drives.weft.storage", "")? {
        let slices = drive["status"]["slices"].as_u64().unwrap_or(0);
        if slices != 0 {
            left.push(format!("{slices} slices on drive {}", name(&drive)));
        }
        let connections = connections(&drive)?;
        if connections != 0 {
            left.push(format!(
                "{connections} connections at drive {}",
                name(&drive)
            ));
        }
    }
    Ok(left)
}

/// Established TCP connections at a drive's NVMe/TCP port, counted in its pod's network.
fn connections(drive: &Value) -> Result<usize> {
    let (Some(pod), Some(address)) = (
        drive["status"]["pod"].as_str(),
        drive["status"]["address"].as_str(),
    ) else {
        return Ok(0);
    };
    let port: u16 = address
        .rsplit(':')
        .next()
        .unwrap_or_default()
        .parse()
        .with_context(|| format!("the address of drive {}: {address}", name(drive)))?;
    let pod = pod_of("drive", pod)?;
    let (supervisor, _) = pids(&pod)?;
    // State 01 is ESTABLISHED; the local address is the second field.
    let script = format!(
        "cat /proc/{supervisor}/net/tcp /proc/{supervisor}/net/tcp6 | awk '$2 ~ /:{port:04X}$/ && $4 == \"01\"' | wc -l"
    );
    let count = on_node(&node_of(&pod)?, &script)?;
    count
        .trim()
        .parse()
        .with_context(|| format!("a count: {count:?}"))
}
