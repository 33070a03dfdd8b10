//! The cgroups of the nodes. A kubelet wants its root to exist in every hierarchy.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Nodes are made side by side and share a parent, whose cpuset must be there before a child's.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Makes the cgroup `path` (relative) in every v1 hierarchy of the machine.
pub(crate) fn create(path: &str) -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    for root in hierarchies("cgroup") {
        let mut dir = root.clone();
        for part in Path::new(path) {
            let parent = dir.clone();
            dir.push(part);
            if dir.exists() {
                continue;
            }
            fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
            inherit_cpuset(&parent, &dir)?;
        }
    }
    Ok(())
}

/// Removes the cgroup and all below it, also where a runtime made it unasked (v2). What still has processes stays.
pub(crate) fn remove(path: &str) {
    for root in hierarchies("cgroup")
        .into_iter()
        .chain(hierarchies("cgroup2"))
    {
        remove_tree(&root.join(path));
    }
}

/// A cpuset without processors takes no process; a child does not get its parent's by itself.
fn inherit_cpuset(parent: &Path, dir: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if let Ok(value) = fs::read_to_string(parent.join(file)) {
            fs::write(dir.join(file), value.trim())?;
        }
    }
    if dir.join("cpuset.cpus").exists() {
        fs::write(dir.join("cgroup.clone_children"), "1")?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) {
    if let Ok(entries) = fs::read_dir(dir) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                remove_tree(&entry.path());
            }
        }
        let _ = fs::remove_dir(dir);
    }
}

fn hierarchies(kind: &str) -> Vec<PathBuf> {
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
        return Vec::new();
    };
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let target = fields.nth(1)?;
            (fields.next()? == kind).then(|| PathBuf::from(target))
        })
        .collect()
}
