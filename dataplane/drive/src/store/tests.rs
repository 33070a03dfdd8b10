//! The store against a model: through reopening, the death of the process and power cuts.

use super::*;
use crate::superblock::{Geometry, SMALLEST};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use weft_block::{BLOCK, ErrorKind, MemoryDisk, PowerDisk, Write};
use weft_spec::drive::SliceRequest;
use weft_spec::ids::{ClusterUid, DriveUid, VolumeUid};

/// Blocks of the slices that the models use: 32 chunks.
const BLOCKS: u64 = 512;

fn superblock(medium: &dyn Medium) -> Superblock {
    match Superblock::read(medium).unwrap() {
        crate::superblock::Copies::Good(superblock) => superblock,
        _ => Superblock {
            counter: 0,
            drive: DriveUid::random(),
            cluster: ClusterUid::random(),
            geometry: Geometry::of(medium.size()).unwrap(),
            metadata_length: 0,
            document_generation: DocumentGeneration(0),
        },
    }
}

fn open(medium: &Arc<dyn Medium>) -> Result<Arc<Store>, StoreError> {
    Store::open(medium.clone(), superblock(&**medium))
}

fn request(blocks: u64) -> SliceRequest {
    SliceRequest {
        volume: VolumeUid::random(),
        size: blocks * BLOCK,
        overcommit_percent: 1000,
    }
}

/// Blocks that each carry their own tag throughout.
fn tagged(tag: u32, blocks: u64) -> Bytes {
    tag.to_le_bytes()
        .repeat((blocks * BLOCK / 4) as usize)
        .into()
}

async fn tags(store: &Arc<Store>, slice: &Slice) -> Vec<u32> {
    let mut bytes = BytesMut::zeroed(slice.size() as usize);
    store.read(slice, 0, &mut bytes, ()).await.unwrap();
    let blocks = bytes.chunks_exact(BLOCK as usize);
    blocks
        .map(|block| {
            assert!(block[4..] == block[..block.len() - 4], "a torn block");
            u32::from_le_bytes([block[0], block[1], block[2], block[3]])
        })
        .collect()
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Delete(usize),
    Write(usize, u64, u64, bool),
    Zero(usize, u64, u64),
    Flush,
    Reopen,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    // Borders of chunks are where the cases are: 16 blocks each.
    let place = prop_oneof![(0..BLOCKS), (0..BLOCKS / 16).prop_map(|chunk| chunk * 16)];
    let length = prop_oneof![(1..40u64), Just(16), Just(32), Just(1)];
    (place, length).prop_map(|(place, length)| (place, length.min(BLOCKS - place)))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3usize).prop_map(Step::Allocate),
        1 => (0..3usize).prop_map(Step::Delete),
        12 => (0..3usize, range(), any::<bool>()).prop_map(|(s, (at, n), d)| Step::Write(s, at, n, d)),
        5 => (0..3usize, range()).prop_map(|(s, (at, n))| Step::Zero(s, at, n)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// What a slice may read as: for each block every tag it may have, the newest last.
struct Model {
    uid: SliceUid,
    /// Deletion was asked for and not answered.
    maybe_gone: bool,
    blocks: Vec<Vec<u32>>,
}

impl Model {
    fn new(uid: SliceUid) -> Self {
        Self {
            uid,
            maybe_gone: false,
            blocks: vec![vec![0]; BLOCKS as usize],
        }
    }

    fn change(&mut self, at: u64, blocks: u64, tag: u32, durable: bool) {
        for block in &mut self.blocks[at as usize..(at + blocks) as usize] {
            if durable {
                block.clear();
            }
            block.push(tag);
        }
    }

    fn flush(&mut self) {
        self.blocks
            .iter_mut()
            .for_each(|block| drop(block.drain(..block.len() - 1)));
    }
}

/// A store, the models of its slices, and those deleted.
struct World {
    store: Option<Arc<Store>>,
    models: [Option<Model>; 3],
    deleted: Vec<SliceUid>,
    next_tag: u32,
}

impl World {
    fn new(store: Arc<Store>) -> Self {
        Self {
            store: Some(store),
            models: [None, None, None],
            deleted: vec![],
            next_tag: 1,
        }
    }

    fn store(&self) -> Arc<Store> {
        self.store.clone().unwrap()
    }

    /// Closes and opens again, never two stores on one medium.
    async fn reopen(&mut self, medium: &Arc<dyn Medium>) {
        let store = self.store.take().unwrap();
        while Arc::strong_count(&store) > 1 {
            tokio::task::yield_now().await;
        }
        drop(store);
        self.store = Some(open(medium).unwrap());
    }

    /// Does one step; an error is one of the medium.
    async fn step(&mut self, step: &Step) -> Result<(), DiskError> {
        let store = self.store();
        let slice_of = |model: &Model| store.slice(model.uid).unwrap();
        match *step {
            Step::Allocate(at) if self.models[at].is_none() => {
                let uid = SliceUid::random();
                match store.allocate(uid, request(BLOCKS)).await {
                    Ok(_) => self.models[at] = Some(Model::new(uid)),
                    Err(AllocateError::Disk(error)) => return Err(error),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Delete(at) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                model.maybe_gone = true;
                assert!(store.delete(model.uid).await?);
                self.deleted.push(model.uid);
                self.models[at] = None;
            }
            Step::Write(at, offset, blocks, durable) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                let tag = self.next_tag;
                self.next_tag += 1;
                let mode = if durable {
                    Write::Durable
                } else {
                    Write::Cached
                };
                let data = tagged(tag, blocks);
                let done = store
                    .write(&slice_of(model), offset * BLOCK, data, mode, ())
                    .await;
                model.change(offset, blocks, tag, durable && done.is_ok());
                done?;
            }
            Step::Zero(at, offset, blocks) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                let done = store
                    .zero(&slice_of(model), offset * BLOCK, blocks * BLOCK, ())
                    .await;
                model.change(offset, blocks, 0, false);
                done?;
            }
            Step::Flush => {
                store.flush(()).await?;
                self.models.iter_mut().flatten().for_each(Model::flush);
            }
            Step::Allocate(_) | Step::Reopen => {}
        }
        Ok(())
    }

    /// `newest`: what was acknowledged last must be there; else anything that may be.
    async fn check(&self, store: &Arc<Store>, newest: bool) {
        let mut allocated = 0;
        for model in self.models.iter().flatten() {
            let Some(slice) = store.slice(model.uid) else {
                assert!(model.maybe_gone, "a slice is lost");
                continue;
            };
            for (block, tag) in tags(store, &slice).await.into_iter().enumerate() {
                let may = &model.blocks[block];
                let right = if newest {
                    may.last() == Some(&tag)
                } else {
                    may.contains(&tag)
                };
                assert!(right, "block {block} reads {tag}, may be {may:?}");
            }
            allocated += store.allocated(&slice);
        }
        for uid in &self.deleted {
            assert!(store.slice(*uid).is_none(), "a deleted slice is back");
            assert!(matches!(
                store.allocate(*uid, request(1)).await,
                Err(AllocateError::Deleted(_))
            ));
        }
        let known: Vec<_> = self
            .models
            .iter()
            .flatten()
            .map(|model| model.uid)
            .collect();
        let others = store
            .slices()
            .into_iter()
            .filter(|slice| !known.contains(&slice.uid()));
        let others: u64 = others.map(|slice| store.allocated(&slice)).sum();
        assert_eq!(store.free() + allocated + others, store.capacity());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_reads_as_the_model_says_through_every_reopening(steps in prop::collection::vec(step(), 1..60)) {
        run(async {
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
            let mut world = World::new(open(&medium).unwrap());
            for step in &steps {
                if matches!(step, Step::Reopen) {
                    world.reopen(&medium).await;
                }
                world.step(step).await.unwrap();
            }
            world.check(&world.store(), true).await;
            world.reopen(&medium).await;
            world.check(&world.store(), true).await;
        });
    }

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_foreign_shown_wherever_the_power_goes(
        steps in prop::collection::vec(step(), 1..40),
        cut in 0u64..400,
        choices in prop::collection::vec(any::<usize>(), 64),
    ) {
        run(async {
            let power = Arc::new(PowerDisk::new(used(Geometry::of(SMALLEST).unwrap().data_start)));
            let medium: Arc<dyn Medium> = power.clone();
            let mut world = World::new(open(&medium).unwrap());
            power.cut_after(cut);
            for step in &steps {
                if world.step(step).await.is_err() {
                    break;
                }
            }
            let mut choice = choices.iter().cycle();
            let cut = power.after_power_cut(|_, versions| choice.next().map_or(0, |choice| choice % (versions + 1)));
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(cut));
            world.check(&open(&medium).unwrap(), false).await;
        });
    }

    #[test]
    fn the_death_of_the_process_alone_loses_nothing_acknowledged(
        steps in prop::collection::vec(step(), 1..40),
        cut in 0u64..400,
    ) {
        run(async {
            let power = Arc::new(PowerDisk::new(vec![0; SMALLEST as usize]));
            let medium: Arc<dyn Medium> = power.clone();
            let mut world = World::new(open(&medium).unwrap());
            power.cut_after(cut);
            let mut whole = true;
            for step in &steps {
                whole = world.step(step).await.is_ok();
                if !whole {
                    break;
                }
            }
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(power.after_process_death()));
            world.check(&open(&medium).unwrap(), whole).await;
        });
    }
}

/// What of the blocks written since the last flush a power cut keeps.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Metadata,
    Data,
}

/// Each request at which the power may go, in a life in which chunks go from one slice to another.
#[test]
fn the_power_may_go_at_any_request_and_leave_data_or_metadata_alone() {
    use Step::{Allocate, Delete, Flush, Write, Zero};
    let mut steps = vec![
        Allocate(0),
        Write(0, 0, 1, false),
        Write(0, 20, 30, true),
        Flush,
        Zero(0, 0, 64),
    ];
    steps.extend([
        Allocate(1),
        Write(1, 3, 5, false),
        Write(1, 30, 4, true),
        Delete(1),
        Write(0, 100, 16, false),
    ]);
    for kept in [Kept::Metadata, Kept::Data] {
        let mut cut = 0;
        while !run(live_until(cut, &steps, kept)) {
            cut += 1;
        }
        assert!(cut > 40, "the power went at {cut} requests only");
    }
}

/// Lives until the power goes after `cut` requests, then looks at what is left; true if it lived
/// to its end.
async fn live_until(cut: u64, steps: &[Step], kept: Kept) -> bool {
    let data_start = Geometry::of(SMALLEST).unwrap().data_start;
    let power = Arc::new(PowerDisk::new(used(data_start)));
    let medium: Arc<dyn Medium> = power.clone();
    let mut world = World::new(open(&medium).unwrap());
    power.cut_after(cut);
    let mut whole = true;
    for step in steps {
        whole = world.step(step).await.is_ok();
        if !whole {
            break;
        }
    }
    let left = power.after_power_cut(|offset, versions| match (kept, offset < data_start) {
        (Kept::Metadata, true) | (Kept::Data, false) => versions,
        (Kept::Metadata, false) | (Kept::Data, true) => 0,
    });
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(left));
    world.check(&open(&medium).unwrap(), false).await;
    whole
}

/// Old bytes everywhere in the data area: a chunk that is shown before it was written shows them.
fn used(data_start: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; SMALLEST as usize];
    bytes[..data_start as usize].fill(0);
    bytes
}

#[tokio::test]
async fn a_full_drive_refuses_writes_and_takes_them_again_after_a_discard() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let blocks = store.capacity() / BLOCK;
    let slice = store
        .allocate(SliceUid::random(), request(2 * blocks))
        .await
        .unwrap();
    for chunk in 0..blocks / 16 {
        store
            .write(&slice, chunk * CHUNK, tagged(7, 16), Write::Cached, ())
            .await
            .unwrap();
    }
    assert_eq!(store.free(), 0);
    let at = blocks * BLOCK;
    let full = store
        .write(&slice, at, tagged(8, 1), Write::Cached, ())
        .await
        .unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    store
        .write(&slice, 0, tagged(9, 16), Write::Cached, ())
        .await
        .unwrap();
    store.zero(&slice, 0, CHUNK, ()).await.unwrap();
    store
        .write(&slice, at, tagged(8, 1), Write::Cached, ())
        .await
        .unwrap();
    let mut bytes = BytesMut::zeroed(CHUNK as usize);
    store.read(&slice, at, &mut bytes, ()).await.unwrap();
    assert!(bytes[..4096] == tagged(8, 1)[..]);
    assert!(
        bytes[4096..].iter().all(|byte| *byte == 0),
        "bytes of the chunk's former life"
    );
}

#[tokio::test]
async fn more_than_the_overcommit_is_not_promised() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let size = store.capacity();
    let ask = |percent| SliceRequest {
        volume: VolumeUid::random(),
        size,
        overcommit_percent: percent,
    };
    let uid = SliceUid::random();
    let first = ask(100);
    store.allocate(uid, first).await.unwrap();
    store.allocate(uid, first).await.unwrap();
    let other = SliceRequest {
        size: 4096,
        ..first
    };
    assert!(matches!(
        store.allocate(uid, other).await,
        Err(AllocateError::Exists { .. })
    ));
    let refused = store
        .allocate(SliceUid::random(), ask(199))
        .await
        .unwrap_err();
    assert!(
        matches!(refused, AllocateError::NoSpace { .. }),
        "{refused}"
    );
    store.allocate(SliceUid::random(), ask(200)).await.unwrap();
    for size in [0, 100, u64::MAX] {
        let wrong = SliceRequest { size, ..ask(100) };
        assert!(matches!(
            store.allocate(SliceUid::random(), wrong).await,
            Err(AllocateError::Size(_))
        ));
    }
}

#[tokio::test]
async fn many_writers_of_shared_and_of_recycled_chunks_read_what_they_wrote() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let chunks = store.capacity() / CHUNK;
    let shared = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    let large = store
        .allocate(SliceUid::random(), request(4 * BLOCKS * 16))
        .await
        .unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16u64 {
        let (store, shared, large) = (store.clone(), shared.clone(), large.clone());
        writers.spawn(async move {
            for round in 0..24u64 {
                let tag = (writer << 8 | round) as u32 + 1;
                // A block of its own in chunks that all write to.
                let at = (round % 32 * 16 + writer) * BLOCK;
                check_write(&store, &shared, at, tag, 1).await;
                // Chunks of its own, together more than the drive has: they are recycled.
                let at = (writer * 128 + round * 5 % 128) * CHUNK;
                check_write(&store, &large, at, tag, 16).await;
                store.zero(&large, at, CHUNK, ()).await.unwrap();
                let mut bytes = BytesMut::zeroed(CHUNK as usize);
                store.read(&large, at, &mut bytes, ()).await.unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0));
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.unwrap();
    }
    let used = store.allocated(&shared) + store.allocated(&large);
    assert_eq!((store.free() + used) / CHUNK, chunks);
    assert_eq!(store.allocated(&large), 0);
}

async fn check_write(store: &Arc<Store>, slice: &Arc<Slice>, at: u64, tag: u32, blocks: u64) {
    store
        .write(slice, at, tagged(tag, blocks), Write::Cached, ())
        .await
        .unwrap();
    let mut bytes = BytesMut::zeroed((blocks * BLOCK) as usize);
    store.read(slice, at, &mut bytes, ()).await.unwrap();
    assert!(
        bytes == tagged(tag, blocks),
        "block at {at} does not read as written"
    );
}

#[tokio::test]
async fn a_request_whose_caller_leaves_holds_its_permit_to_its_end_and_leaks_no_chunk() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    let (permit, mut ended) = tokio::sync::mpsc::channel::<()>(1);
    for turn in 0..32u64 {
        let (store, slice, permit) = (store.clone(), slice.clone(), permit.clone());
        let request = async move {
            match turn % 2 {
                0 => {
                    store
                        .write(&slice, turn * CHUNK, tagged(5, 3), Write::Cached, permit)
                        .await
                }
                _ => store.zero(&slice, (turn - 1) * CHUNK, CHUNK, permit).await,
            }
        };
        let mut request = Box::pin(request);
        for _ in 0..turn % 7 {
            if poll_once(request.as_mut()).await.is_ready() {
                break;
            }
        }
    }
    drop(permit);
    let deadline = tokio::time::timeout(std::time::Duration::from_secs(30), ended.recv());
    assert_eq!(deadline.await.expect("a permit is held for ever"), None);
    assert_eq!(store.free() + store.allocated(&slice), store.capacity());
    check_write(&store, &slice, 0, 9, 32).await;
}

/// Polls once and lets others run.
async fn poll_once<F: Future>(mut future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
    let polled =
        std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context))).await;
    tokio::task::yield_now().await;
    polled
}

#[tokio::test]
async fn a_store_that_cannot_record_refuses_and_says_so() {
    let power = Arc::new(PowerDisk::new(vec![0; SMALLEST as usize]));
    let medium: Arc<dyn Medium> = power.clone();
    let store = open(&medium).unwrap();
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    power.cut_after(1);
    let error = store
        .write(&slice, 0, tagged(1, 1), Write::Cached, ())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MediaWrite);
    let mut failure = store.failure();
    assert!(failure.borrow_and_update().is_some());
    assert!(
        store
            .allocate(SliceUid::random(), request(1))
            .await
            .is_err()
    );
}
