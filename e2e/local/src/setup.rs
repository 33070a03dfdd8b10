//! One drive, one slice, one volume, and whoever serves and uses them.

use crate::process::{Process, Role};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{Adoption, DriveDocument, Medium, SliceGrant, SliceRequest};
use weft_spec::engine::{AllowedHost, EngineDocument, SliceMember, Stack};
use weft_spec::ids::{
    AttachGeneration, ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, Term,
    VolumeUid,
};
use weft_spec::initiator::{InitiatorDocument, VolumePath};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;
use weft_transport::initiator::ConnectOptions;

/// Port of the drive.
pub const DRIVE_PORT: u16 = 4421;
/// Port of the engine of term 1; the engine of term `n` has the port `n - 1` above it.
pub const ENGINE_PORT: u16 = 4431;
/// Bytes of the drive's file.
pub const DRIVE_SIZE: u64 = 512 << 20;
/// Bytes of the volume.
pub const VOLUME_SIZE: u64 = 256 << 20;

/// Everything that the documents of one volume have in common.
pub struct Setup {
    directory: TempDir,
    master: Key,
    cluster: ClusterUid,
    drive: DriveUid,
    slice: SliceUid,
    /// The volume.
    pub volume: VolumeUid,
}

impl Default for Setup {
    fn default() -> Self {
        Self::new()
    }
}

impl Setup {
    /// New identities, an empty directory.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            master: Key::random(),
            cluster: ClusterUid::random(),
            drive: DriveUid::random(),
            slice: SliceUid::random(),
            volume: VolumeUid::random(),
        }
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Document of the drive.
    pub fn drive_document(&self) -> DriveDocument {
        DriveDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(1),
            cluster: self.cluster,
            drive: self.drive,
            name: "d0".to_owned(),
            medium: Medium::File {
                path: self.path("drive.img"),
                size: DRIVE_SIZE,
            },
            adoption: Adoption::IfBlank,
            port: DRIVE_PORT,
            key: self.master.drive(self.drive),
            slices: vec![SliceGrant {
                slice: self.slice,
                request: SliceRequest {
                    volume: self.volume,
                    size: VOLUME_SIZE,
                    overcommit_percent: 100,
                },
            }],
            control: None,
        }
    }

    /// Document of the engine of a term.
    pub fn engine_document(&self, term: u64) -> EngineDocument {
        let term = Term(term);
        EngineDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(term.0),
            cluster: self.cluster,
            volume: self.volume,
            name: "v0".to_owned(),
            term,
            size: VOLUME_SIZE,
            stack: Stack::Slice(SliceMember {
                slice: self.slice,
                drive: self.drive,
                drive_name: "d0".to_owned(),
                address: loopback(DRIVE_PORT),
                key: self.master.drive(self.drive).slice(self.slice, term),
            }),
            hosts: vec![AllowedHost {
                attachment: "v0-n1".to_owned(),
                node: "n1".to_owned(),
                generation: AttachGeneration(1),
                nqn: self.host(),
                read_only: false,
            }],
            port: self.engine_address(term.0).port(),
            control: None,
        }
    }

    /// Document of the initiator, which begins with the engine of a term.
    pub fn initiator_document(&self, term: u64) -> InitiatorDocument {
        InitiatorDocument {
            version: DOCUMENT_VERSION,
            volume: self.volume,
            attachment: "v0-n1".to_owned(),
            host: self.host(),
            path: VolumePath {
                term: Term(term),
                address: self.engine_address(term),
            },
            mount_point: self.path("mnt"),
            header_digest: false,
            data_digest: false,
        }
    }

    /// Where the engine of a term listens.
    pub fn engine_address(&self, term: u64) -> SocketAddr {
        loopback(u16::try_from(u64::from(ENGINE_PORT) + term - 1).unwrap_or(ENGINE_PORT))
    }

    /// Where the drive listens.
    pub fn drive_address(&self) -> SocketAddr {
        loopback(DRIVE_PORT)
    }

    /// Name of the only host.
    pub fn host(&self) -> HostNqn {
        let generation = AttachGeneration(1);
        HostNqn::host(
            &self.master.attach(self.volume, generation),
            self.volume,
            "n1",
            generation,
        )
    }

    /// What an engine of a pair calls its slice and itself at the drive.
    pub fn engine_at_drive(&self, fence: FencePair) -> (String, HostNqn) {
        let key = self.master.drive(self.drive).slice(self.slice, fence.term);
        (
            weft_spec::nqn::slice(self.slice),
            HostNqn::engine(&key, self.volume, fence),
        )
    }

    /// How the host connects to the engine of a term.
    pub fn host_options(&self, term: u64) -> ConnectOptions {
        let host = self.host();
        let subsystem = weft_spec::nqn::volume(self.volume);
        ConnectOptions::new(
            self.engine_address(term),
            subsystem,
            host.expose(),
            host.host_id(),
        )
    }

    /// Starts the drive.
    pub fn start_drive(&self, role: Role) -> Process {
        let document = self.write("drive.json", &self.drive_document());
        Process::start("weft-drive", role, &document)
    }

    /// Starts the engine of a term.
    pub fn start_engine(&self, term: u64, role: Role) -> Process {
        let document = self.write(&format!("engine-{term}.json"), &self.engine_document(term));
        Process::start("weft-engine", role, &document)
    }

    /// Starts the initiator.
    pub fn start_initiator(&self, term: u64, role: Role) -> Process {
        let document = self.write("initiator.json", &self.initiator_document(term));
        Process::start("weft-initiator", role, &document)
    }

    /// Writes a document.
    ///
    /// # Panics
    /// When there is no room for temporary files.
    pub fn write(&self, name: &str, document: &impl Serialize) -> PathBuf {
        let path = self.path(name);
        write_document(&path, document);
        path
    }
}

fn write_document(path: &Path, document: &impl Serialize) {
    let text = serde_json::to_vec_pretty(document).expect("documents are plain structs");
    std::fs::write(path, text).expect("room for a document");
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
