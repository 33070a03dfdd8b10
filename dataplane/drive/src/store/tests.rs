//! The store as a whole.

mod crash;
mod faults;
mod kept;
mod measure;
mod model;
mod stamps;
mod suspect;

use super::*;
use crate::superblock::{Geometry, SMALLEST};
use bytes::{Bytes, BytesMut};
use weft_block::{BLOCK, ErrorKind, MemoryDisk, PowerDisk, Write};
use weft_spec::drive::SliceRequest;
use weft_spec::ids::{ClusterUid, DriveUid, VolumeUid};

/// Blocks of the slices that the models use: 32 chunks.
const BLOCKS: u64 = 512;

fn superblock(medium: &dyn Medium) -> Superblock {
    match Superblock::read(medium).unwrap() {
        crate::superblock::Copies::Good(superblock) => superblock,
        _ => {
            let geometry = Geometry::of(medium.size()).unwrap();
            Superblock::new(DriveUid::random(), ClusterUid::random(), geometry)
        }
    }
}

/// Of the one session in which no power is lost.
const AFTER_DEATH: Opening = Opening {
    session: Uuid::from_u128(1),
    atomic: false,
    breakage: Breakage(None),
};
/// The power was lost; the medium keeps blocks whole.
const AFTER_CUT: Opening = Opening {
    session: Uuid::from_u128(2),
    atomic: true,
    breakage: Breakage(None),
};

fn open(medium: &Arc<dyn Medium>) -> Result<Arc<Store>, StoreError> {
    open_after(medium, AFTER_DEATH)
}

fn open_after(medium: &Arc<dyn Medium>, opening: Opening) -> Result<Arc<Store>, StoreError> {
    Store::open(medium.clone(), superblock(&**medium), opening)
}

fn request(blocks: u64) -> SliceRequest {
    SliceRequest {
        volume: VolumeUid::random(),
        size: blocks * BLOCK,
        overcommit_percent: 2000,
    }
}

/// Blocks that each carry their own tag throughout.
fn tagged(tag: u32, blocks: u64) -> Bytes {
    tag.to_le_bytes()
        .repeat((blocks * BLOCK / 4) as usize)
        .into()
}

async fn tags(store: &Arc<Store>, slice: &Arc<Slice>) -> Vec<u32> {
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

/// A write that is not durable and carries nothing.
async fn put(
    store: &Arc<Store>,
    slice: &Arc<Slice>,
    at: u64,
    data: Bytes,
) -> Result<(), DiskError> {
    store
        .write(slice, at, data, Write::Cached, Carried::default(), ())
        .await
}

/// Ends a store. Never two on one medium: a metadata store that still closes on another thread
/// writes under the one that opens. In a process the hold on the medium sees to that.
async fn end(store: Arc<Store>) {
    while Arc::strong_count(&store) > 1 || Arc::strong_count(&store.tables) > 1 {
        tokio::task::yield_now().await;
    }
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
        put(&store, &slice, chunk * CHUNK, tagged(7, 16))
            .await
            .unwrap();
    }
    assert_eq!(store.free(), 0);
    let at = blocks * BLOCK;
    let full = put(&store, &slice, at, tagged(8, 1)).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    put(&store, &slice, 0, tagged(9, 16)).await.unwrap();
    store
        .zero(&slice, 0, CHUNK, Carried::default(), ())
        .await
        .unwrap();
    put(&store, &slice, at, tagged(8, 1)).await.unwrap();
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
    let smaller = SliceRequest {
        size: 4096,
        ..first
    };
    assert!(matches!(
        store.allocate(uid, smaller).await,
        Err(AllocateError::Smaller { .. })
    ));
    assert!(matches!(
        store.allocate(uid, ask(100)).await,
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
async fn a_slice_grows_while_it_is_used_and_stays_grown() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let (uid, small) = (SliceUid::random(), request(BLOCKS));
    let slice = store.allocate(uid, small).await.unwrap();
    check_write(&store, &slice, 0, 3, BLOCKS).await;
    let end = slice.size();
    let beyond = put(&store, &slice, end, tagged(4, 1)).await.unwrap_err();
    assert_eq!(beyond.kind(), ErrorKind::OutOfRange);
    let large = SliceRequest {
        size: 3 * end,
        ..small
    };
    let grown = store.allocate(uid, large).await.unwrap();
    assert!(Arc::ptr_eq(&grown, &slice), "associations see the growth");
    assert_eq!((slice.size(), slice.row().size), (3 * end, 3 * end));
    assert_eq!(tags(&store, &slice).await[BLOCKS as usize..], [0; 1024]);
    check_write(&store, &slice, end, 4, 1).await;
    let too_large = SliceRequest {
        size: 20 * store.capacity() + CHUNK,
        ..small
    };
    let refused = store.allocate(uid, too_large).await.unwrap_err();
    assert!(matches!(refused, AllocateError::NoSpace { .. }));
    drop((slice, grown, store));
    let store = open(&medium).unwrap();
    let slice = store.slice(uid).unwrap();
    assert_eq!(slice.size(), 3 * end);
    let tags = tags(&store, &slice).await;
    assert_eq!((tags[0], tags[BLOCKS as usize]), (3, 4));
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
                store
                    .zero(&large, at, CHUNK, Carried::default(), ())
                    .await
                    .unwrap();
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
        .write(
            slice,
            at,
            tagged(tag, blocks),
            Write::Cached,
            Carried::default(),
            (),
        )
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
                        .write(
                            &slice,
                            turn * CHUNK,
                            tagged(5, 3),
                            Write::Cached,
                            Carried::default(),
                            permit,
                        )
                        .await
                }
                _ => {
                    store
                        .zero(
                            &slice,
                            (turn - 1) * CHUNK,
                            CHUNK,
                            Carried::default(),
                            permit,
                        )
                        .await
                }
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
    let error = put(&store, &slice, 0, tagged(1, 1)).await.unwrap_err();
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
