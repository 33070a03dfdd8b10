//! What a medium does behind the drive's back: never a wrong byte is served, and each wrong
//! block is reported once.

use super::*;
use weft_spec::drive::CorruptBlock;

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
    assert_eq!(store.core().hot.len(), 0);
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
async fn damage_to_a_cold_region_is_not_taken_for_a_write_after_any_end() {
    let medium = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = cold(&medium).await;
    let (uid, at) = (slice.uid(), find(&medium, 301));
    // Another region is hot at the end. 300 is in the second mebibyte.
    check_write(&store, &slice, 0, 7, 1).await;
    drop((store, slice));
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

/// Ends a store, never two on one medium.
async fn end(store: Arc<Store>) {
    while Arc::strong_count(&store) > 1 {
        tokio::task::yield_now().await;
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
    drop((store, slice));
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
