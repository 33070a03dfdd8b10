//! Pods that write, sum and compare.

use crate::kubectl::{apply, get, kubectl, wait, wait_gone};
use anyhow::{Context, Result};
use std::time::Duration;

/// Longest a pod with a volume may take to run, kernel node included.
pub const POD_START: Duration = Duration::from_secs(180);
/// Longest a pod with a volume may take to go.
pub const POD_END: Duration = Duration::from_secs(120);

/// How a pod uses its claim.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Mounted at `/data`.
    FileSystem,
    /// As `/dev/weft`.
    Block,
}

/// A claim of the example class, with another size or file system.
pub fn claim(name: &str, size: &str, mode: Use, class: &str) -> Result<()> {
    let mode = if mode == Use::Block {
        "Block"
    } else {
        "Filesystem"
    };
    apply(&format!(
        r#"{{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{{"name":"{name}"}},
            "spec":{{"storageClassName":"{class}","volumeMode":"{mode}","accessModes":["ReadWriteOnce"],
            "resources":{{"requests":{{"storage":"{size}"}}}}}}}}"#
    ))?;
    Ok(())
}

/// A pod that waits on a node with a claim; returns once it runs.
pub fn start(name: &str, node: &str, claim: &str, mode: Use) -> Result<()> {
    apply(&manifest(name, node, claim, mode))?;
    running(name)
}

/// The pod's manifest.
pub fn manifest(name: &str, node: &str, claim: &str, mode: Use) -> String {
    let place = match mode {
        Use::FileSystem => r#""volumeMounts":[{"name":"v","mountPath":"/data"}]"#,
        Use::Block => r#""volumeDevices":[{"name":"v","devicePath":"/dev/weft"}]"#,
    };
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{
            "nodeSelector":{{"kubernetes.io/hostname":"{node}"}},"terminationGracePeriodSeconds":1,
            "containers":[{{"name":"c","image":"busybox:1","imagePullPolicy":"IfNotPresent",
              "command":["sh","-c","trap 'exit 0' TERM; sleep 2147483647 & wait"],{place}}}],
            "volumes":[{{"name":"v","persistentVolumeClaim":{{"claimName":"{claim}"}}}}]}}}}"#
    )
}

/// Waits until the pod is Ready.
pub fn running(name: &str) -> Result<()> {
    wait(&format!("pod {name} Ready"), POD_START, || {
        let Some(pod) = get("pod", name, Some("default"))? else {
            return Ok(Err("it does not exist".to_owned()));
        };
        let ready = crate::kubectl::condition(&pod, "Ready").is_some_and(|c| c["status"] == "True");
        Ok(if ready {
            Ok(())
        } else {
            Err(pod["status"].to_string())
        })
    })
    .with_context(|| events(name))
}

/// What happened to a pod, for a message.
fn events(pod: &str) -> String {
    let selector = format!("involvedObject.name={pod}");
    kubectl(&[
        "get",
        "events",
        "--field-selector",
        &selector,
        "--sort-by=.lastTimestamp",
    ])
    .unwrap_or_default()
}

/// Runs a shell script in the pod.
pub fn shell(pod: &str, script: &str) -> Result<String> {
    kubectl(&["exec", pod, "--", "sh", "-c", script]).map(|text| text.trim().to_owned())
}

/// Deletes the pod and waits until it is gone.
pub fn stop(pod: &str) -> Result<()> {
    kubectl(&["delete", "pod", pod, "--wait=false", "--ignore-not-found"])?;
    wait_gone("pod", pod, Some("default"), POD_END)
}

/// Deletes the claim and waits until it and its volume are gone.
pub fn release(claim: &str) -> Result<()> {
    let Some(object) = get("pvc", claim, Some("default"))? else {
        return Ok(());
    };
    let volume = object["spec"]["volumeName"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    kubectl(&["delete", "pvc", claim, "--wait=false"])?;
    wait_gone("pvc", claim, Some("default"), POD_END)?;
    if !volume.is_empty() {
        wait_gone("pv", &volume, None, POD_END)?;
        wait_gone("volumes.weft.storage", &volume, None, POD_END)?;
    }
    Ok(())
}

/// Waits until a claim is bound; the name of its Weft volume.
pub fn bound(claim: &str) -> Result<String> {
    let bound = wait(&format!("claim {claim} Bound"), POD_START, || {
        let Some(object) = get("pvc", claim, Some("default"))? else {
            return Ok(Err("it does not exist".to_owned()));
        };
        Ok(match object["status"]["phase"].as_str() {
            Some("Bound") => Ok(object),
            other => Err(format!("phase {other:?}")),
        })
    })
    .with_context(|| events(claim))?;
    Ok(bound["spec"]["volumeName"]
        .as_str()
        .context("a bound claim names its volume")?
        .to_owned())
}
