//! What a user-space initiator is told and what it reports.
//!
//! It presents one volume as the file `volume` in a FUSE directory. Beside it lie
//! `status` (read: an [`InitiatorStatus`] as JSON) and `path` (write: a [`VolumePath`] as
//! JSON, when the volume moved): the node plugin's whole conversation with it, on the node,
//! without a network listener.

use crate::ids::{Term, VolumeUid};
use crate::nqn::HostNqn;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;

/// The one document of a user-space initiator process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitiatorDocument {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// The volume.
    pub volume: VolumeUid,
    /// Name of the Attachment object, for messages.
    pub attachment: String,
    /// How this host calls itself.
    pub host: HostNqn,
    /// Where the volume is.
    pub path: VolumePath,
    /// Directory to mount the FUSE file system on; made if it does not exist.
    pub mount_point: PathBuf,
    /// CRC32C on headers (NVMe/TCP section 3.3.1.1).
    #[serde(default)]
    pub header_digest: bool,
    /// CRC32C on data.
    #[serde(default)]
    pub data_digest: bool,
}

/// Where a volume is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumePath {
    /// Term of the engine there; a path of a lower term than the present one is refused.
    pub term: Term,
    /// NVMe/TCP address of the engine.
    pub address: SocketAddr,
}

/// What the initiator reports in its `status` file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InitiatorStatus {
    /// [`crate::DOCUMENT_VERSION`].
    pub version: u32,
    /// The volume.
    pub volume: VolumeUid,
    /// Whether an association lives.
    pub connected: bool,
    /// Where to.
    pub path: VolumePath,
    /// This end's own address (`getsockname` of the admin queue).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// Subsystem NQN that the target answered in Identify.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Bytes of the volume; 0 before the first association.
    pub size: u64,
    /// What it waits for, when not connected.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}
