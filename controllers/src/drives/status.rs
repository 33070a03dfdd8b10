//! Conditions and phase of a Drive, from what was observed and decided.

use super::plan::{Observed, Plan, Refusal, Step, out_of_service};
use crate::shared::conditions::{self, Truth};
use crate::shared::errors::Error;
use crate::shared::{finalizers, nodes, pods, quantity};
use kube::ResourceExt;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use weft_crds::{Phase, drive::DriveStatus};
use weft_spec::drive::DriveState;

/// The drive serves.
pub const READY: &str = "Ready";
/// The medium carries this drive.
pub const ADOPTED: &str = "Adopted";
/// Only while a Drive is being deleted: what it waits for.
pub const DELETABLE: &str = "Deletable";

/// Names of volumes in a message; the rest is counted.
const NAMED: usize = 5;

struct Word {
    phase: Phase,
    truth: Truth,
    reason: String,
    message: String,
}

fn word(phase: Phase, reason: &str, message: impl Into<String>) -> Word {
    Word {
        phase,
        truth: Truth::False,
        reason: reason.to_owned(),
        message: message.into(),
    }
}

/// The whole status. `address` is that of the NVMe/TCP target, when the pod has one.
pub fn status(o: &Observed, plan: &Plan, address: Option<SocketAddr>) -> DriveStatus {
    let mut status = o.drive.status.clone().unwrap_or_default();
    let generation = o.drive.metadata.generation;
    let ready = ready(o, plan, &status);
    let mut set = |kind: &str, truth, reason: &str, message: &str| {
        conditions::set(
            &mut status.conditions,
            kind,
            truth,
            reason,
            message,
            generation,
            o.now,
        );
    };
    set(READY, ready.truth, &ready.reason, &ready.message);
    if let Some((truth, reason, message)) = adopted(o) {
        set(ADOPTED, truth, &reason, &message);
    }
    if finalizers::is_deleting(&o.drive) {
        let (truth, reason, message) = deletable(o);
        set(DELETABLE, truth, reason, &message);
    }
    status.phase = ready.phase;
    status.observed_generation = generation;
    status.pod = o.pod.as_ref().map(ResourceExt::name_any);
    if let Some(address) = address {
        status.address = Some(address.to_string());
    }
    if let Some(generation) = written(o, plan) {
        status.document_generation = status.document_generation.max(generation);
    }
    if let Some(report) = &o.report
        && report.state == DriveState::Serving
    {
        status.size = Some(quantity::rounded(report.capacity));
        status.free = Some(quantity::rounded(report.free));
        let promised = report.slices.iter().map(|slice| slice.size).sum();
        status.promised = Some(quantity::quantity(promised));
        status.slices = i64::try_from(report.slices.len()).ok();
    }
    status
}

/// The status after a step that failed: what was there before, and why it does not go on. A drive
/// that serves goes on serving, so its condition stays; one that says itself why it does not serve
/// knows more than the step that met its refusal.
pub fn failed(o: &Observed, error: &Error) -> DriveStatus {
    let mut status = o.drive.status.clone().unwrap_or_default();
    let state = o.report.as_ref().map(|report| report.state);
    let deleting = finalizers::is_deleting(&o.drive);
    if state == Some(DriveState::Serving) && !deleting {
        return status;
    }
    let own = o
        .report
        .as_ref()
        .filter(|report| report.state == DriveState::Failed && !deleting);
    let (reason, message) = match own {
        Some(report) => (report.reason.as_str(), report.message.clone()),
        None => (error.category(), format!("{error}; it is tried again")),
    };
    let generation = o.drive.metadata.generation;
    conditions::set(
        &mut status.conditions,
        READY,
        Truth::False,
        reason,
        &message,
        generation,
        o.now,
    );
    if own.is_some() {
        status.phase = Phase::Failed;
    }
    status.observed_generation = generation;
    status
}

fn ready(o: &Observed, plan: &Plan, before: &DriveStatus) -> Word {
    if finalizers::is_deleting(&o.drive) {
        return word(Phase::Deleting, "Deleting", deletable(o).2);
    }
    if let Plan::Refuse(Refusal { reason, message }) = plan {
        return word(Phase::Failed, reason, message.clone());
    }
    // A drive that has served before has consumers, which wait with it.
    let waiting = if before.size.is_some() {
        Phase::Paused
    } else {
        Phase::Pending
    };
    let node = &o.drive.spec.host_export.node;
    let Some(pod) = &o.pod else {
        return word(waiting, "PodMissing", "the drive's pod is being made");
    };
    match &o.node {
        None => {
            let message =
                format!("there is no Node {node} any more; the drive goes on when it joins again");
            return word(waiting, "NodeNotFound", message);
        }
        Some(found) if nodes::is_out_of_service(found) => {
            return word(waiting, "NodeOutOfService", out_of_service(node));
        }
        Some(found) if !nodes::is_ready(found) => {
            let message = format!(
                "Node {node} does not report; the drive goes on when it does: see kubectl describe node {node}"
            );
            return word(waiting, "NodeNotReady", message);
        }
        Some(_) => {}
    }
    if finalizers::is_deleting(pod) {
        return word(
            waiting,
            "PodGoing",
            format!(
                "pod {} goes; it is made anew when it is gone",
                pod.name_any()
            ),
        );
    }
    let held_up = pods::waiting_for(pod);
    if !held_up.is_empty() {
        let reason = if pods::in_crash_loop(pod) {
            "PodCrashing"
        } else {
            "PodPending"
        };
        return word(
            waiting,
            reason,
            format!("pod {} does not run: {held_up}", pod.name_any()),
        );
    }
    let Some(report) = &o.report else {
        let message = format!("pod {} runs, but has not said anything yet", pod.name_any());
        return word(waiting, "NoReport", message);
    };
    match report.state {
        DriveState::Serving => Word {
            phase: Phase::Ready,
            truth: Truth::True,
            reason: report.reason.clone(),
            message: report.message.clone(),
        },
        DriveState::Starting => word(waiting, &report.reason, report.message.clone()),
        DriveState::Failed => word(Phase::Failed, &report.reason, report.message.clone()),
    }
}

/// Known only when the drive has read its medium; before that the last word stays.
fn adopted(o: &Observed) -> Option<(Truth, String, String)> {
    let report = o.report.as_ref()?;
    match report.state {
        DriveState::Serving => {
            let uid = report.drive;
            Some((
                Truth::True,
                "Adopted".to_owned(),
                format!("the medium carries drive {uid}"),
            ))
        }
        DriveState::Failed => Some((Truth::False, report.reason.clone(), report.message.clone())),
        DriveState::Starting => None,
    }
}

fn deletable(o: &Observed) -> (Truth, &'static str, String) {
    let volumes: BTreeSet<&str> = o
        .slices
        .iter()
        .map(|slice| slice.spec.volume.as_str())
        .collect();
    if !volumes.is_empty() {
        let named: Vec<&str> = volumes.iter().copied().take(NAMED).collect();
        let more = match volumes.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "slices of these volumes are on the drive: {}{more}; it goes when they are deleted",
            named.join(", ")
        );
        return (Truth::False, "HasSlices", message);
    }
    match &o.pod {
        Some(pod) => {
            let node = &o.drive.spec.host_export.node;
            let message = format!("waits for pod {} on node {node} to end", pod.name_any());
            (Truth::False, "PodGoing", message)
        }
        None => (
            Truth::True,
            "Deletable",
            "nothing is left; the data stays on the medium".to_owned(),
        ),
    }
}

/// Generation of the newest document that is in the Secret after the plan.
fn written(o: &Observed, plan: &Plan) -> Option<i64> {
    let planned = match plan {
        Plan::Steps(steps) => steps.iter().find_map(|step| match step {
            Step::MakeSecret(generation) => Some(*generation),
            Step::WriteSecret(document) => Some(document.generation),
            _ => None,
        }),
        _ => None,
    };
    let generation = planned.or_else(|| o.document.as_ref().map(|document| document.generation))?;
    i64::try_from(generation.0).ok()
}
