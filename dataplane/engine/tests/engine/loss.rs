//! An engine's process over drives that all lose their power: what it tells its hosts (design section
//! 6, rule 7).

use crate::support::{SIZE, Setup, within};
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use weft_block::{BLOCK, Disk, ErrorKind, MemoryDisk, Write};
use weft_drive::adopt::{self, Found};
use weft_drive::gate::{SliceGate, Slices};
use weft_drive::store::{Breakage, Opening, Store};
use weft_drive::superblock::{Geometry, SMALLEST, Superblock};
use weft_spec::drive::SliceRequest;
use weft_spec::engine::{EngineDocument, EngineState, Mirror, SliceMember, Stack};
use weft_spec::ids::{ClusterUid, DriveUid, SliceUid, Term, VolumeUid};
use weft_spec::keys::Key;
use weft_transport::{Limits, RemoteDisk};

/// A drive in memory with one slice.
struct Drive {
    medium: Arc<MemoryDisk>,
    slice: SliceUid,
    key: Key,
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Drive {
    async fn new(volume: VolumeUid) -> Self {
        let medium = Arc::new(MemoryDisk::new(SMALLEST));
        let geometry = Geometry::of(SMALLEST).unwrap();
        let superblock = Superblock::new(DriveUid::random(), ClusterUid::random(), geometry);
        let (slice, key) = (SliceUid::random(), Key::random());
        let slices = open(&medium, superblock, 1, &key);
        let request = SliceRequest {
            volume,
            size: SIZE,
            overcommit_percent: 100,
        };
        slices.allocate(slice, request).await.unwrap();
        Self::served(medium, slices, slice, key).await
    }

    async fn served(
        medium: Arc<MemoryDisk>,
        slices: Arc<Slices>,
        slice: SliceUid,
        key: Key,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(SliceGate(slices));
        let serving = tokio::spawn(async move {
            let served = weft_transport::serve(listener, gate, Limits::default());
            served.await.unwrap();
        });
        Self {
            medium,
            slice,
            key,
            address,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// What the medium has at this moment, found by another boot of the kernel.
    async fn after_power_cut(&self) -> Self {
        let medium = Arc::new(MemoryDisk::from_bytes(self.medium.to_bytes()));
        let Found::Drive(superblock) = adopt::look(&*medium).unwrap() else {
            panic!("the drive is not found again")
        };
        let slices = open(&medium, superblock, 2, &self.key);
        Self::served(medium, slices, self.slice, self.key.clone()).await
    }

    fn member(&self, term: Term) -> SliceMember {
        SliceMember {
            slice: self.slice,
            drive: DriveUid(Uuid::nil()),
            drive_name: "d".into(),
            address: self.address,
            key: self.key.slice(self.slice, term),
        }
    }
}

fn open(medium: &Arc<MemoryDisk>, superblock: Superblock, boot: u128, key: &Key) -> Arc<Slices> {
    let opening = Opening {
        session: Uuid::from_u128(boot),
        atomic: true,
        breakage: Breakage::NONE,
    };
    let store = Store::open(medium.clone(), superblock, opening).unwrap();
    Slices::new(store, key.clone())
}

/// Two with the data, and a witness.
fn mirror(document: EngineDocument, drives: &[Drive]) -> EngineDocument {
    let members: Vec<_> = drives.iter().map(|d| d.member(document.term)).collect();
    let stack = Stack::Mirror(Mirror {
        members: members[..2].to_vec(),
        joining: Vec::new(),
        witnesses: members[2..].to_vec(),
        formed: document.generation.0 > 1,
        lineage: Uuid::from_u128(7),
        recovery: None,
    });
    EngineDocument { stack, ..document }
}

fn block(byte: u8) -> Bytes {
    Bytes::from(vec![byte; BLOCK as usize])
}

async fn kind(
    answer: impl Future<Output = Result<(), weft_block::DiskError>>,
) -> Option<ErrorKind> {
    within("an answer", answer)
        .await
        .err()
        .map(|error| error.kind())
}

#[tokio::test]
async fn after_a_loss_on_all_members_no_host_is_told_that_anything_is_safe_until_it_comes_anew() {
    let setup = Setup::new();
    let mut drives = vec![];
    for _ in 0..3 {
        drives.push(Drive::new(setup.volume()).await);
    }
    let (host, anew) = (setup.host("n1", 1), setup.host("n1", 2));
    let document = |generation, host, drives: &[Drive]| {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
        mirror(
            setup.document(generation, nowhere, std::slice::from_ref(host)),
            drives,
        )
    };
    let (engine, mut operator) = setup.start(&document(1, &host, &drives)).await;
    let serving = operator.told("serving", |s| s.state == EngineState::Serving);
    assert_eq!(serving.await.reason, "Serving");
    let disk = RemoteDisk::connect(setup.options(&host)).await.unwrap();
    disk.write(0, block(7), Write::Cached).await.unwrap();
    assert_eq!(kind(disk.flush()).await, None);
    disk.write(BLOCK, block(8), Write::Cached).await.unwrap();
    drop((engine, operator, disk));

    let mut cut = vec![];
    for drive in &drives {
        cut.push(drive.after_power_cut().await);
    }
    let (_engine, mut operator) = setup.start(&document(2, &host, &cut)).await;
    let serving = operator.told("serving", |s| s.state == EngineState::Serving);
    assert_eq!(serving.await.reason, "WritesLost");
    let disk = RemoteDisk::connect(setup.options(&host)).await.unwrap();
    let mut into = BytesMut::zeroed(BLOCK as usize);
    within("a read", disk.read(0, &mut into)).await.unwrap();
    assert_eq!(into, block(7), "what was flushed is there");
    assert_eq!(kind(disk.write(0, block(9), Write::Cached)).await, None);
    let fault = Some(ErrorKind::MediaWrite);
    assert_eq!(kind(disk.flush()).await, fault);
    assert_eq!(kind(disk.write(0, block(9), Write::Durable)).await, fault);
    disk.disconnect().await;

    let (code, text) = operator.put(&document(3, &anew, &cut)).await;
    assert_eq!(code, 200, "{text}");
    let disk = RemoteDisk::connect(setup.options(&anew)).await.unwrap();
    assert_eq!(kind(disk.flush()).await, None);
    assert_eq!(kind(disk.write(0, block(9), Write::Durable)).await, None);
    let serving = operator.told("all is well", |s| s.reason == "Serving");
    serving.await;
}
