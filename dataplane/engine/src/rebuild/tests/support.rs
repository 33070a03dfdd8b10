//! A mirror over slice stores, with members that come and go.

use crate::layers::mirror::*;
use crate::rebuild::*;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, DiskError, FaultDisk, MemoryDisk, Stamp, Write};
use weft_drive::store::{self, Breakage, Carried, Mark, Opening, REGION, Store};
use weft_drive::superblock::{Geometry, Superblock};
use weft_spec::drive::{Config, SliceRequest};
use weft_spec::ids::{Boot, ClusterUid, DriveUid, FencePair, SliceUid, Term, VolumeUid};

/// Bytes of each medium; some 40 MiB of it are for chunks.
const MEDIUM: u64 = 64 << 20;
/// Chunks of the volume: 24 regions.
pub const CHUNKS: u64 = 384;
pub const PAIR: FencePair = FencePair {
    term: Term(1),
    boot: Boot(1),
};

/// One slice in a store of its own.
pub struct Stored {
    pub store: Arc<Store>,
    pub slice: Arc<store::Slice>,
    /// Writes are acknowledged and not done.
    pub lies: AtomicBool,
    /// Chunks in an answer.
    most: usize,
}

impl Stored {
    async fn new(number: u128) -> Arc<Self> {
        let medium = Arc::new(MemoryDisk::new(MEDIUM));
        let geometry = Geometry::of(MEDIUM).unwrap();
        let superblock = Superblock::new(DriveUid::random(), ClusterUid::random(), geometry);
        let opening = Opening {
            session: Uuid::from_u128(1),
            atomic: true,
            breakage: Breakage::default(),
        };
        let store = Store::open(medium, superblock, opening).unwrap();
        let request = SliceRequest {
            volume: VolumeUid(Uuid::from_u128(9)),
            size: CHUNKS * CHUNK,
            overcommit_percent: 100,
        };
        let uid = SliceUid(Uuid::from_u128(number));
        let slice = store.allocate(uid, request).await.unwrap();
        Arc::new(Self {
            store,
            slice,
            lies: AtomicBool::new(false),
            most: 100,
        })
    }

    fn carried(&self, stamp: Stamp) -> Carried {
        if stamp.checkpoint != 0 {
            self.store.checkpoint(&self.slice, PAIR, stamp.checkpoint);
        }
        Carried {
            config: Config(stamp.config),
            mark: Mark {
                pair: PAIR,
                number: stamp.number,
            },
        }
    }

    /// Everything on it.
    pub async fn bytes(&self) -> BytesMut {
        let mut bytes = BytesMut::zeroed((CHUNKS * CHUNK) as usize);
        let read = self.store.read(&self.slice, 0, &mut bytes, ());
        read.await.unwrap();
        bytes
    }

    /// Chunks that it has.
    pub fn chunks(&self) -> u64 {
        self.store.allocated(&self.slice) / CHUNK
    }
}

#[async_trait]
impl Disk for Stored {
    fn size(&self) -> u64 {
        self.slice.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.store.read(&self.slice, offset, into, ()).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        if self.lies.load(Ordering::Relaxed) {
            return Ok(());
        }
        let carried = self.carried(stamp);
        let write = self
            .store
            .write(&self.slice, offset, data, mode, carried, ());
        write.await
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        self.carried(stamp);
        self.store.flush(()).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let carried = self.carried(stamp);
        let zero = self.store.zero(&self.slice, offset, length, carried, ());
        zero.await
    }

    async fn discard_stamped(&self, at: u64, length: u64, stamp: Stamp) -> Result<(), DiskError> {
        self.write_zeroes_stamped(at, length, stamp).await
    }
}

#[async_trait]
impl Slice for Stored {
    fn region_size(&self) -> u64 {
        REGION
    }

    async fn changes(&self, since: Config, from: ChunkIndex) -> Result<Changes, DiskError> {
        let found = self.store.changes(&self.slice, since, from.0, self.most);
        let found = found.await?;
        let chunks = |numbers: Vec<u32>| numbers.into_iter().map(ChunkIndex).collect();
        Ok(Changes {
            changed: chunks(found.changed),
            holes: chunks(found.holes),
            next: found.next.map(ChunkIndex),
        })
    }

    async fn hot(&self, from: Region) -> Result<HotRegions, DiskError> {
        let (found, next) = self.store.hot_set(&self.slice, from.0, self.most);
        Ok(HotRegions {
            regions: found.iter().map(|hot| Region(hot.region)).collect(),
            next: next.map(Region),
        })
    }

    async fn hash(&self, span: Span) -> Result<RangeHash, DiskError> {
        let hash = self.store.hash(&self.slice, span.start, span.length());
        Ok(RangeHash(u128::from_be_bytes(hash.await?)))
    }

    async fn equal(&self, regions: &[Region]) -> Result<(), DiskError> {
        let regions: Vec<_> = regions.iter().map(|region| region.0).collect();
        self.store.regions_equal(&self.slice, &regions);
        Ok(())
    }
}

/// A mirror and its slices.
pub struct Rig {
    pub mirror: Arc<Mirror>,
    pub slices: Vec<Arc<Stored>>,
    /// The same, as the mirror has them: they fail by script.
    pub faults: Vec<Arc<FaultDisk>>,
}

impl Rig {
    /// So many slices, with these in-sync under config 1.
    pub async fn new(count: usize, in_sync: &[usize]) -> Self {
        let mut slices = vec![];
        for number in 1..=count {
            slices.push(Stored::new(number as u128).await);
        }
        let faults = slices.iter().map(|slice| {
            let slice: Arc<dyn Disk> = slice.clone();
            Arc::new(FaultDisk::new(slice))
        });
        let rig = Self {
            mirror: Arc::new(Mirror::new(CancellationToken::new())),
            faults: faults.collect(),
            slices,
        };
        rig.compose(1, in_sync, &[]).await;
        rig
    }

    /// Puts these in force, from drained.
    pub async fn compose(&self, config: u64, in_sync: &[usize], targets: &[usize]) {
        self.mirror.hold(Hold::Changes);
        let mut report = self.mirror.report();
        let drained = report.wait_for(|report| report.flow == Flow::Drained);
        drained.await.unwrap();
        let member = |at: &usize| Member {
            slice: self.slices[*at].slice.uid(),
            disk: self.faults[*at].clone(),
        };
        let composition = Composition {
            config: Config(config),
            in_sync: in_sync.iter().map(member).collect(),
            targets: targets.iter().map(member).collect(),
            leader: self.slices[in_sync[0]].slice.uid(),
        };
        self.mirror.compose(composition, []).unwrap();
    }

    /// How one is rebuilt from others.
    pub fn options(&self, target: usize, sources: &[usize]) -> Options {
        let source = |at: &usize| Source {
            slice: self.slices[*at].slice.uid(),
            asked: self.slices[*at].clone(),
        };
        Options {
            target: self.slices[target].slice.uid(),
            disk: self.faults[target].clone(),
            asked: self.slices[target].clone(),
            sources: sources.iter().map(source).collect(),
            limits: Limits::default(),
        }
    }

    pub fn rebuild(&self, target: usize, sources: &[usize], frontier: Frontier) -> Rebuild {
        let options = self.options(target, sources);
        Rebuild::new(self.mirror.clone(), options, frontier)
    }

    /// Writes a whole chunk.
    pub async fn write(&self, chunk: u64, byte: u8) {
        let data = Bytes::from(vec![byte; CHUNK as usize]);
        let write = self.mirror.write(chunk * CHUNK, data, Write::Cached);
        write.await.unwrap();
    }

    pub async fn discard(&self, chunk: u64, count: u64) {
        let discard = self.mirror.discard(chunk * CHUNK, count * CHUNK);
        discard.await.unwrap();
    }

    pub async fn assert_equal(&self, one: usize, other: usize) {
        let (one, other) = (
            self.slices[one].bytes().await,
            self.slices[other].bytes().await,
        );
        let differs = (0..CHUNKS).find(|chunk| {
            let at = (chunk * CHUNK) as usize..((chunk + 1) * CHUNK) as usize;
            one[at.clone()] != other[at]
        });
        assert_eq!(differs, None, "the first chunk that differs");
    }
}
