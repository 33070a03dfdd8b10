//! What an Attachment's status says. Pure.
//!
//! `Admitted` is True once the engine has made durable that this host may connect, and stays so
//! while the engine moves: the right is the volume's, not an engine's.

use super::plan::Observed;
use crate::shared::conditions::{self, Truth};
use weft_crds::attachment::AttachmentPhase;
use weft_crds::volume::VolumeHost;
use weft_crds::{AttachmentStatus, Volume};

/// The host may connect.
pub const ADMITTED: &str = "Admitted";

/// Reasons that are steps on the way: no event tells of them.
pub const QUIET: &[&str] = &["Cleaning", "EngineMoving", "Revoking", "WaitingForEngine"];

/// Why the host may not connect (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    reason: &'static str,
    message: String,
}

fn set(o: &Observed, status: &mut AttachmentStatus, truth: Truth, reason: &str, message: &str) {
    let generation = o.attachment.metadata.generation;
    conditions::set(
        &mut status.conditions,
        ADMITTED,
        truth,
        reason,
        message,
        generation,
        o.now,
    );
    status.observed_generation = generation;
}

fn refuse(o: &Observed, status: &mut AttachmentStatus, reason: &str, message: &str) {
    set(o, status, Truth::False, reason, message);
}

/// Says why it waits.
pub fn say(o: &Observed, status: &mut AttachmentStatus, word: Word) {
    if word.reason == "WaitingForEngine" && status.address.is_some() {
        set(o, status, Truth::True, "EngineMoving", &word.message);
        return;
    }
    status.phase = Some(AttachmentPhase::Pending);
    refuse(o, status, word.reason, &word.message);
}

/// The engine admits the host.
pub fn admitted(o: &Observed, status: &mut AttachmentStatus, phase: AttachmentPhase) {
    let spec = &o.attachment.spec;
    let message = format!("volume {} admits node {}", spec.volume, spec.node);
    set(o, status, Truth::True, "Admitted", &message);
    status.phase = Some(phase);
}

/// There is no such Volume.
pub fn unknown_volume(o: &Observed) -> Word {
    let volume = &o.attachment.spec.volume;
    Word {
        reason: "UnknownVolume",
        message: format!("there is no Volume {volume}: make it, or delete this Attachment"),
    }
}

/// There is no such Node.
pub fn unknown_node(o: &Observed) -> Word {
    let node = &o.attachment.spec.node;
    Word {
        reason: "UnknownNode",
        message: format!(
            "there is no Node {node} (kubectl get nodes): delete this Attachment and name another"
        ),
    }
}

/// A person has said that the node is gone.
pub fn out_of_service(o: &Observed) -> Word {
    let node = &o.attachment.spec.node;
    Word {
        reason: "NodeOutOfService",
        message: format!(
            "node {node} has the taint node.kubernetes.io/out-of-service: the host is admitted when the taint is taken \
             off (kubectl taint nodes {node} node.kubernetes.io/out-of-service-), or delete this Attachment"
        ),
    }
}

/// The right of a node that is gone has been taken back, and nothing of it is left.
pub fn let_go(o: &Observed, status: &mut AttachmentStatus) {
    *status = AttachmentStatus {
        observed: status.observed.take(),
        conditions: std::mem::take(&mut status.conditions),
        ..AttachmentStatus::default()
    };
    let word = match o.node {
        None => unknown_node(o),
        Some(_) => out_of_service(o),
    };
    say(o, status, word);
}

/// The volume goes away.
pub fn volume_deleting(o: &Observed) -> Word {
    let volume = &o.attachment.spec.volume;
    Word {
        reason: "VolumeDeleting",
        message: format!("volume {volume} is being deleted: delete this Attachment"),
    }
}

/// The volume does not serve: its own words.
pub fn volume_not_ready(o: &Observed, volume: &Volume) -> Word {
    let name = &o.attachment.spec.volume;
    let status = volume.status.as_ref();
    let ready = status.and_then(|s| conditions::get(&s.conditions, "Ready"));
    let why = ready.map_or("it was made just now", |c| c.message.as_str());
    Word {
        reason: "VolumeNotReady",
        message: format!("waits for volume {name}: {why}"),
    }
}

/// The engine has not made the right durable, or moves.
pub fn waits_for_engine(o: &Observed, volume: &Volume) -> Word {
    let name = &o.attachment.spec.volume;
    let term = volume.status.as_ref().map_or(0, |s| s.term);
    Word {
        reason: "WaitingForEngine",
        message: format!(
            "waits for the engine of volume {name}, term {term}, to make the right durable"
        ),
    }
}

/// Somebody else has the volume.
pub fn in_use(o: &Observed, holder: &VolumeHost) -> Word {
    let (volume, access) = (&o.attachment.spec.volume, o.attachment.spec.access);
    Word {
        reason: "VolumeInUse",
        message: format!(
            "volume {volume} is attached to node {} by attachment {} and this one asks for {access:?}: goes on by \
             itself once that is gone (end the pod there, or kubectl delete attachments.weft.storage {})",
            holder.node, holder.attachment, holder.attachment
        ),
    }
}

/// The kernel initiator was demanded and is not there.
pub fn no_kernel_initiator(o: &Observed) -> Word {
    let node = &o.attachment.spec.node;
    Word {
        reason: "NoKernelInitiator",
        message: format!(
            "node {node} has no kernel NVMe/TCP initiator (label {} is not true): modprobe nvme-tcp there, or make \
             the Attachment (StorageClass parameter attach) with Auto or UserSpace",
            super::plan::KERNEL_INITIATOR
        ),
    }
}

/// The right is gone from the volume; an engine may still honour it.
pub fn revoking(o: &Observed, status: &mut AttachmentStatus) {
    let volume = &o.attachment.spec.volume;
    let why = o.volume.as_ref().and_then(|v| {
        let ready = conditions::get(&v.status.as_ref()?.conditions, "Ready")?;
        (ready.status != "True").then(|| format!("; it says: {}", ready.message))
    });
    status.phase = Some(AttachmentPhase::Detaching);
    let message = format!(
        "waits for the engine of volume {volume} to make durable that the host is out{}",
        why.unwrap_or_default()
    );
    refuse(o, status, "Revoking", &message);
}

/// The node still has the volume staged.
pub fn staged(o: &Observed, status: &mut AttachmentStatus) {
    let node = &o.attachment.spec.node;
    let message = format!(
        "the host is out; waits for node {node} to unstage the volume: end the pods there that use it (kubectl get \
         pods -A --field-selector spec.nodeName={node})"
    );
    status.phase = Some(AttachmentPhase::Detaching);
    refuse(o, status, "Staged", &message);
}

/// Pod and Secret are being deleted.
pub fn cleaning(o: &Observed, status: &mut AttachmentStatus) {
    status.phase = Some(AttachmentPhase::Detaching);
    let message = match &o.pod {
        Some(pod) => format!(
            "the host is out; waits for initiator pod {} to end",
            pod.name
        ),
        None => "the host is out; its Secret is deleted".to_owned(),
    };
    refuse(o, status, "Cleaning", &message);
}
