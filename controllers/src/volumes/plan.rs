//! What a pass over one Volume decides: observed objects and a clock in, a [`Plan`] out.
//!
//! Each step is derived from what is observed, never from what an earlier pass meant to do, so
//! an operator that dies after any single write leaves a state from which the next pass goes on:
//!
//! | seen | decided |
//! | --- | --- |
//! | held by `adopt` ([`held`](super::held)) | nothing; deleted, the finalizer off and no slice touched |
//! | no finalizer or no uid | claim: both in one patch |
//! | slices missing, no member | choose a drive for each, create them ([`parts`](super::parts)) |
//! | every slice allocated, no member | write them into `status.members` |
//! | member with an address, no live pod of `status.term` | raise the term; in that very pass make its Secret and pod |
//! | `spec.size` raised | see [`growth`](super::growth) |
//! | Secret older than `status.documentGeneration` | write the document |
//! | a drive evicted, `spec.replicas` changed | see [`moves`](super::moves) |
//! | engine that reports an older document | put the document to it |
//! | pod of a lower term, the present one serves | delete it |
//! | pod of a lower term whose node is gone by a person's word | forget it: no kubelet is there to end it |
//! | Secret of a term without a pod | delete it |
//! | deleted, nothing attached | pods away, then slices, then the finalizer |

use super::parts::{Missing, Part};
use super::report::{leaving, takes_documents};
use super::takeover::{Cause, Trouble, cause_for_another};
use super::{held, members, objects, parts, placement, silence, status};
use crate::shared::conditions::whole_second;
use crate::shared::{finalizers, quantity};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use uuid::Uuid;
use weft_crds::volume::{VolumeEngine, VolumeMember};
use weft_crds::{Attachment, Drive, Pool, Slice, Volume, VolumeStatus};
use weft_spec::drive::SliceStatus;
use weft_spec::engine::{EngineState, EngineStatus};
use weft_spec::ids::{Term, VolumeUid};

/// How long after its start an engine that never served is given before another term is tried:
/// else a pod that cannot run would be made again as fast as the API server answers.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(10);

/// Everything that a pass has read.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The volume.
    pub volume: Volume,
    /// Slices whose `spec.volume` names it.
    pub slices: Vec<Slice>,
    /// The drives of its members, or of its slices while there is no member.
    pub drives: Vec<Drive>,
    /// What placement needs; read only while slices are missing, or one is to grow.
    pub placement: Option<Placement>,
    /// Engine pods with the volume's uid.
    pub pods: Vec<EnginePod>,
    /// Engine Secrets with the volume's uid.
    pub secrets: Vec<EngineSecret>,
    /// Attachments whose `spec.volume` names it.
    pub attachments: Vec<Attachment>,
    /// The newest status that an engine has pushed, of whatever term.
    pub report: Option<EngineStatus>,
    /// What the drives of its members have last said of their slices.
    pub heard: Vec<SliceStatus>,
    /// TCP port of engines' targets.
    pub engine_port: u16,
    /// The clock.
    pub now: Timestamp,
}

impl Observed {
    /// The drive that holds a member.
    pub fn drive_of(&self, member: &VolumeMember) -> Option<&Drive> {
        let uid = Some(member.drive_uid.as_str());
        self.drives.iter().find(|d| d.spec.uid.as_deref() == uid)
    }
}

/// What placement looks at.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The pool named by the volume; `None` when there is no such pool.
    pub pool: Option<Pool>,
    /// Drives that the pool selects.
    pub drives: Vec<Drive>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// All slices.
    pub slices: Vec<Slice>,
}

/// An engine's pod, as far as a plan cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnginePod {
    /// Name, in the engines' namespace.
    pub name: String,
    /// From its label.
    pub term: i64,
    /// Where it is reached.
    pub ip: Option<IpAddr>,
    /// Where it runs; empty while not scheduled.
    pub node: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Why it cannot be counted on.
    pub trouble: Option<Trouble>,
    /// What the scheduler or the kubelet says while it does not run.
    pub waiting: String,
}

/// An engine's Secret, as far as a plan cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSecret {
    /// Name, that of its pod.
    pub name: String,
    /// From its label.
    pub term: i64,
    /// Generation of the document in it; 0 when it cannot be read.
    pub generation: i64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// Put on the finalizer and, if given, the identity; nothing else in this pass.
    Claim(Option<VolumeUid>),
    /// Nothing: the volume is held until its drives have said enough.
    Held,
    /// Swap the status, then do the steps.
    Pass(Box<Pass>),
    /// Everything is gone: take off the finalizer.
    Release,
}

/// A status to swap in and what follows from a swap that succeeded.
#[derive(Clone, Debug, PartialEq)]
pub struct Pass {
    /// The whole status wanted.
    pub status: VolumeStatus,
    /// In order.
    pub steps: Vec<Step>,
    /// Events, once per change.
    pub notes: Vec<Note>,
    /// When to look again although nothing was written and nobody called.
    pub again: Option<Duration>,
}

/// An event for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// PascalCase.
    pub reason: &'static str,
    /// What and next step.
    pub text: String,
}

/// One write after the swap.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Create the slice.
    CreateSlice(Box<Slice>),
    /// Write this slice's size; its own controller asks the drive.
    GrowSlice(Box<Slice>),
    /// Create Secret and pod of the term that the swap has raised.
    StartEngine {
        /// The node that has just been lost, as far as is known.
        away_from: Option<String>,
    },
    /// Bring the present document into the Secret of this name, if it is older there.
    WriteDocument(String),
    /// Put the present document to the running engine.
    PutDocument {
        /// Pod and Secret.
        name: String,
        /// Of the pod.
        ip: IpAddr,
    },
    /// Delete an engine's pod.
    DeletePod {
        /// Its name.
        name: String,
        /// How long it may serve on.
        grace: Grace,
    },
    /// Delete an engine's Secret.
    DeleteSecret(String),
    /// Delete a slice; its own controller frees it at the drive.
    DeleteSlice(String),
}

/// How long a pod that is deleted may serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grace {
    /// Until another has fenced it.
    Whole,
    /// Nobody uses the volume any more.
    Short,
    /// Its node is gone by a person's word: nobody is there to end it.
    Nothing,
}

/// Decides a pass.
pub fn plan(o: &Observed) -> Plan {
    let meta = &o.volume.metadata;
    let deleting = meta.deletion_timestamp.is_some();
    let claimed = finalizers::has(&o.volume);
    if held::is_held(&o.volume) {
        // What is at the drives is the reason for holding it, and never goes with it.
        return match deleting && claimed {
            true => Plan::Release,
            false => Plan::Held,
        };
    }
    if deleting && !claimed {
        return Plan::Pass(Box::new(Pass::of(o)));
    }
    let Some(uid) = uid(&o.volume).filter(|_| claimed) else {
        let fresh = o.volume.spec.uid.is_none().then(VolumeUid::random);
        return Plan::Claim(fresh);
    };
    let mut pass = Pass::of(o);
    if deleting {
        pass.forget_hosts_without_attachment(o);
        let in_use = !o.attachments.is_empty() || !pass.status.hosts.is_empty();
        if !in_use {
            return pass.take_down(o);
        }
    }
    pass.run(o, uid);
    if deleting {
        status::deleting_but_attached(o, &mut pass.status);
    }
    Plan::Pass(Box::new(pass))
}

/// Identity of a volume, once it has one.
pub fn uid(volume: &Volume) -> Option<VolumeUid> {
    volume.spec.uid.as_deref()?.parse().ok()
}

impl Pass {
    fn of(o: &Observed) -> Self {
        Self {
            status: o.volume.status.clone().unwrap_or_default(),
            steps: Vec::new(),
            notes: Vec::new(),
            again: None,
        }
    }

    fn run(&mut self, o: &Observed, uid: VolumeUid) {
        if self.status.members.is_empty() {
            match parts::members(o) {
                Ok(members) => self.status.members = members,
                Err(Missing::Slices(parts)) => return self.place(o, uid, &parts),
                Err(Missing::Word(word)) => return status::not_placed(o, &mut self.status, word),
            }
        }
        let obstacle = self.grow(o);
        self.follow_addresses(o);
        let unknown = self.status.members.iter().find(|m| m.address.is_empty());
        if let Some(member) = unknown.cloned() {
            status::expansion(o, &mut self.status, obstacle);
            return status::drive_without_address(o, &mut self.status, &member);
        }
        self.engine(o, uid);
        let no_place = self.replace(o, uid);
        // What may fail for the pod's sake comes last.
        self.sweep(o);
        self.documents(o);
        status::expansion(o, &mut self.status, obstacle);
        status::settle(o, &mut self.status);
        status::recomposition(o, &mut self.status, no_place);
    }

    fn place(&mut self, o: &Observed, uid: VolumeUid, parts: &[Part]) {
        let Some(placement) = &o.placement else {
            return;
        };
        match placement::choose(o, parts, placement) {
            Ok((pool, chosen)) => {
                self.create(o, uid, pool, &chosen);
                let drives: Vec<_> = chosen.iter().map(|(_, drive)| *drive).collect();
                status::placing(o, &mut self.status, &drives);
            }
            Err(word) => status::not_placed(o, &mut self.status, word),
        }
    }

    pub(super) fn create(
        &mut self,
        o: &Observed,
        uid: VolumeUid,
        pool: &Pool,
        chosen: &placement::Chosen<'_>,
    ) {
        let slice =
            |(part, drive): &(&Part, &Drive)| objects::slice(&o.volume, uid, part, drive, pool);
        let slices = chosen.iter().map(slice).map(Box::new);
        self.steps.extend(slices.map(Step::CreateSlice));
    }

    /// A drive's pod has an address of its own each time it is made.
    fn follow_addresses(&mut self, o: &Observed) {
        let mut moved = false;
        for member in &mut self.status.members {
            let address = o.drive_of(member).and_then(drive_address);
            if let Some(address) = address.filter(|address| *address != member.address) {
                moved |= !member.address.is_empty();
                member.address = address;
            }
        }
        if moved {
            self.status.document_generation += 1;
        }
    }

    fn engine(&mut self, o: &Observed, uid: VolumeUid) {
        let present = present_pod(o, &self.status);
        self.listen(o, present);
        let Some(cause) = cause_for_another(o, &self.status, present) else {
            self.again = silence::is_missed(o, &self.status).then_some(silence::AGAIN);
            return;
        };
        let served = self.status.engine.as_ref().is_some_and(|e| e.serving);
        if cause.is_failure() && !served {
            let since = self.status.engine.as_ref().and_then(|e| e.since.clone());
            let rest = since.map(|since| RETRY_AFTER - o.now.duration_since(since.0));
            if let Some(rest) = rest.filter(|rest| rest.is_positive()) {
                self.again = Some(rest.unsigned_abs());
                return;
            }
        }
        self.raise(o, uid, &cause);
    }

    /// Takes over what the engine of the present term reports; another term's word counts nothing.
    fn listen(&mut self, o: &Observed, present: Option<&EnginePod>) {
        let Some(engine) = &mut self.status.engine else {
            return;
        };
        if let Some(pod) = present {
            let address = pod.ip.map(|ip| SocketAddr::new(ip, o.engine_port));
            engine.address = address.map(|a| a.to_string()).unwrap_or_default();
            engine.node.clone_from(&pod.node);
        }
        let of_term = |r: &&EngineStatus| term(r.term) == self.status.term;
        if let Some(report) = o.report.as_ref().filter(of_term) {
            let reported = number(report.document_generation.0);
            let held = leaving(report, &self.status.hosts);
            engine.acknowledged = if held {
                reported.min(engine.acknowledged)
            } else {
                reported
            };
            engine.serving = report.state == EngineState::Serving;
            if report.size > 0 {
                self.status.size = Some(quantity::quantity(report.size));
            }
            let forms = engine.serving && !self.status.formed;
            self.status.formed |= forms;
            if forms && parts::is_mirror(&o.volume) {
                // From here on empty slices are no new volume, whatever the engine's Secret says.
                self.status.document_generation += 1;
            }
            members::follow(&mut self.status.members, report, o.now);
            self.recompose(o);
        }
    }

    /// The one place where a term is raised. The floor takes in every term that anything still
    /// bears, the drives themselves included, so that a resource restored from an old backup does not
    /// use one twice.
    fn raise(&mut self, o: &Observed, uid: VolumeUid, cause: &Cause) {
        let seen = o
            .pods
            .iter()
            .map(|p| p.term)
            .chain(o.secrets.iter().map(|s| s.term))
            .chain(o.slices.iter().filter_map(fence_term))
            .chain(o.heard.iter().map(|word| term(word.fence.term)))
            .max();
        self.status.term = self.status.term.max(seen.unwrap_or(0)).saturating_add(1);
        let documents = o.secrets.iter().map(|s| s.generation).max().unwrap_or(0);
        let reported = o
            .report
            .as_ref()
            .map_or(0, |r| number(r.document_generation.0));
        let newest = documents.max(reported).max(self.status.document_generation);
        self.status.document_generation = newest + 1;
        if parts::is_mirror(&o.volume) && self.status.lineage.is_none() {
            self.status.lineage = Some(Uuid::new_v4().to_string());
        }
        self.status.engine = Some(VolumeEngine {
            pod: objects::pod_name(&o.volume, uid, self.status.term),
            since: Some(Time(whole_second(o.now))),
            ..VolumeEngine::default()
        });
        self.steps.push(Step::StartEngine {
            away_from: cause.lost_node().map(str::to_owned),
        });
        self.notes.push(Note {
            reason: "EngineStarted",
            text: format!("term {}: {cause}", self.status.term),
        });
    }

    fn documents(&mut self, o: &Observed) {
        let starts = |step: &Step| matches!(step, Step::StartEngine { .. });
        if self.steps.iter().any(starts) {
            return;
        }
        // A restored backup: what is durable at the slices is newer than the resource.
        let present = |r: &&EngineStatus| term(r.term) == self.status.term;
        let reported = o
            .report
            .as_ref()
            .filter(present)
            .map(|r| number(r.document_generation.0));
        if let Some(ahead) = reported.filter(|r| *r > self.status.document_generation) {
            self.status.document_generation = ahead + 1;
        }
        let wanted = self.status.document_generation;
        let Some(pod) = present_pod(o, &self.status) else {
            return;
        };
        if o.secrets
            .iter()
            .any(|s| s.name == pod.name && s.generation < wanted)
        {
            self.steps.push(Step::WriteDocument(pod.name.clone()));
        }
        let behind = reported.is_some_and(|reported| reported < wanted);
        let takes = o
            .report
            .as_ref()
            .is_some_and(|r| takes_documents(r, &self.status));
        if let (Some(ip), true, true) = (pod.ip, behind, takes) {
            self.steps.push(Step::PutDocument {
                name: pod.name.clone(),
                ip,
            });
        }
    }

    /// What lower terms have left.
    fn sweep(&mut self, o: &Observed) {
        let serves = self.status.engine.as_ref().is_some_and(|e| e.serving);
        let before = |p: &&EnginePod| p.term < self.status.term;
        let done = |p: &&EnginePod| serves || p.trouble.is_some();
        let old = o.pods.iter().filter(before).filter(done);
        self.steps.extend(deletions(old, Grace::Whole));
        for secret in o.secrets.iter().filter(|s| s.term < self.status.term) {
            if o.pods.iter().all(|p| p.name != secret.name) {
                self.steps.push(Step::DeleteSecret(secret.name.clone()));
            }
        }
    }

    /// A host whose Attachment was torn out by force would hold a deleted volume for ever.
    fn forget_hosts_without_attachment(&mut self, o: &Observed) {
        let before = self.status.hosts.len();
        self.status.hosts.retain(|h| {
            o.attachments
                .iter()
                .any(|a| a.metadata.name.as_ref() == Some(&h.attachment))
        });
        if self.status.hosts.len() != before {
            self.status.document_generation += 1;
        }
    }

    fn take_down(mut self, o: &Observed) -> Plan {
        if o.pods.is_empty() && o.slices.is_empty() && o.secrets.is_empty() {
            return Plan::Release;
        }
        self.steps.extend(deletions(o.pods.iter(), Grace::Short));
        if o.pods.is_empty() {
            // Said before any slice goes: the slices' own controller frees none that an engine may use.
            self.status.engine = None;
            self.status.wires.clear();
            for secret in &o.secrets {
                self.steps.push(Step::DeleteSecret(secret.name.clone()));
            }
            for slice in o
                .slices
                .iter()
                .filter(|s| s.metadata.deletion_timestamp.is_none())
            {
                self.steps
                    .extend(slice.metadata.name.clone().map(Step::DeleteSlice));
            }
            if o.slices.is_empty() {
                self.again = Some(Duration::ZERO);
            }
        }
        status::taking_down(o, &mut self.status);
        Plan::Pass(Box::new(self))
    }
}

/// Pods that go; those of a node that is gone also when somebody has deleted them before.
fn deletions<'a>(pods: impl Iterator<Item = &'a EnginePod>, grace: Grace) -> Vec<Step> {
    let gone = |pod: &EnginePod| pod.trouble.as_ref().is_some_and(Trouble::is_gone);
    let going = pods.filter(|pod| !pod.deleting || gone(pod));
    let deletion = |pod: &EnginePod| Step::DeletePod {
        name: pod.name.clone(),
        grace: if gone(pod) { Grace::Nothing } else { grace },
    };
    going.map(deletion).collect()
}

/// The pod of the present term.
pub fn present_pod<'a>(o: &'a Observed, status: &VolumeStatus) -> Option<&'a EnginePod> {
    let name = &status.engine.as_ref()?.pod;
    o.pods.iter().find(|p| p.name == *name)
}

/// Address of a drive's target, if it is one.
pub fn drive_address(drive: &Drive) -> Option<String> {
    let address = drive.status.as_ref()?.address.clone()?;
    address
        .parse::<std::net::SocketAddr>()
        .is_ok()
        .then_some(address)
}

fn fence_term(slice: &Slice) -> Option<i64> {
    Some(slice.status.as_ref()?.fence.as_ref()?.term)
}

/// A term as the resource has it.
pub fn term(term: Term) -> i64 {
    number(term.0)
}

/// A counter as the resource has it; beyond what a resource can hold it stays at the end.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
