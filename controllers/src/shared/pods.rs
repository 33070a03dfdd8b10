//! What all of Weft's pods have in common, and what can be read off a pod.

use super::context::FabricFacts;
use super::documents::{KEY, MOUNT};
use k8s_openapi::api::core::v1::{
    Capabilities, ContainerStatus, Pod, PodSpec, SeccompProfile, SecretVolumeSource,
    SecurityContext, Toleration, Volume, VolumeMount,
};
use std::net::IpAddr;
use weft_crds::fabric::IpFamily;

/// Name of the volume with the document.
const DOCUMENT_VOLUME: &str = "document";

/// Tolerates everything: only the operator replaces Weft's pods (design section 4, *Pods*).
pub fn tolerate_everything() -> Vec<Toleration> {
    vec![Toleration {
        operator: Some("Exists".to_owned()),
        ..Toleration::default()
    }]
}

/// Command of a data path pod: supervisor, then the document from the Secret.
pub fn command(binary: &str) -> Vec<String> {
    [
        &format!("/{binary}"),
        "--supervise",
        "--document",
        &format!("{MOUNT}/{KEY}"),
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The volume that holds the document, and where it is mounted.
pub fn document_volume(secret: &str) -> (Volume, VolumeMount) {
    let volume = Volume {
        name: DOCUMENT_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let mount = VolumeMount {
        name: DOCUMENT_VOLUME.to_owned(),
        mount_path: MOUNT.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    (volume, mount)
}

/// A container that may do nothing but run, as this user.
pub fn locked_down(uid: i64) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: None,
        }),
        read_only_root_filesystem: Some(true),
        run_as_user: Some(uid),
        run_as_group: Some(uid),
        run_as_non_root: Some(uid != 0),
        seccomp_profile: Some(SeccompProfile {
            type_: "RuntimeDefault".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

/// What every pod spec starts from: no API access, no environment of Services, tolerates all.
pub fn base_spec(grace_seconds: i64) -> PodSpec {
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds),
        tolerations: Some(tolerate_everything()),
        restart_policy: Some("Always".to_owned()),
        ..PodSpec::default()
    }
}

/// The address of a pod in the family that the fabric prefers; `None` while it has none of the
/// fabric's families.
pub fn address(pod: &Pod, fabric: &FabricFacts) -> Option<IpAddr> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let addresses: Vec<IpAddr> = listed
        .chain(status.pod_ip.as_deref())
        .filter_map(|ip| ip.parse().ok())
        .collect();
    if fabric.families.is_empty() {
        return addresses.first().copied();
    }
    let of = |family: &IpFamily| {
        addresses
            .iter()
            .find(|ip| ip.is_ipv4() == (*family == IpFamily::IPv4))
    };
    fabric.families.iter().find_map(of).copied()
}

/// Succeeded or Failed: such a pod never runs again.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the kubelet restarts a container with growing pauses.
pub fn in_crash_loop(pod: &Pod) -> bool {
    containers(pod).any(|container| waiting_reason(container) == Some("CrashLoopBackOff"))
}

/// What the scheduler or the kubelet says about a pod that does not run; empty when it runs.
pub fn waiting_for(pod: &Pod) -> String {
    for container in containers(pod) {
        let waiting = container
            .state
            .as_ref()
            .and_then(|state| state.waiting.as_ref());
        if let Some(waiting) = waiting {
            let reason = waiting.reason.as_deref().unwrap_or("Waiting");
            return match &waiting.message {
                Some(message) => format!("{reason}: {message}"),
                None => reason.to_owned(),
            };
        }
    }
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    let scheduled = conditions
        .into_iter()
        .flatten()
        .find(|c| c.type_ == "PodScheduled" && c.status != "True");
    if let Some(condition) = scheduled {
        return condition
            .message
            .clone()
            .unwrap_or_else(|| "not scheduled yet".to_owned());
    }
    match pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
    {
        Some("Running") => String::new(),
        Some("Pending") | None => "the kubelet has not started it yet".to_owned(),
        Some(other) => format!("the pod has ended: {other}"),
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status
        .iter()
        .flat_map(|status| status.container_statuses.iter().flatten())
}

fn waiting_reason(container: &ContainerStatus) -> Option<&str> {
    container
        .state
        .as_ref()?
        .waiting
        .as_ref()?
        .reason
        .as_deref()
}
