//! One volume of one slice, or of several and witnesses, each on a drive of its own, and whoever
//! serves and uses them.

use crate::nodes::{self, Node};
use crate::process::{Process, Role};
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uuid::Uuid;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{Adoption, DriveDocument, Medium, SliceGrant, SliceRequest};
use weft_spec::engine::{AllowedHost, EngineDocument, Mirror, SliceMember, Stack};
use weft_spec::ids::{
    AttachGeneration, ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, Term,
    VolumeUid,
};
use weft_spec::initiator::{InitiatorDocument, VolumePath};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;
use weft_transport::initiator::ConnectOptions;

/// Port of the first drive; the others' follow.
pub const DRIVE_PORT: u16 = 4421;
/// Port of the engine of term 1; the engine of term `n` has the port `n - 1` above it.
pub const ENGINE_PORT: u16 = 4431;
/// Port of the relay to the first drive; the others' follow.
const RELAY_PORT: u16 = 4441;
/// Bytes of the drive's file.
pub const DRIVE_SIZE: u64 = 512 << 20;
/// Bytes of a witness.
const WITNESS_SIZE: u64 = 64 << 10;
/// Bytes of the volume.
pub const VOLUME_SIZE: u64 = 256 << 20;

/// Everything that the documents of one volume have in common.
pub struct Setup {
    directory: TempDir,
    master: Key,
    cluster: ClusterUid,
    places: Vec<Place>,
    nodes: Option<Nodes>,
    is_relayed: bool,
    lineage: Uuid,
    /// The volume.
    pub volume: VolumeUid,
}

/// A drive and the slice on it.
struct Place {
    drive: DriveUid,
    slice: SliceUid,
    /// Bytes of the slice.
    size: u64,
    /// Where the drive's bytes are, if not in the test's own directory.
    medium: Option<PathBuf>,
}

impl Place {
    fn new(size: u64) -> Self {
        Self {
            drive: DriveUid::random(),
            slice: SliceUid::random(),
            size,
            medium: None,
        }
    }

    fn is_witness(&self) -> bool {
        self.size == WITNESS_SIZE
    }
}

/// A node for each drive, and one for the engine of each term.
struct Nodes {
    drives: Vec<Node>,
    engines: Vec<Node>,
}

/// Which of a volume's drives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nth(pub u16);

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
        Self::of(vec![Place::new(VOLUME_SIZE)])
    }

    /// Two drives with the data, and a third one with a witness.
    pub fn mirrored() -> Self {
        Self::mirrored_of(VOLUME_SIZE)
    }

    /// The same with a volume of so many bytes.
    pub fn mirrored_of(size: u64) -> Self {
        let sizes = [size, size, WITNESS_SIZE];
        Self::of(sizes.map(Place::new).into())
    }

    /// So many drives with the data, and then so many with a witness.
    pub fn with(members: usize, witnesses: usize) -> Self {
        let sizes = [vec![VOLUME_SIZE; members], vec![WITNESS_SIZE; witnesses]];
        Self::of(sizes.concat().into_iter().map(Place::new).collect())
    }

    fn of(places: Vec<Place>) -> Self {
        Self {
            directory: tempfile::tempdir().expect("a temporary directory"),
            master: Key::random(),
            cluster: ClusterUid::random(),
            places,
            nodes: None,
            is_relayed: false,
            lineage: Uuid::new_v4(),
            volume: VolumeUid::random(),
        }
    }

    /// The same with a node for each drive and each of two engines. Hosts are on their router.
    pub fn on_nodes(self) -> Self {
        let drives = self.places.len();
        let mut all = nodes::join(u8::try_from(drives + 2).unwrap_or(u8::MAX));
        let engines = all.split_off(drives);
        let nodes = Some(Nodes {
            drives: all,
            engines,
        });
        Self { nodes, ..self }
    }

    /// The same with a relay between engines and drives, which is not there yet.
    pub fn relayed(self) -> Self {
        Self {
            is_relayed: true,
            ..self
        }
    }

    /// The same with the bytes of one of the drives in this file.
    pub fn kept_in(mut self, nth: Nth, medium: PathBuf) -> Self {
        self.places[usize::from(nth.0)].medium = Some(medium);
        self
    }

    /// Where one of the drives is.
    pub fn node(&self, nth: Nth) -> Option<&Node> {
        self.nodes.as_ref()?.drives.get(usize::from(nth.0))
    }

    /// Where the engine of a term is.
    pub fn engine_node(&self, term: u64) -> Option<&Node> {
        let nth = usize::try_from(term).ok()?.checked_sub(1)?;
        self.nodes.as_ref()?.engines.get(nth)
    }

    /// A path in the test's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Document of the first drive.
    pub fn drive_document(&self) -> DriveDocument {
        self.document_of(Nth(0))
    }

    /// How many drives there are.
    pub fn drives(&self) -> u16 {
        u16::try_from(self.places.len()).unwrap_or(u16::MAX)
    }

    /// The slice on one of them.
    pub fn slice(&self, nth: Nth) -> SliceUid {
        self.place(nth).slice
    }

    fn place(&self, nth: Nth) -> &Place {
        &self.places[usize::from(nth.0)]
    }

    /// Document of one of the drives.
    pub fn document_of(&self, nth: Nth) -> DriveDocument {
        let place = self.place(nth);
        DriveDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(1),
            cluster: self.cluster,
            drive: place.drive,
            name: format!("d{}", nth.0),
            medium: Medium::File {
                path: self.medium(nth),
                size: DRIVE_SIZE.max(place.size / 4 * 5),
            },
            adoption: Adoption::IfBlank,
            port: DRIVE_PORT + nth.0,
            key: self.master.drive(place.drive),
            slices: vec![SliceGrant {
                slice: place.slice,
                request: SliceRequest {
                    volume: self.volume,
                    size: place.size,
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
            size: self.place(Nth(0)).size,
            stack: self.stack(term),
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

    fn stack(&self, term: Term) -> Stack {
        let member = |nth: u16| {
            let place = self.place(Nth(nth));
            SliceMember {
                slice: place.slice,
                drive: place.drive,
                drive_name: format!("d{nth}"),
                address: if self.is_relayed {
                    self.relay_of(Nth(nth))
                } else {
                    self.address_of(Nth(nth))
                },
                key: self.master.drive(place.drive).slice(place.slice, term),
            }
        };
        let all = (0u16..).zip(&self.places);
        let (witnesses, members): (Vec<_>, Vec<_>) = all.partition(|(_, place)| place.is_witness());
        match self.places.len() {
            1 => Stack::Slice(member(0)),
            _ => Stack::Mirror(Mirror {
                members: members.into_iter().map(|(nth, _)| member(nth)).collect(),
                joining: Vec::new(),
                witnesses: witnesses.into_iter().map(|(nth, _)| member(nth)).collect(),
                // Only the first engine ever may take empty slices for a new volume.
                formed: term > Term(1),
                lineage: self.lineage,
                recovery: None,
            }),
        }
    }

    /// Where the first drive's bytes are, or another's.
    pub fn medium(&self, nth: Nth) -> PathBuf {
        let own = || self.path(&format!("drive-{}.img", nth.0));
        self.place(nth).medium.clone().unwrap_or_else(own)
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
        let port = u16::try_from(u64::from(ENGINE_PORT) + term - 1).unwrap_or(ENGINE_PORT);
        at(self.engine_node(term), port)
    }

    /// Where the first drive listens.
    pub fn drive_address(&self) -> SocketAddr {
        self.address_of(Nth(0))
    }

    /// Where one of the drives listens.
    pub fn address_of(&self, nth: Nth) -> SocketAddr {
        at(self.node(nth), DRIVE_PORT + nth.0)
    }

    /// Where a relay listens for it.
    pub fn relay_of(&self, nth: Nth) -> SocketAddr {
        at(None, RELAY_PORT + nth.0)
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
        let place = self.place(Nth(0));
        let key = self
            .master
            .drive(place.drive)
            .slice(place.slice, fence.term);
        (
            weft_spec::nqn::slice(place.slice),
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

    /// Starts the first drive.
    pub fn start_drive(&self, role: Role) -> Process {
        self.start_nth(Nth(0), role)
    }

    /// Starts one of the drives.
    pub fn start_nth(&self, nth: Nth, role: Role) -> Process {
        let document = self.document_of(nth);
        let document = self.write(&format!("drive-{}.json", nth.0), &document);
        Process::start_on(self.node(nth), "weft-drive", role, &document)
    }

    /// Starts all drives.
    pub fn start_drives(&self, role: Role) -> Vec<Process> {
        let all = (0..self.drives()).map(Nth);
        all.map(|nth| self.start_nth(nth, role)).collect()
    }

    /// Starts the engine of a term.
    pub fn start_engine(&self, term: u64, role: Role) -> Process {
        let document = self.write(&format!("engine-{term}.json"), &self.engine_document(term));
        Process::start_on(self.engine_node(term), "weft-engine", role, &document)
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

fn at(node: Option<&Node>, port: u16) -> SocketAddr {
    let address = node.map_or(Ipv4Addr::LOCALHOST, Node::address);
    SocketAddr::from((address, port))
}
