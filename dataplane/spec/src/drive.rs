//! What a drive pod is told and what it reports.

use crate::control::ControlLink;
use crate::ids::{
    AttachGeneration, ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, VolumeUid,
};
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

/// Raised by the engine of a term at each change of the in-sync set; 0 before any.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Config(pub u64);

/// A slice and the incarnation of its drive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InSync {
    /// The slice.
    pub slice: SliceUid,
    /// Of its drive when it became in-sync.
    pub incarnation: Uuid,
}

/// A slice that is not in-sync.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OutOfSync {
    /// The slice.
    pub slice: SliceUid,
    /// First config without it; kept until it is in-sync again.
    pub since: Config,
}

/// What a slice is to its volume.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum MemberState {
    /// In-sync.
    Current,
    /// Being made equal; no vote.
    Rebuilding,
    /// Not part of the volume any more.
    Retired,
}

/// Membership of a volume as one of its slices has it (design section 5, Record).
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceRecord {
    /// Whose it is.
    pub volume: VolumeUid,
    /// A forced recovery starts a new one; slices of two are never merged.
    pub lineage: Uuid,
    /// Of the engine that wrote it.
    pub fence: FencePair,
    /// Of this in-sync set.
    pub config: Config,
    /// Slices that have every acknowledged write.
    pub in_sync: Vec<InSync>,
    /// Slices that have not.
    pub out_of_sync: Vec<OutOfSync>,
    /// Slices that vote; an odd number.
    pub voters: Vec<SliceUid>,
    /// Slices that voted before, while the change to `voters` is under way: what is decided then
    /// needs a majority of both lists. Empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_voters: Vec<SliceUid>,
    /// Acknowledged bytes were lost: hosts that were admitted with this generation or an earlier
    /// one are not told any more that their bytes are safe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<AttachGeneration>,
    /// What this slice is.
    pub state: MemberState,
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
    /// What the drive knows of the bytes on it.
    #[serde(default)]
    pub health: DriveHealth,
}

/// What a drive knows of the bytes on it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriveHealth {
    /// Changes only when acknowledged bytes may be gone; nil while nothing is served.
    pub incarnation: Uuid,
    /// Blocks that do not read as they were written, each once; the first 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub corrupt: Vec<CorruptBlock>,
    /// How far the check of everything stored has come; absent before it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubProgress>,
}

/// A block that does not read as it was written. Reading it fails until it is written again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CorruptBlock {
    /// The slice.
    pub slice: SliceUid,
    /// Number of the block of 4096 bytes in it.
    pub block: u64,
}

/// Progress of the check of everything stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrubProgress {
    /// Passes over the whole drive since the process began.
    pub passes: u64,
    /// Bytes checked in the present pass.
    pub checked: u64,
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

/// One slice with all that is recorded of it: an element of the answer to `GET /slices`. A volume is
/// built again from these alone; they are asked for, never pushed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordedSlice {
    /// As the drive reports it.
    #[serde(flatten)]
    pub status: SliceStatus,
    /// Greatest generation of the engine's document that an engine made durable here.
    pub document_generation: DocumentGeneration,
    /// Membership; absent before the first, and of a volume of one slice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<SliceRecord>,
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
    /// Of the drive: changes only when acknowledged bytes may be gone.
    #[serde(default)]
    pub incarnation: Uuid,
    /// Number of hot regions, and bytes of one.
    #[serde(default)]
    pub hot: HotCount,
}

/// How much of a slice is hot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HotCount {
    /// Hot regions of the slice.
    pub regions: u64,
    /// Bytes of a region.
    pub region_size: u64,
}

/// Opcode of *put record* (host to controller): takes a [`RecordSwap`].
pub const VENDOR_PUT_RECORD: u8 = 0xC5;
/// Opcode of *checkpoint* (host to controller): takes a [`Checkpoint`].
pub const VENDOR_CHECKPOINT: u8 = 0xC9;
/// Opcode of *regions equal* (host to controller): takes a [`RegionsEqual`].
pub const VENDOR_REGIONS_EQUAL: u8 = 0xCD;
/// Opcode of *ask* (host to controller): takes a [`Question`], which *answer* then answers.
pub const VENDOR_ASK: u8 = 0xD1;
/// Opcode of *get record* (controller to host): answers a [`RecordAnswer`].
pub const VENDOR_GET_RECORD: u8 = 0xC6;
/// Opcode of *answer* (controller to host): answers an [`Answer`] to this association's last question.
pub const VENDOR_ANSWER: u8 = 0xCA;
/// Opcode of *space* (controller to host): answers a [`Space`].
pub const VENDOR_SPACE: u8 = 0xCE;

/// Body of *put record*: compare and swap.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordSwap {
    /// The record that must be there; absent for none.
    #[serde(default)]
    pub expected: Option<SliceRecord>,
    /// The record that takes its place.
    pub record: SliceRecord,
}

/// Answer to *get record*.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RecordAnswer {
    /// Absent before the first.
    pub record: Option<SliceRecord>,
    /// Of the drive.
    pub incarnation: Uuid,
}

/// Body of *checkpoint*.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Every write of this engine up to this number is equal on all members and flushed there.
    pub number: u64,
}

/// Body of *regions equal*.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegionsEqual {
    /// Numbers of regions that are equal on all members and flushed there.
    pub regions: Vec<u32>,
}

/// What *ask* asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Question {
    /// Chunks and holes stamped with this config or a later one.
    #[serde(rename_all = "camelCase")]
    ChangesSince {
        /// The config.
        config: Config,
        /// First chunk of the slice to look at.
        from: u32,
    },
    /// Hot regions.
    #[serde(rename_all = "camelCase")]
    HotSet {
        /// First region to name.
        from: u32,
    },
    /// Hash of what is read from a range.
    #[serde(rename_all = "camelCase")]
    Hash {
        /// First byte.
        offset: u64,
        /// Bytes, at most 4 MiB.
        length: u64,
    },
}

/// What *answer* answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Question::ChangesSince`].
    #[serde(rename_all = "camelCase")]
    Changes {
        /// Chunks of the slice that were written.
        changed: Vec<u32>,
        /// Chunks of the slice that were freed.
        holes: Vec<u32>,
        /// Where to go on; absent at the end.
        next: Option<u32>,
    },
    /// To [`Question::HotSet`].
    #[serde(rename_all = "camelCase")]
    HotSet {
        /// Hot regions, in order.
        regions: Vec<HotRegion>,
        /// Where to go on; absent at the end.
        next: Option<u32>,
    },
    /// To [`Question::Hash`]: the first 16 bytes of BLAKE3, in hexadecimal.
    Hash(String),
}

/// One hot region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HotRegion {
    /// Its number.
    pub region: u32,
    /// Leaves only by *regions equal*.
    pub inherited: bool,
}

/// Answer to *space*, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Space {
    /// Of the drive.
    pub capacity: u64,
    /// In no chunk of any slice.
    pub free: u64,
    /// In chunks of this slice.
    pub allocated: u64,
}

/// Body of *put document generation*.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DocumentMark {
    /// Of the document that the engine is about to acknowledge.
    pub generation: DocumentGeneration,
}
