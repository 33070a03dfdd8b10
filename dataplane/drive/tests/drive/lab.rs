//! A drive in memory with one slice.

use std::sync::Arc;
use weft_block::{Medium, MemoryDisk};
use weft_drive::adopt;
use weft_drive::gate::{SliceGate, Slices};
use weft_drive::store::{Breakage, Opening, Store};
use weft_drive::superblock::{Geometry, SMALLEST};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{
    Adoption, DriveDocument, Medium as Place, SliceInspection, SliceRequest, VENDOR_INSPECT,
};
use weft_spec::ids::{
    Boot, ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, Term, VolumeUid,
};
use weft_spec::keys::Key;
use weft_spec::nqn::{self, HostNqn};
use weft_transport::target::{ConnectRequest, Gate};

/// One boot of the kernel.
const OPENING: Opening = Opening {
    session: uuid::Uuid::from_u128(1),
    atomic: false,
    breakage: Breakage::NONE,
};

pub struct Lab {
    medium: Arc<MemoryDisk>,
    pub slices: Arc<Slices>,
    pub key: Key,
    pub slice: SliceUid,
    pub volume: VolumeUid,
    pub size: u64,
}

pub fn connect(slice: SliceUid, host: &HostNqn) -> ConnectRequest {
    ConnectRequest {
        subsystem: nqn::slice(slice),
        host: host.expose().to_owned(),
        host_id: host.host_id(),
        peer: ([192, 0, 2, 7], 40000).into(),
    }
}

impl Lab {
    pub async fn new() -> Self {
        let (key, slice, volume, size) = (
            Key::random(),
            SliceUid::random(),
            VolumeUid::random(),
            8 << 20,
        );
        let memory = Arc::new(MemoryDisk::new(SMALLEST));
        let medium: Arc<dyn Medium> = memory.clone();
        let document = DriveDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(1),
            cluster: ClusterUid::random(),
            drive: DriveUid::random(),
            name: "d0".into(),
            medium: Place::Device {
                path: "/medium".into(),
            },
            adoption: Adoption::IfBlank,
            port: 1,
            key: key.clone(),
            slices: vec![],
            control: None,
        };
        let geometry = Geometry::of(SMALLEST).unwrap();
        let superblock = adopt::format(&*medium, geometry, &document).unwrap();
        let slices = Slices::new(
            Store::open(medium, superblock, OPENING).unwrap(),
            key.clone(),
        );
        let request = SliceRequest {
            volume,
            size,
            overcommit_percent: 100,
        };
        slices.allocate(slice, request).await.unwrap();
        Self {
            medium: memory,
            slices,
            key,
            slice,
            volume,
            size,
        }
    }

    /// The process dies and another one comes, with what the medium has at this moment.
    pub fn reopen(&mut self) {
        self.medium = Arc::new(MemoryDisk::from_bytes(self.medium.to_bytes()));
        let adopt::Found::Drive(superblock) = adopt::look(&*self.medium).unwrap() else {
            panic!("the drive is not found again")
        };
        self.slices = Slices::new(
            Store::open(self.medium.clone(), superblock, OPENING).unwrap(),
            self.key.clone(),
        );
    }

    pub fn engine_name(&self, term: u64, boot: u64) -> HostNqn {
        let pair = FencePair {
            term: Term(term),
            boot: Boot(boot),
        };
        HostNqn::engine(&self.key.slice(self.slice, pair.term), self.volume, pair)
    }

    pub fn inspector_name(&self, term: u64) -> HostNqn {
        HostNqn::inspect(
            &self.key.slice(self.slice, Term(term)),
            self.volume,
            Term(term),
        )
    }

    pub fn engine(&self, term: u64, boot: u64) -> ConnectRequest {
        connect(self.slice, &self.engine_name(term, boot))
    }

    pub fn inspector(&self, term: u64) -> ConnectRequest {
        connect(self.slice, &self.inspector_name(term))
    }

    pub async fn inspect(&self) -> SliceInspection {
        let admission = SliceGate(self.slices.clone())
            .connect(self.inspector(1))
            .await
            .ok()
            .unwrap();
        let answer = admission
            .export
            .vendor
            .unwrap()
            .get(VENDOR_INSPECT, 0, 4096)
            .await
            .unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}
