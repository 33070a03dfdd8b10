//! What a medium does behind the drive's back: never a wrong byte is served, and each wrong
//! block is reported once.

mod at_random;

use super::*;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use weft_spec::drive::{Config, CorruptBlock, MemberState, OutOfSync, SliceRecord};
use weft_spec::ids::{Boot, FencePair, Term};

/// A store with one slice of `BLOCKS` blocks, all written, flushed and folded: cold.
async fn cold(medium: &Arc<MemoryDisk>) -> (Arc<Store>, Arc<Slice>) {
    let medium: Arc<dyn Medium> = medium.clone();
    let store = open(&medium).unwrap();
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    for block in 0..BLOCKS {
        check_write(&store, &slice, block * BLOCK, block as u32 + 1, 1).await;
    }
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(store.core().hot.count(slice.number()), 0);
    (store, slice)
}

/// Where a block lies on the medium.
fn find(medium: &MemoryDisk, tag: u32) -> u64 {
    let bytes = medium.to_bytes();
    let mut blocks = bytes.chunks_exact(BLOCK as usize);
    blocks
        .position(|block| *block == tagged(tag, 1)[..])
        .unwrap() as u64
        * BLOCK
}

async fn read(store: &Arc<Store>, slice: &Arc<Slice>, block: u64) -> Result<BytesMut, DiskError> {
    let mut bytes = BytesMut::zeroed(BLOCK as usize);
    let read = store.read(slice, block * BLOCK, &mut bytes, ()).await;
    read.map(|()| bytes)
}

#[tokio::test]
async fn flipped_lost_misdirected_and_stale_blocks_are_never_served_and_told_once() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    let before = medium.to_bytes();
    // Blocks 10 to 13 are written once more, and then something happens to each.
    for block in 10..14u32 {
        let at = u64::from(block) * BLOCK;
        check_write(&store, &slice, at, 1000 + block, 1).await;
    }
    store.log(Wanted::Fold).await.unwrap();
    let place = |block: u32| find(&medium, 1000 + block);
    let places: Vec<_> = (10..14).map(place).collect();
    let damage = |at: u64, data: &[u8]| medium.write_at(at, data, Write::Cached).unwrap();
    let mut flipped = tagged(1010, 1).to_vec();
    flipped[77] ^= 4;
    damage(places[0], &flipped);
    let stale = |at: u64| before[at as usize..][..BLOCK as usize].to_vec();
    damage(places[1], &stale(places[1]));
    damage(places[2], &tagged(1013, 1));
    let mut torn = tagged(1013, 1).to_vec();
    torn[512..].copy_from_slice(&stale(places[3])[512..]);
    damage(places[3], &torn);
    for _ in 0..3 {
        for block in 10..14 {
            let error = read(&store, &slice, block).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MediaRead, "{block}");
        }
    }
    let told = |blocks: std::ops::Range<u64>| -> Vec<_> {
        let slice = slice.uid();
        blocks.map(|block| CorruptBlock { slice, block }).collect()
    };
    assert_eq!(store.corrupt_blocks(), told(10..14));
    for block in [9, 14] {
        assert_eq!(
            read(&store, &slice, block).await.unwrap(),
            tagged(block as u32 + 1, 1)
        );
    }
    check_write(&store, &slice, 10 * BLOCK, 5, 1).await;
    assert_eq!(store.corrupt_blocks(), told(11..14));
}

#[tokio::test]
async fn the_check_of_everything_finds_what_nobody_reads() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    store.scrub_all().await;
    assert_eq!(store.corrupt_blocks(), []);
    let progress = store.scrub_progress().unwrap();
    assert_eq!((progress.passes, progress.checked), (1, 0));
    medium
        .write_at(find(&medium, 301), &[0; BLOCK as usize], Write::Cached)
        .unwrap();
    store.scrub_all().await;
    let found = CorruptBlock {
        slice: slice.uid(),
        block: 300,
    };
    assert_eq!(store.corrupt_blocks(), [found]);
}

#[tokio::test]
async fn the_check_of_everything_goes_on_after_a_start_where_it_was() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    let (uid, chunks) = (slice.uid(), BLOCKS / 16);
    let checked = |store: &Store| store.scrub_progress().unwrap().checked;
    for _ in 0..chunks / 2 {
        store.scrub_on().await.unwrap();
    }
    assert_eq!(checked(&store), chunks / 2 * CHUNK);
    // One where it has been, one where it comes to.
    for tag in [17, 301] {
        let at = find(&medium, tag);
        medium
            .write_at(at, &[0; BLOCK as usize], Write::Cached)
            .unwrap();
    }
    store.close().await.unwrap();
    drop(slice);
    end(store).await;
    let again: Arc<dyn Medium> = medium.clone();
    let store = open(&again).unwrap();
    for _ in 0..chunks / 2 {
        // Of the chunk that is damaged it says so.
        let _ = store.scrub_on().await;
    }
    assert_eq!(checked(&store), chunks * CHUNK);
    let found = |block| CorruptBlock { slice: uid, block };
    assert_eq!(store.corrupt_blocks(), [found(300)]);
    while store.scrub_progress().unwrap().passes < 2 {
        let _ = store.scrub_on().await;
    }
    assert_eq!(store.corrupt_blocks(), [found(16), found(300)]);
}

#[tokio::test]
async fn damage_to_a_cold_region_is_not_taken_for_a_write_after_any_end() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    let (uid, at) = (slice.uid(), find(&medium, 301));
    // Another region is hot at the end. 300 is in the second mebibyte.
    check_write(&store, &slice, 0, 7, 1).await;
    drop(slice);
    end(store).await;
    medium
        .write_at(at, &[0; BLOCK as usize], Write::Cached)
        .unwrap();
    for opening in [AFTER_DEATH, AFTER_CUT] {
        let copy: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(medium.to_bytes()));
        let store = open_after(&copy, opening).unwrap();
        let slice = store.slice(uid).unwrap();
        assert!(read(&store, &slice, 300).await.is_err(), "{opening:?}");
        assert_eq!(read(&store, &slice, 0).await.unwrap(), tagged(7, 1));
    }
}

#[tokio::test]
async fn an_incarnation_changes_only_when_acknowledged_bytes_may_be_gone() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let first = store.superblock().incarnation;
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    store.close().await.unwrap();
    drop(slice);
    end(store).await;
    let incarnation = |store: &Store| store.superblock().incarnation;
    let store = open_after(&medium, AFTER_CUT).unwrap();
    assert_eq!(incarnation(&store), first, "closed in order");
    end(store).await;
    let store = open(&medium).unwrap();
    assert_eq!(incarnation(&store), first, "nothing was written");
    let slice = store.slices().remove(0);
    check_write(&store, &slice, 0, 7, 1).await;
    end(store).await;
    let store = open(&medium).unwrap();
    assert_eq!(incarnation(&store), first, "the process alone died");
    let slice = store.slices().remove(0);
    check_write(&store, &slice, 0, 8, 1).await;
    end(store).await;
    let store = open_after(&medium, AFTER_CUT).unwrap();
    assert_ne!(incarnation(&store), first, "the power was lost");
}

#[tokio::test]
async fn a_full_discard_gives_every_chunk_back() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let before = store.free();
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    check_write(&store, &slice, 0, 7, BLOCKS).await;
    assert!(store.free() < before);
    store
        .zero(&slice, 0, slice.size(), Carried::default(), ())
        .await
        .unwrap();
    assert_eq!((store.free(), store.allocated(&slice)), (before, 0));
    end(store).await;
    assert_eq!(open(&medium).unwrap().free(), before);
}

#[tokio::test]
async fn a_deleted_slice_gives_every_chunk_back_and_its_corrupt_blocks_are_told_no_more() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    medium
        .write_at(find(&medium, 301), &[0; BLOCK as usize], Write::Cached)
        .unwrap();
    store.scrub_all().await;
    assert_eq!(store.corrupt_blocks().len(), 1);
    let uid = slice.uid();
    drop(slice);
    assert!(store.delete(uid).await.unwrap());
    assert_eq!(store.free(), store.capacity());
    assert_eq!(store.corrupt_blocks(), []);
    end(store).await;
    let medium: Arc<dyn Medium> = medium;
    let store = open(&medium).unwrap();
    assert_eq!(store.free(), store.capacity());
}

/// Fails reads of one block, and so many of the next writes.
#[derive(Debug)]
struct Failing {
    inner: MemoryDisk,
    unreadable: AtomicU64,
    writes: AtomicU32,
}

impl Medium for Failing {
    fn size(&self) -> u64 {
        Medium::size(&self.inner)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let bad = self.unreadable.load(Ordering::Relaxed);
        if (offset..offset + into.len() as u64).contains(&bad) {
            return Err(DiskError::new(ErrorKind::MediaRead, "injected"));
        }
        self.inner.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let left = self
            .writes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            });
        if left.is_ok() {
            return Err(DiskError::new(ErrorKind::MediaWrite, "injected"));
        }
        self.inner.write_at(offset, data, mode)
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.inner.flush()
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.inner.zero_at(offset, length)
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.inner.discard_at(offset, length)
    }
}

#[tokio::test]
async fn a_block_that_cannot_be_read_is_told_and_a_write_that_fails_once_is_tried_again() {
    let failing = Arc::new(Failing {
        inner: MemoryDisk::new(SMALLEST),
        unreadable: AtomicU64::new(u64::MAX),
        writes: AtomicU32::new(0),
    });
    let medium: Arc<dyn Medium> = failing.clone();
    let store = open(&medium).unwrap();
    let slice = store
        .allocate(SliceUid::random(), request(BLOCKS))
        .await
        .unwrap();
    for block in 0..16 {
        check_write(&store, &slice, block * BLOCK, block as u32 + 1, 1).await;
    }
    failing
        .unreadable
        .store(find(&failing.inner, 6), Ordering::Relaxed);
    for _ in 0..2 {
        let mut bytes = BytesMut::zeroed(CHUNK as usize);
        let error = store.read(&slice, 0, &mut bytes, ()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MediaRead);
    }
    let told = CorruptBlock {
        slice: slice.uid(),
        block: 5,
    };
    assert_eq!(store.corrupt_blocks(), [told]);
    failing.writes.store(1, Ordering::Relaxed);
    check_write(&store, &slice, 0, 99, 1).await;
    failing.writes.store(2, Ordering::Relaxed);
    let failed = put(&store, &slice, 0, tagged(98, 1)).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::MediaWrite);
    assert_eq!(read(&store, &slice, 1).await.unwrap(), tagged(2, 1));
}

pub fn record(slice: &Slice, config: u64, since: Option<u64>) -> SliceRecord {
    let out = since.map(|since| OutOfSync {
        slice: SliceUid::random(),
        since: Config(since),
    });
    SliceRecord {
        volume: slice.volume(),
        lineage: Uuid::nil(),
        fence: FencePair::default(),
        config: Config(config),
        in_sync: vec![],
        out_of_sync: out.into_iter().collect(),
        voters: vec![],
        old_voters: vec![],
        loss: None,
        state: MemberState::Current,
    }
}

fn carried(config: u64, number: u64) -> Carried {
    let pair = FencePair {
        term: Term(1),
        boot: Boot(1),
    };
    Carried {
        config: Config(config),
        mark: Mark { pair, number },
    }
}

/// Changes since a config: chunks written, chunks freed.
async fn since(store: &Arc<Store>, slice: &Arc<Slice>, config: u64) -> (Vec<u32>, Vec<u32>) {
    let found = store.changes(slice, Config(config), 0, 1000).await.unwrap();
    assert_eq!(found.next, None);
    (found.changed, found.holes)
}

#[tokio::test]
async fn a_chunk_and_a_hole_keep_the_config_of_their_last_write_until_nobody_needs_it() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let uid = SliceUid::random();
    let slice = store.allocate(uid, request(BLOCKS)).await.unwrap();
    let first = record(&slice, 4, None);
    assert!(store.put_record(&slice, None, first.clone()).await.unwrap());
    let write = async |store: &Arc<Store>, slice: &Arc<Slice>, chunk: u64, config: u64| {
        let carried = carried(config, 1);
        store
            .write(
                slice,
                chunk * CHUNK,
                tagged(1, 1),
                Write::Cached,
                carried,
                (),
            )
            .await
    };
    for chunk in 0..4 {
        write(&store, &slice, chunk, 4).await.unwrap();
    }
    let other = write(&store, &slice, 0, 3).await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::WrongConfig);
    store.log(Wanted::Fold).await.unwrap();
    let second = record(&slice, 5, Some(5));
    assert!(
        store
            .put_record(&slice, Some(&first), second.clone())
            .await
            .unwrap()
    );
    write(&store, &slice, 1, 5).await.unwrap();
    store
        .zero(&slice, 2 * CHUNK, CHUNK, carried(5, 2), ())
        .await
        .unwrap();
    assert_eq!(since(&store, &slice, 5).await, (vec![1], vec![2]));
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(since(&store, &slice, 5).await, (vec![1], vec![2]));
    assert_eq!(since(&store, &slice, 4).await, (vec![0, 1, 3], vec![2]));
    end_slice(store, slice).await;
    // The power was lost, and all of it was hot: it counts as written under the record's config.
    let store = open_after(&medium, AFTER_CUT).unwrap();
    let slice = store.slice(uid).unwrap();
    assert_eq!(since(&store, &slice, 5).await, (vec![0, 1, 3], vec![2]));
    let third = record(&slice, 6, None);
    assert!(
        store
            .put_record(&slice, Some(&second), third)
            .await
            .unwrap()
    );
    assert_eq!(since(&store, &slice, 0).await, (vec![0, 1, 3], vec![]));
}

async fn end_slice(store: Arc<Store>, slice: Arc<Slice>) {
    drop(slice);
    end(store).await;
}

#[tokio::test]
async fn a_numbered_region_stays_hot_until_the_engine_has_checkpointed_or_said_it_is_equal() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let uid = SliceUid::random();
    let slice = store.allocate(uid, request(BLOCKS)).await.unwrap();
    let write = async |store: &Arc<Store>, slice: &Arc<Slice>, number: u64| {
        store
            .write(
                slice,
                0,
                tagged(1, 1),
                Write::Cached,
                carried(0, number),
                (),
            )
            .await
            .unwrap();
        store.log(Wanted::Fold).await.unwrap();
    };
    let hot = |store: &Store, slice: &Slice| store.hot_set(slice, 0, 10).0;
    let pair = carried(0, 0).mark.pair;
    write(&store, &slice, 7).await;
    store.checkpoint(&slice, pair, 6);
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(hot(&store, &slice).len(), 1);
    store.checkpoint(&slice, pair, 7);
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(hot(&store, &slice), []);
    write(&store, &slice, 8).await;
    end_slice(store, slice).await;
    let store = open(&medium).unwrap();
    let slice = store.slice(uid).unwrap();
    assert!(hot(&store, &slice)[0].inherited);
    store.checkpoint(&slice, pair, 8);
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(hot(&store, &slice).len(), 1);
    store.regions_equal(&slice, &[0]);
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(hot(&store, &slice), []);
}
