//! What a Weft pod is told and what it reports: plain, versioned serde structs.
//!
//! Each data path process gets **one document** (JSON): a drive a [`drive::DriveDocument`],
//! an engine an [`engine::EngineDocument`], a user-space initiator an
//! [`initiator::InitiatorDocument`]. The same document works with Kubernetes (from a Secret)
//! and without (from a file named on the command line). Each process answers with one
//! status. Nothing here does I/O, and nothing here knows Kubernetes.
//!
//! | file | what |
//! | --- | --- |
//! | [`ids`] | the UUIDs, the fence pair, document generations |
//! | [`nqn`] | every NVMe qualified name, built, tagged and parsed |
//! | [`keys`] | keys and the tags made with them |
//! | [`control`] | how pod and operator reach each other |
//! | [`drive`], [`engine`], [`initiator`] | the documents and statuses |

pub mod control;
pub mod drive;
pub mod engine;
pub mod ids;
pub mod initiator;
pub mod keys;
pub mod nqn;

/// Version of every document and status here; a process refuses any other.
pub const DOCUMENT_VERSION: u32 = 1;
