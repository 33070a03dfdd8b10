//! What a Volume's status says: phase and conditions from what was observed. Pure.
//!
//! `Placed` is True once every slice is allocated and a member; `Ready` is True while the engine
//! serves; `Redundant`, of a mirror, while any one drive may be lost. A message names the cause, the evidence and the next step, with times and never with
//! ages, so that nothing has to be written again while nothing happens.

mod expansion;
mod recomposition;
mod redundancy;

pub use expansion::{EXPANDED, NO_ROOM, expansion, grows_later, no_room};
pub use recomposition::{RECOMPOSED, recomposition, waits_for_drive};
pub use redundancy::REDUNDANT;

use super::placement::Refusal;
use super::plan::{self, EnginePod, Observed};
use super::takeover::Trouble;
use super::{members, parts, wires};
use crate::shared::conditions::{self, Truth};
use crate::shared::quantity;
use weft_crds::volume::{MemberState, VolumeMember};
use weft_crds::{Drive, Phase, Slice, SliceRole, Volume, VolumeStatus};
use weft_spec::engine::{EngineState, EngineStatus};

/// All slices are allocated and members.
pub const PLACED: &str = "Placed";
/// The engine serves.
pub const READY: &str = "Ready";

/// Reasons that are steps on the way: no event tells of them.
pub const QUIET: &[&str] = &[
    "Allocating",
    "Cleaning",
    "EngineGrowing",
    "Copying",
    "EngineStarting",
    "SliceGrowing",
    "SliceLeaving",
    "WaitingForEngine",
    "WaitingForSlices",
];

/// Why something is not (or is) so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    phase: Phase,
    truth: Truth,
    reason: String,
    message: String,
}

impl Word {
    fn new(phase: Phase, reason: &str, message: impl Into<String>) -> Self {
        Self {
            phase,
            truth: Truth::False,
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

fn name_of(volume: &Volume) -> &str {
    volume.metadata.name.as_deref().unwrap_or_default()
}

fn say(o: &Observed, status: &mut VolumeStatus, kind: &str, word: &Word) {
    let generation = o.volume.metadata.generation;
    conditions::set(
        &mut status.conditions,
        kind,
        word.truth,
        &word.reason,
        &word.message,
        generation,
        o.now,
    );
    status.observed_generation = generation;
}

/// Placement waits: both conditions say for what.
pub fn not_placed(o: &Observed, status: &mut VolumeStatus, word: Word) {
    say(o, status, PLACED, &word);
    say(o, status, READY, &word);
    status.phase = word.phase;
    status.replicas = Some(format!("0/{}", o.volume.spec.replicas));
}

/// Drives were chosen in this very pass.
pub fn placing(o: &Observed, status: &mut VolumeStatus, drives: &[&Drive]) {
    let names: Vec<_> = drives
        .iter()
        .filter_map(|drive| drive.metadata.name.as_deref())
        .collect();
    let word = Word::new(
        Phase::Pending,
        "Allocating",
        format!(
            "chosen and asked for a slice: drive {}",
            names.join(", drive ")
        ),
    );
    not_placed(o, status, word);
}

/// The pool does not exist.
pub fn unknown_pool(volume: &Volume) -> Word {
    let pool = &volume.spec.pool;
    Word::new(
        Phase::Pending,
        "UnknownPool",
        format!(
            "there is no Pool {pool}: make one with that name (kubectl get pools.weft.storage lists \
             those there are), or delete this Volume and name another pool"
        ),
    )
}

/// Placement found no drive.
pub fn refused(volume: &Volume, refusal: Refusal) -> Word {
    let pool = &volume.spec.pool;
    match refusal {
        Refusal::NoDrive => Word::new(
            Phase::Pending,
            "NoDrive",
            format!(
                "pool {pool} selects no Drive: label a Drive so that the pool's selector matches it \
                 (kubectl get pool {pool} -o yaml shows the selector)"
            ),
        ),
        Refusal::NoneReady(reasons) => Word::new(
            Phase::Pending,
            "NoReadyDrive",
            format!(
                "no drive of pool {pool} is Ready: {reasons}; kubectl describe drive says what each waits for"
            ),
        ),
        Refusal::TooLarge { asked, drive, room } => Word::new(
            Phase::Pending,
            "NotEnoughCapacity",
            format!(
                "asked for {}, the largest free room in pool {pool} is {} on drive {drive}: add a drive to \
                 the pool, delete volumes, raise the pool's overcommit, or ask for less",
                quantity::human(asked),
                quantity::human(room)
            ),
        ),
        Refusal::TooFewDomains { key, domains } => {
            too_few_domains(volume, key.as_deref(), &domains)
        }
    }
}

fn too_few_domains(volume: &Volume, key: Option<&str>, domains: &[String]) -> Word {
    let (pool, replicas) = (&volume.spec.pool, volume.spec.replicas);
    let slices = parts::wanted(volume).len();
    let witness = if parts::wanted(volume)
        .iter()
        .any(|p| p.role == SliceRole::Witness)
    {
        " (one of them a witness, which only votes)"
    } else {
        ""
    };
    let (what, found) = match key {
        Some(key) => (format!("different {key}"), domains.join(", ")),
        None => ("different drives".to_owned(), domains.join(", ")),
    };
    Word::new(
        Phase::Pending,
        "TooFewDomains",
        format!(
            "replicas {replicas} takes {slices} slices{witness} on {what}; pool {pool} has usable drives on {}: \
             {found}; add a drive elsewhere (spec.spreadBy of the pool says what counts), or make the volume with \
             fewer replicas",
            domains.len()
        ),
    )
}

/// Phase and reason of a drive that is not Ready, in one word.
pub fn drive_reason(drive: &Drive) -> String {
    let status = drive.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == READY));
    match ready {
        Some(condition) if condition.status != "True" => condition.reason.clone(),
        _ => status.map_or_else(|| "new".to_owned(), |s| s.phase.to_string()),
    }
}

/// The slice's name is taken by another volume's.
pub fn foreign_slice(slice: &Slice) -> Word {
    Word::new(
        Phase::Failed,
        "SliceNameTaken",
        format!(
            "slice {} belongs to a volume with another identity ({}): delete that slice if its data may \
             go, or give this volume another name",
            slice.metadata.name.as_deref().unwrap_or_default(),
            slice.spec.volume_uid
        ),
    )
}

/// The slice is being deleted before it became a member.
pub fn slice_leaving(slice: &Slice) -> Word {
    Word::new(
        Phase::Pending,
        "SliceLeaving",
        format!(
            "slice {} is being deleted; the volume is placed anew once it is gone",
            slice.metadata.name.as_deref().unwrap_or_default()
        ),
    )
}

/// The drive has not allocated the slice: the slice's own words.
pub fn slice_waits(slice: &Slice) -> Word {
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let status = slice.status.as_ref();
    let ready = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == READY));
    let Some(ready) = ready else {
        return Word::new(
            Phase::Pending,
            "Allocating",
            format!("drive {} is asked for slice {name}", slice.spec.drive),
        );
    };
    let phase = status.map_or(Phase::Pending, |s| s.phase);
    let phase = if phase == Phase::Failed {
        Phase::Failed
    } else {
        Phase::Pending
    };
    Word::new(
        phase,
        &ready.reason,
        format!("slice {name}: {}", ready.message),
    )
}

fn placed(o: &Observed, status: &mut VolumeStatus) {
    let missing = status.members.iter().find(|m| {
        o.slices
            .iter()
            .all(|s| s.metadata.name.as_ref() != Some(&m.slice))
    });
    let on: Vec<_> = status
        .members
        .iter()
        .map(|m| format!("{} on drive {}", m.slice, m.drive))
        .collect();
    let mut word = Word::new(Phase::Pending, "Placed", on.join(", "));
    word.truth = Truth::True;
    if let Some(member) = missing {
        word = Word::new(
            Phase::Pending,
            "SliceMissing",
            format!(
                "there is no Slice object {} any more; the engine goes on with the data on drive {}; \
                 restore the object from a backup, or copy the data and delete the volume",
                member.slice, member.drive
            ),
        );
    }
    say(o, status, PLACED, &word);
}

/// No engine can be told where the data is.
pub fn drive_without_address(o: &Observed, status: &mut VolumeStatus, member: &VolumeMember) {
    placed(o, status);
    let word = Word::new(
        Phase::Pending,
        "DriveUnreachable",
        format!(
            "drive {} has no address yet{}; the engine starts when it has (kubectl describe drive {})",
            member.drive,
            o.drive_of(member)
                .map(|d| format!(" ({})", drive_reason(d)))
                .unwrap_or_default(),
            member.drive
        ),
    );
    say(o, status, READY, &word);
    status.phase = Phase::Pending;
    finish(o, status);
}

/// Placed, and an engine of the present term is there or on its way.
pub fn settle(o: &Observed, status: &mut VolumeStatus) {
    placed(o, status);
    let report = o
        .report
        .as_ref()
        .filter(|r| plan::term(r.term) == status.term);
    let word = match plan::present_pod(o, status) {
        None => engine_starting(status, "its pod is being made"),
        Some(pod) => engine_word(o, status, pod, report),
    };
    say(o, status, READY, &word);
    status.phase = word.phase;
    finish(o, status);
    redundancy::settle(o, status);
}

fn finish(o: &Observed, status: &mut VolumeStatus) {
    status.wires = wires::wires(o, status);
    let serves = |m: &&VolumeMember| {
        m.state != Some(MemberState::OutOfSync) && members::is_reached(status, m)
    };
    let serving = members::full(status).filter(serves).count();
    status.replicas = Some(format!("{serving}/{}", o.volume.spec.replicas));
    let nodes: Vec<&str> = status.hosts.iter().map(|h| h.node.as_str()).collect();
    status.attached_to = (!nodes.is_empty()).then(|| nodes.join(","));
}

/// Waiting is Paused once hosts may have used the volume, Pending before.
fn waiting_phase(status: &VolumeStatus) -> Phase {
    if status.formed {
        Phase::Paused
    } else {
        Phase::Pending
    }
}

fn engine_starting(status: &VolumeStatus, detail: &str) -> Word {
    Word::new(
        waiting_phase(status),
        "EngineStarting",
        format!("the engine of term {} starts: {detail}", status.term),
    )
}

fn engine_word(
    o: &Observed,
    status: &VolumeStatus,
    pod: &EnginePod,
    report: Option<&EngineStatus>,
) -> Word {
    match &pod.trouble {
        Some(Trouble::NodeNotReady | Trouble::Silent) => return node_silent(o, pod),
        Some(trouble) => {
            return Word::new(
                waiting_phase(status),
                "EngineFailed",
                format!(
                    "pod {} in namespace weft-engines: {trouble}; another is started soon \
                     (kubectl logs -n weft-engines {} says why)",
                    pod.name, pod.name
                ),
            );
        }
        None => {}
    }
    let Some(report) = report else {
        let served = status.engine.as_ref().is_some_and(|e| e.serving);
        if served {
            // Said by the engine to the operator before this one; it says so again or something else soon.
            return serving(status, pod);
        }
        let detail = if pod.waiting.is_empty() {
            format!("pod {} on node {} has not reported yet", pod.name, pod.node)
        } else {
            format!("pod {} waits: {}", pod.name, pod.waiting)
        };
        return engine_starting(status, &detail);
    };
    match report.state {
        EngineState::Serving => serving(status, pod),
        EngineState::Starting | EngineState::Paused => Word::new(
            waiting_phase(status),
            &report.reason,
            report.message.clone(),
        ),
        EngineState::Parked => Word::new(
            waiting_phase(status),
            "Fenced",
            format!("{}; another engine is started soon", report.message),
        ),
    }
}

fn serving(status: &VolumeStatus, pod: &EnginePod) -> Word {
    let mut word = Word::new(
        Phase::Ready,
        "Serving",
        format!(
            "engine {} on node {} serves in term {}",
            pod.name, pod.node, status.term
        ),
    );
    word.truth = Truth::True;
    word
}

fn node_silent(o: &Observed, pod: &EnginePod) -> Word {
    let on_node = |d: &&Drive| d.spec.host_export.node == pod.node;
    let there = o.drives.iter().filter(on_node);
    let names: Vec<_> = there.filter_map(|d| d.metadata.name.as_deref()).collect();
    let drive = names.join(", ");
    let mut word = Word::new(
        Phase::Paused,
        "NodeNotReady",
        format!(
            "node {} does not report; engine {} and drive {drive} are both there, so no engine elsewhere \
             could serve; I/O goes on when the node does",
            pod.node, pod.name
        ),
    );
    word.truth = Truth::Unknown;
    word
}

/// Being deleted, but somebody still uses it: the engine goes on until they are gone.
pub fn deleting_but_attached(o: &Observed, status: &mut VolumeStatus) {
    let mut names: Vec<&str> = o
        .attachments
        .iter()
        .filter_map(|a| a.metadata.name.as_deref())
        .collect();
    names.sort_unstable();
    let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(" ");
    let more = names.len().saturating_sub(3);
    let more = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let word = Word::new(
        Phase::Deleting,
        "WaitingForAttachments",
        format!(
            "still attached by {shown}{more}: end the pods that use the volume, or kubectl delete \
             attachments.weft.storage {shown}"
        ),
    );
    say(o, status, READY, &word);
    status.phase = Phase::Deleting;
}

/// Being taken down: says what is still there.
pub fn taking_down(o: &Observed, status: &mut VolumeStatus) {
    let word = if let Some(pod) = o.pods.first() {
        let mut message = format!(
            "waits for pod {} in namespace weft-engines to end",
            pod.name
        );
        if matches!(pod.trouble, Some(Trouble::NodeNotReady | Trouble::Silent)) {
            message = format!(
                "{message}; its node {} does not report: start the node, or if it is off for good \
                 kubectl delete node {}",
                pod.node, pod.node
            );
        }
        Word::new(Phase::Deleting, "WaitingForEngine", message)
    } else if let Some(slice) = o.slices.first() {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        Word::new(
            Phase::Deleting,
            "WaitingForSlices",
            format!(
                "waits for drive {} to free slice {name} (kubectl describe slice {name})",
                slice.spec.drive
            ),
        )
    } else {
        Word::new(
            Phase::Deleting,
            "Cleaning",
            format!(
                "the last objects of volume {} are deleted",
                name_of(&o.volume)
            ),
        )
    };
    say(o, status, READY, &word);
    status.phase = Phase::Deleting;
    status.attached_to = None;
}
