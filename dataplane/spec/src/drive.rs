//! What a drive pod is told and what it reports.

use crate::control::ControlLink;
use crate::ids::{ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, VolumeUid};
use crate::keys::Key;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use uuid::Uuid;

/// The one document of a drive process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveDocument {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// Of this document; the drive keeps the greatest it accepted in its superblock.
    pub generation: DocumentGeneration,
    /// The cluster the drive belongs to.
    pub cluster: ClusterUid,
    /// The drive's identity.
    pub drive: DriveUid,
    /// Name of the Drive object, for messages.
    pub name: String,
    /// Where the bytes are.
    pub medium: Medium,
    /// What to do with a medium that does not carry this drive yet.
    pub adoption: Adoption,
    /// TCP port of the NVMe/TCP target (all addresses of the pod).
    pub port: u16,
    /// Key that engines' tags are checked with.
    pub key: Key,
    /// Slices that must exist; only for a drive without Kubernetes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slices: Vec<SliceGrant>,
    /// Absent without Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<ControlLink>,
}

/// Where a drive's bytes are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Medium {
    /// A preallocated file; made with `size` bytes when it does not exist.
    File {
        /// Absolute path as the process sees it.
        path: PathBuf,
        /// Bytes.
        size: u64,
    },
    /// A block device, used whole.
    Device {
        /// Absolute path as the process sees it.
        path: PathBuf,
    },
}

/// What may be done with a medium that does not carry this drive yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Adoption {
    /// Nothing: only a medium that already carries this drive is served.
    #[default]
    Never,
    /// Format it if its first and last MiB are all zeros.
    IfBlank,
    /// Take over a Weft drive of this cluster under its own identity.
    Adopt,
}

/// One slice that must exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceGrant {
    /// The slice.
    pub slice: SliceUid,
    /// Whose it is and how large.
    #[serde(flatten)]
    pub request: SliceRequest,
}

/// Body of `PUT /slices/<slice uid>`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceRequest {
    /// The volume that the slice belongs to.
    pub volume: VolumeUid,
    /// Bytes, a multiple of 4096.
    pub size: u64,
    /// Greatest sum of slice sizes as a percentage of the drive's capacity (thin provisioning).
    #[serde(default = "default_overcommit")]
    pub overcommit_percent: u32,
}

const fn default_overcommit() -> u32 {
    100
}

/// What a drive reports.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveStatus {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// Which drive this is.
    pub drive: DriveUid,
    /// Greatest document generation accepted and durable.
    pub document_generation: DocumentGeneration,
    /// Generation of the document that the state is about; durable only if it is also
    /// `document_generation`. A drive that refused its medium under this document waits for a newer.
    pub document_tried: DocumentGeneration,
    /// Whether it serves.
    pub state: DriveState,
    /// PascalCase reason of the state: `Serving`, `WaitingForHold`, `ForeignData`, `IdentityMismatch`, …
    pub reason: String,
    /// What was found, on which medium, and what to do.
    pub message: String,
    /// Bytes that slices can use.
    pub capacity: u64,
    /// Bytes not allocated to any chunk.
    pub free: u64,
    /// Every slice.
    pub slices: Vec<SliceStatus>,
}

/// Whether a drive serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum DriveState {
    /// Not yet, it goes on by itself.
    Starting,
    /// Exports its slices.
    Serving,
    /// Serves nothing until a person acts.
    Failed,
}

/// One slice as its drive sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceStatus {
    /// The slice.
    pub slice: SliceUid,
    /// Whose it is.
    pub volume: VolumeUid,
    /// Bytes as seen by the engine.
    pub size: u64,
    /// Bytes of chunks that it holds.
    pub allocated: u64,
    /// Greatest fence pair heard.
    pub fence: FencePair,
    /// Live associations that may do I/O.
    pub connections: u32,
}

/// Opcode of the vendor specific admin command *inspect* (controller to host): answers a
/// [`SliceInspection`] as JSON, padded with zeros.
pub const VENDOR_INSPECT: u8 = 0xC2;

/// Opcode of the vendor specific admin command *put document generation* (host to controller):
/// takes a [`DocumentMark`] as JSON, durable before it is answered.
pub const VENDOR_PUT_GENERATION: u8 = 0xC1;

/// Answer to *inspect*: what a slice says about itself, and how the drive sees the asking host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceInspection {
    /// Whose it is.
    pub volume: VolumeUid,
    /// The slice.
    pub slice: SliceUid,
    /// Bytes.
    pub size: u64,
    /// Greatest fence pair heard.
    pub fence: FencePair,
    /// Host identifier registered for that pair; nil while none was heard.
    pub host_id: Uuid,
    /// Greatest generation of the engine's document that an engine made durable here.
    pub document_generation: DocumentGeneration,
    /// Source address of the asking association's admin queue as the drive sees it.
    pub peer: SocketAddr,
}

/// Body of *put document generation*.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentMark {
    /// Of the document that the engine is about to acknowledge.
    pub generation: DocumentGeneration,
}
