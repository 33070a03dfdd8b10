//! Zero left: objects, slices at the drives, associations.

use crate::kubectl::{list, name, wait};
use anyhow::Result;
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
    }
    Ok(left)
}
