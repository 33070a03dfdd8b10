//! What a pass over one Attachment decides: observed objects in, a [`Plan`] out.
//!
//! | seen | decided |
//! | --- | --- |
//! | no finalizer | put it on |
//! | volume, node, access or initiator do not fit | say what and for whom it waits |
//! | not in `Volume.status.hosts` | swap it in, with a generation of its own |
//! | the engine has made a document with it durable | Secret, then Admitted in the status, then the initiator's pod |
//! | another engine serves | the Secret's document and `status.address`, `status.term` follow |
//! | its node gone by a person's word | the right is taken back as by a deletion; pod and Secret away; given anew when the node is back |
//! | deleted, in `Volume.status.hosts` | swap it out |
//! | deleted, the engine has made a document without it durable | it can write no more; once unstaged, pod and Secret away, finalizer off |

use super::{objects, status};
use crate::shared::{finalizers, nodes};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use weft_crds::attachment::{Access, AttachmentPhase, Initiator, InitiatorChoice};
use weft_crds::volume::{VolumeEngine, VolumeHost};
use weft_crds::{Attachment, AttachmentStatus, Phase, Volume, VolumeStatus};
use weft_spec::ids::{Term, VolumeUid};
use weft_spec::initiator::VolumePath;
use weft_spec::keys::Key;

/// Label with which the node plugin says that the node's kernel has `nvme-tcp`.
pub const KERNEL_INITIATOR: &str = "weft.storage/nvme-tcp";

/// Everything that a pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The attachment.
    pub attachment: Attachment,
    /// The Volume of its `spec.volume`.
    pub volume: Option<Volume>,
    /// The Node of its `spec.node`.
    pub node: Option<Node>,
    /// The Secret with its uid.
    pub secret: Option<HostSecret>,
    /// The initiator's pod with its uid.
    pub pod: Option<InitiatorPod>,
    /// The operator's master key.
    pub master: Key,
    /// The clock.
    pub now: Timestamp,
}

/// The Secret of an attachment, as far as a plan cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSecret {
    /// Name.
    pub name: String,
    /// Where its document says that the volume is; `None` without a document.
    pub path: Option<VolumePath>,
}

/// The pod of a user-space initiator, as far as a plan cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitiatorPod {
    /// Name.
    pub name: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended and never runs again.
    pub ended: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Put on the finalizer; nothing else in this pass.
    Claim,
    /// In this order: swap the volume's status, the steps before, the status, the steps after.
    Pass(Box<Pass>),
    /// Everything is gone: take off the finalizer.
    Release,
}

/// The writes of one pass; each is derived anew by the pass after one that was cut short.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// Status of the *volume* to swap in.
    pub volume: Option<Box<VolumeStatus>>,
    /// The Secret is there before the status says so.
    pub before: Vec<Step>,
    /// Status of the attachment.
    pub status: AttachmentStatus,
    /// The pod comes after the status names it.
    pub after: Vec<Step>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bring name, identifier and document into the Secret.
    WriteSecret(Host),
    /// Create the initiator's pod and its budget.
    CreatePod(String),
    /// Delete the initiator's pod.
    DeletePod(String),
    /// Delete the initiator's pod without its kubelet, which is gone with the node.
    ForgetPod(String),
    /// Delete the budget that goes with the pod.
    DeleteBudget(String),
    /// Delete the Secret.
    DeleteSecret(String),
}

/// What a host is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name of Secret and pod.
    pub name: String,
    /// Of the volume.
    pub volume: VolumeUid,
    /// Of the attachment.
    pub generation: i64,
    /// Where the volume is.
    pub path: VolumePath,
    /// Whether a document for the user-space initiator is wanted.
    pub user_space: bool,
}

/// Decides a pass.
pub fn plan(o: &Observed) -> Plan {
    let claimed = finalizers::has(&o.attachment);
    if finalizers::is_deleting(&o.attachment) {
        return if claimed {
            detach(o)
        } else {
            Plan::Pass(Box::new(Pass::of(o)))
        };
    }
    if !claimed {
        return Plan::Claim;
    }
    if nodes::is_gone(o.node.as_ref()) && has_right(o) {
        return let_go(o);
    }
    let mut pass = Pass::of(o);
    if let Err(word) = pass.admit(o) {
        status::say(o, &mut pass.status, word);
    }
    Plan::Pass(Box::new(pass))
}

impl Pass {
    fn of(o: &Observed) -> Self {
        Self {
            volume: None,
            before: Vec::new(),
            status: o.attachment.status.clone().unwrap_or_default(),
            after: Vec::new(),
        }
    }

    fn admit(&mut self, o: &Observed) -> Result<(), status::Word> {
        let volume = o.volume.as_ref().ok_or_else(|| status::unknown_volume(o))?;
        let uid = volume
            .spec
            .uid
            .as_deref()
            .and_then(|u| u.parse::<VolumeUid>().ok());
        let uid = uid.ok_or_else(|| status::volume_not_ready(o, volume))?;
        let of_volume = volume.status.clone().unwrap_or_default();
        let Some(host) = own_host(o, &of_volume).cloned() else {
            return self.swap_in(o, volume, of_volume);
        };
        let initiator = self.initiator(o)?;
        self.status.generation = Some(host.generation);
        let engine = of_volume.engine.as_ref().filter(|e| admits(e, &host));
        let path = engine.and_then(|e| path(e, of_volume.term));
        let Some(path) = path else {
            return Err(status::waits_for_engine(o, volume));
        };
        let name = objects::name(&o.attachment, host.generation);
        let user_space = initiator == Initiator::UserSpace;
        self.secret(
            o,
            Host {
                name,
                volume: uid,
                generation: host.generation,
                path,
                user_space,
            },
        );
        Ok(())
    }

    /// The one place where a generation is given: in the swap that admits.
    fn swap_in(
        &mut self,
        o: &Observed,
        volume: &Volume,
        mut of_volume: VolumeStatus,
    ) -> Result<(), status::Word> {
        if volume.metadata.deletion_timestamp.is_some() {
            return Err(status::volume_deleting(o));
        }
        if o.node.is_none() {
            return Err(status::unknown_node(o));
        }
        if nodes::is_gone(o.node.as_ref()) {
            return Err(status::out_of_service(o));
        }
        self.initiator(o)?;
        if !matches!(of_volume.phase, Phase::Ready | Phase::Degraded) {
            return Err(status::volume_not_ready(o, volume));
        }
        if let Some(holder) = holder(o, &of_volume) {
            return Err(status::in_use(o, holder));
        }
        let name = o.attachment.metadata.name.clone().unwrap_or_default();
        // Left by an attachment of this name that was torn out by force: its right ends here.
        of_volume.hosts.retain(|h| h.attachment != name);
        of_volume.attach_generation += 1;
        of_volume.document_generation += 1;
        let host = VolumeHost {
            attachment: name,
            node: o.attachment.spec.node.clone(),
            generation: of_volume.attach_generation,
            read_only: o.attachment.spec.read_only,
            document: of_volume.document_generation,
        };
        self.status.generation = Some(host.generation);
        of_volume.hosts.push(host);
        self.volume = Some(Box::new(of_volume));
        status::say(o, &mut self.status, status::waits_for_engine(o, volume));
        Ok(())
    }

    /// Chosen once: a node that gains or loses `nvme-tcp` later does not change a live attachment.
    fn initiator(&mut self, o: &Observed) -> Result<Initiator, status::Word> {
        if let Some(chosen) = self.status.initiator {
            return Ok(chosen);
        }
        let labels = o.node.as_ref().and_then(|n| n.metadata.labels.as_ref());
        let kernel = labels.is_some_and(|l| l.get(KERNEL_INITIATOR).is_some_and(|v| v == "true"));
        let chosen = match (o.attachment.spec.initiator, kernel) {
            (InitiatorChoice::Kernel, false) => return Err(status::no_kernel_initiator(o)),
            (InitiatorChoice::Auto | InitiatorChoice::Kernel, true) => Initiator::Kernel,
            (InitiatorChoice::Auto, false) | (InitiatorChoice::UserSpace, _) => {
                Initiator::UserSpace
            }
        };
        self.status.initiator = Some(chosen);
        Ok(chosen)
    }

    fn secret(&mut self, o: &Observed, host: Host) {
        let wanted = host.user_space.then_some(host.path);
        let there = o
            .secret
            .as_ref()
            .is_some_and(|s| s.name == host.name && s.path == wanted);
        let staged = self.status.observed.as_ref().is_some_and(|o| o.staged);
        self.status.address = Some(host.path.address.to_string());
        self.status.term = i64::try_from(host.path.term.0).ok();
        self.status.subsystem_nqn = Some(weft_spec::nqn::volume(host.volume));
        let nqn = objects::host_nqn(&o.master, &o.attachment, &host);
        self.status.host_id = Some(nqn.host_id().to_string());
        self.status.secret_name = Some(host.name.clone());
        self.status.initiator_pod = host.user_space.then(|| host.name.clone());
        let phase = if staged {
            AttachmentPhase::Attached
        } else {
            AttachmentPhase::Admitted
        };
        status::admitted(o, &mut self.status, phase);
        if host.user_space {
            match o.pod.as_ref().filter(|pod| pod.name == host.name) {
                None => self.after.push(Step::CreatePod(host.name.clone())),
                Some(pod) if pod.ended && !pod.deleting => {
                    self.after.push(Step::DeletePod(pod.name.clone()));
                }
                Some(_) => {}
            }
        }
        if !there {
            self.before.push(Step::WriteSecret(host));
        }
    }
}

fn detach(o: &Observed) -> Plan {
    let mut pass = Pass::of(o);
    if pass.revoke(o) {
        return Plan::Pass(Box::new(pass));
    }
    let there = o.node.as_ref().filter(|node| !nodes::is_gone(Some(node)));
    let reports = there.is_some_and(nodes::is_ready);
    let staged = pass.status.observed.as_ref().is_some_and(|o| o.staged);
    if staged && reports {
        status::staged(o, &mut pass.status);
        return Plan::Pass(Box::new(pass));
    }
    pass.clean(o, reports)
}

/// Whether anything is left of a right that was given.
fn has_right(o: &Observed) -> bool {
    let status = o.attachment.status.as_ref();
    let of_volume = o.volume.as_ref().and_then(|volume| volume.status.as_ref());
    status.is_some_and(|status| status.generation.is_some())
        || of_volume.is_some_and(|of_volume| own_host(o, of_volume).is_some())
        || o.secret.is_some()
        || o.pod.is_some()
}

/// The node is gone: what it holds shall keep nobody waiting. The Attachment stays for whoever made it.
fn let_go(o: &Observed) -> Plan {
    let mut pass = Pass::of(o);
    if pass.revoke(o) {
        return Plan::Pass(Box::new(pass));
    }
    pass.sweep(o);
    if pass.after.is_empty() {
        status::let_go(o, &mut pass.status);
    } else {
        status::cleaning(o, &mut pass.status);
    }
    Plan::Pass(Box::new(pass))
}

impl Pass {
    /// Takes the right back; false once no engine can honour it any more.
    fn revoke(&mut self, o: &Observed) -> bool {
        let Some(volume) = &o.volume else {
            return false;
        };
        let mut of_volume = volume.status.clone().unwrap_or_default();
        if own_host(o, &of_volume).is_some() {
            let name = o.attachment.metadata.name.as_deref();
            of_volume
                .hosts
                .retain(|h| Some(h.attachment.as_str()) != name);
            of_volume.document_generation += 1;
            self.volume = Some(Box::new(of_volume));
            status::revoking(o, &mut self.status);
            return true;
        }
        let named = self.status.generation.is_some() || o.secret.is_some();
        if named && !revoked(&of_volume) {
            status::revoking(o, &mut self.status);
            return true;
        }
        false
    }

    /// What a right that was taken back has left.
    fn sweep(&mut self, o: &Observed) {
        let gone = nodes::is_gone(o.node.as_ref());
        // The budget goes first: a pass cut short in between finds the pod and does both again.
        if let Some(pod) = o.pod.as_ref().filter(|pod| gone || !pod.deleting) {
            self.after.push(Step::DeleteBudget(pod.name.clone()));
            self.after.push(match gone {
                true => Step::ForgetPod(pod.name.clone()),
                false => Step::DeletePod(pod.name.clone()),
            });
        }
        if let Some(secret) = &o.secret {
            self.after.push(Step::DeleteSecret(secret.name.clone()));
        }
    }

    fn clean(mut self, o: &Observed, node_reports: bool) -> Plan {
        self.sweep(o);
        // A pod on a node that does not report is forgotten by the API server when the node is; what
        // it runs there can no longer write.
        let waits = o.pod.is_some() && node_reports;
        if self.after.is_empty() && !waits {
            return Plan::Release;
        }
        status::cleaning(o, &mut self.status);
        Plan::Pass(Box::new(self))
    }
}

/// The entry of this very attachment. One for another node under the same name is another's.
fn own_host<'a>(o: &Observed, volume: &'a VolumeStatus) -> Option<&'a VolumeHost> {
    let name = o.attachment.metadata.name.as_deref()?;
    let known = o.attachment.status.as_ref().and_then(|s| s.generation);
    volume.hosts.iter().find(|h| {
        h.attachment == name
            && h.node == o.attachment.spec.node
            && known.is_none_or(|generation| generation == h.generation)
    })
}

/// Who keeps this attachment out.
fn holder<'a>(o: &Observed, volume: &'a VolumeStatus) -> Option<&'a VolumeHost> {
    let name = o.attachment.metadata.name.as_deref();
    volume
        .hosts
        .iter()
        .filter(|h| Some(h.attachment.as_str()) != name)
        .find(|h| match o.attachment.spec.access {
            Access::ReadWriteOnce => true,
            Access::ReadOnlyMany => !h.read_only,
        })
}

/// Whether the engine has made a document durable that names the host.
fn admits(engine: &VolumeEngine, host: &VolumeHost) -> bool {
    engine.serving && engine.acknowledged >= host.document
}

/// Whether every engine that could still admit the host is fenced: the present one has made the
/// newest document durable at the slices, which it can only after its fence was raised there; or
/// there is none and never will be.
fn revoked(volume: &VolumeStatus) -> bool {
    volume
        .engine
        .as_ref()
        .is_none_or(|e| e.acknowledged >= volume.document_generation)
}

fn path(engine: &VolumeEngine, term: i64) -> Option<VolumePath> {
    Some(VolumePath {
        term: Term(u64::try_from(term).ok()?),
        address: engine.address.parse().ok()?,
    })
}
