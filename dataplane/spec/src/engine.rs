//! What an engine is told and what it reports.

use crate::control::ControlLink;
use crate::drive::MemberState;
use crate::ids::{
    AttachGeneration, Boot, ClusterUid, DocumentGeneration, DriveUid, SliceUid, Term, VolumeUid,
};
use crate::keys::Key;
use crate::nqn::HostNqn;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use uuid::Uuid;

/// The one document of an engine process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineDocument {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// Of this document within the volume; made durable at the slices before it is acknowledged.
    pub generation: DocumentGeneration,
    /// The cluster.
    pub cluster: ClusterUid,
    /// The volume served.
    pub volume: VolumeUid,
    /// Name of the Volume object, for messages.
    pub name: String,
    /// The pod's term; a document of another term is refused.
    pub term: Term,
    /// Bytes the volume has. May be greater in a newer document, never less.
    pub size: u64,
    /// What the volume is made of.
    pub stack: Stack,
    /// Who may connect.
    pub hosts: Vec<AllowedHost>,
    /// TCP port of the NVMe/TCP target (all addresses of the pod).
    pub port: u16,
    /// Absent without Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlLink>,
}

/// The composition, outermost layer first. Later layers add variants.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stack {
    /// One slice, used whole.
    Slice(SliceMember),
    /// The same bytes on each of several slices.
    Mirror(Mirror),
}

impl Stack {
    /// Every slice of it.
    pub fn slices(&self) -> Vec<&SliceMember> {
        match self {
            Self::Slice(member) => vec![member],
            Self::Mirror(mirror) => {
                let data = mirror.members.iter().chain(&mirror.joining);
                data.chain(&mirror.witnesses).collect()
            }
        }
    }
}

/// Several slices that have the same bytes, and who decides which of them count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Slices that hold the data. They vote.
    pub members: Vec<SliceMember>,
    /// Slices that are to hold the data and do not vote yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joining: Vec<SliceMember>,
    /// Slices that only vote, so that there is an odd number of voters.
    #[serde(default)]
    pub witnesses: Vec<SliceMember>,
    /// The volume has had a record: empty slices are never taken for a new volume.
    pub formed: bool,
    /// The lineage that the volume is formed with.
    pub lineage: Uuid,
    /// A person's word to go on from one slice, whatever is lost by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<Recovery>,
}

/// Forced recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// The slice to go on from.
    pub from: SliceUid,
    /// The lineage that begins with it.
    pub lineage: Uuid,
}

/// A slice and where it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceMember {
    /// The slice.
    pub slice: SliceUid,
    /// The drive that holds it.
    pub drive: DriveUid,
    /// Name of the Drive object, for messages.
    pub drive_name: String,
    /// NVMe/TCP address of the drive.
    pub address: SocketAddr,
    /// The slice's key of this term.
    pub key: Key,
}

/// One host that may connect.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AllowedHost {
    /// Name of the Attachment object.
    pub attachment: String,
    /// Name of the node.
    pub node: String,
    /// Of the attachment.
    pub generation: AttachGeneration,
    /// The exact host NQN, tag included. Its host identifier is [`HostNqn::host_id`].
    pub nqn: HostNqn,
    /// Writes are refused.
    #[serde(default)]
    pub read_only: bool,
}

/// What an engine reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineStatus {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// Which volume this serves.
    pub volume: VolumeUid,
    /// Of the pod.
    pub term: Term,
    /// Of the process; 0 before the fence was raised.
    pub boot: Boot,
    /// Greatest document generation accepted and durable.
    pub document_generation: DocumentGeneration,
    /// Whether it serves.
    pub state: EngineState,
    /// PascalCase reason of the state: `Serving`, `DriveUnreachable`, `DocumentOutdated`, `Fenced`, …
    pub reason: String,
    /// Evidence and next step.
    pub message: String,
    /// Bytes that hosts see; 0 before the fence was raised.
    #[serde(default)]
    pub size: u64,
    /// Each host that the accepted document admits, and what is connected.
    pub hosts: Vec<HostStatus>,
    /// The wires to the drives.
    pub drives: Vec<DriveWire>,
    /// What each slice of a mirror is by the record in force; empty for one slice, and before there
    /// is a record.
    #[serde(default)]
    pub members: Vec<MemberStatus>,
}

/// What a slice is to its volume.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberStatus {
    /// The slice.
    pub slice: SliceUid,
    /// By the record in force.
    pub state: MemberState,
}

/// Whether an engine serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum EngineState {
    /// Not yet; waits for what `message` names.
    Starting,
    /// I/O flows.
    Serving,
    /// Served before, waits now; hosts wait with it.
    Paused,
    /// Met a newer pair: does nothing more until its pod is deleted.
    Parked,
}

/// One admitted host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStatus {
    /// Name of the Attachment object.
    pub attachment: String,
    /// Of the attachment.
    pub generation: AttachGeneration,
    /// Live associations.
    pub associations: u32,
    /// Source address of the newest association's admin queue as this target sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SocketAddr>,
}

/// The wire from this engine to one drive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveWire {
    /// The slice behind it.
    pub slice: SliceUid,
    /// Name of the Drive object.
    pub drive_name: String,
    /// Whether the real handshake has passed and the connection lives.
    pub connected: bool,
    /// Address of the drive.
    pub address: SocketAddr,
    /// This end's own address (`getsockname`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// This end's address as the drive sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen_by_drive: Option<SocketAddr>,
    /// Slice identity that the drive answered (subsystem NQN in Identify).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Why it is not connected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
