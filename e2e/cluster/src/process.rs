//! Processes of a pod on its node, found by their executable and killed by pid.

use crate::kubectl::{list, name};
use crate::lab::on_node;
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The two processes of a data path pod.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// PID 1 of the container.
    Supervisor,
    /// Its one child.
    Child,
}

/// The pod of a component (`engine`, `drive`, `initiator`) whose name begins so, that is not being deleted.
pub fn pod_of(component: &str, prefix: &str) -> Result<Value> {
    list("pods", &format!("weft.storage/component={component}"))?
        .into_iter()
        .find(|pod| name(pod).starts_with(prefix) && pod["metadata"]["deletionTimestamp"].is_null())
        .with_context(|| format!("no {component} pod whose name begins with {prefix}"))
}

/// The node that a pod runs on.
pub fn node_of(pod: &Value) -> Result<String> {
    Ok(pod["spec"]["nodeName"]
        .as_str()
        .context("the pod has no node yet")?
        .to_owned())
}

/// Script that prints `pid parent` of each process of a container id.
fn finder(container: &str) -> String {
    format!(
        "for p in /proc/[0-9]*; do grep -q {container} $p/cgroup 2>/dev/null || continue; \
         awk '/^Pid:/{{p=$2}} /^PPid:/{{q=$2}} END{{print p, q}}' $p/status 2>/dev/null; done"
    )
}

/// Pids (as the node sees them) of supervisor and child in the pod's first container.
pub fn pids(pod: &Value) -> Result<(u32, u32)> {
    let id = pod["status"]["containerStatuses"][0]["containerID"]
        .as_str()
        .unwrap_or_default();
    let id = id
        .rsplit('/')
        .next()
        .filter(|id| !id.is_empty())
        .context("the container has no id yet")?;
    pids_of_container(&node_of(pod)?, id)
}

/// The same when the container's id and node are known: needs no API server.
pub fn pids_of_container(node: &str, container: &str) -> Result<(u32, u32)> {
    let seen = on_node(node, &finder(container))?;
    let pairs: Vec<(u32, u32)> = seen
        .lines()
        .filter_map(|line| {
            let (pid, parent) = line.split_once(' ')?;
            Some((pid.parse().ok()?, parent.parse().ok()?))
        })
        .collect();
    let child = pairs
        .iter()
        .find(|(_, parent)| pairs.iter().any(|(pid, _)| pid == parent));
    match child {
        Some((child, supervisor)) => Ok((*supervisor, *child)),
        None => {
            bail!("no supervisor with a child in container {container} on {node}; seen: {seen:?}")
        }
    }
}

/// `kill -9` of one of the pod's processes.
pub fn kill9(pod: &Value, which: Which) -> Result<u32> {
    let (supervisor, child) = pids(pod)?;
    let pid = if which == Which::Supervisor {
        supervisor
    } else {
        child
    };
    on_node(&node_of(pod)?, &format!("kill -9 {pid}"))?;
    Ok(pid)
}
