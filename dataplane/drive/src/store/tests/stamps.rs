//! What a slice says later of changes that left no chunk, and of regions that several engines wrote.

use super::faults::record;
use super::*;
use weft_spec::drive::{Config, HotRegion, OutOfSync, SliceRecord};
use weft_spec::ids::{Boot, FencePair, Term};

/// A slice of four leaves of the chunk map, of which few chunks are there.
const LARGE: u64 = 4 * core::LEAF as u64 * 16;

fn carried(boot: u64, config: u64, number: u64) -> Carried {
    let pair = FencePair {
        term: Term(1),
        boot: Boot(boot),
    };
    Carried {
        config: Config(config),
        mark: Mark { pair, number },
    }
}

async fn zero(store: &Arc<Store>, slice: &Arc<Slice>, at: u64, length: u64, config: u64) {
    let done = store.zero(slice, at, length, carried(1, config, config), ());
    done.await.unwrap();
}

/// Holes told since a config, as the first and the number of them; they must be in one piece.
async fn holes(store: &Arc<Store>, slice: &Arc<Slice>, config: u64) -> Option<(u32, u32)> {
    let changes = store.changes(slice, Config(config), 0, usize::MAX).await;
    let holes = changes.unwrap().holes;
    let first = *holes.first()?;
    let count = holes.len() as u32;
    assert_eq!(holes, (first..first + count).collect::<Vec<_>>());
    Some((first, count))
}

async fn put_record(store: &Arc<Store>, slice: &Slice, next: SliceRecord) {
    let before = slice.record();
    let put = store.put_record(slice, before.as_deref(), next).await;
    assert!(put.unwrap());
}

async fn large(medium: &Arc<dyn Medium>) -> (Arc<Store>, Arc<Slice>) {
    let store = open(medium).unwrap();
    let request = SliceRequest {
        overcommit_percent: 10_000,
        ..request(LARGE)
    };
    let slice = store.allocate(SliceUid::random(), request).await.unwrap();
    (store, slice)
}

#[tokio::test]
async fn zeros_where_no_chunk_was_are_told_to_who_is_away_through_every_end() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = large(&medium).await;
    let uid = slice.uid();
    put_record(&store, &slice, record(&slice, 5, Some(5))).await;
    let leaf = core::LEAF;
    // The slice has no chunk at all.
    zero(&store, &slice, 3 * CHUNK, BLOCK, 5).await;
    assert_eq!(holes(&store, &slice, 5).await, Some((0, leaf)));
    assert_eq!(holes(&store, &slice, 6).await, None);
    drop(slice);
    end(store).await;
    let store = open(&medium).unwrap();
    let slice = store.slice(uid).unwrap();
    assert_eq!(holes(&store, &slice, 5).await, Some((0, leaf)));
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(holes(&store, &slice, 5).await, Some((0, leaf)));
    // Over the border of two leaves, durable by a flush alone.
    let border = u64::from(2 * leaf) * CHUNK;
    zero(&store, &slice, border - CHUNK, 2 * CHUNK, 5).await;
    store.flush(()).await.unwrap();
    drop(slice);
    end(store).await;
    let store = open_after(&medium, AFTER_CUT).unwrap();
    let slice = store.slice(uid).unwrap();
    assert_eq!(holes(&store, &slice, 5).await, Some((0, 3 * leaf)));
    // Who was away is back.
    put_record(&store, &slice, record(&slice, 6, None)).await;
    assert_eq!(holes(&store, &slice, 0).await, None);
}

#[tokio::test]
async fn a_zeroing_sent_again_under_the_next_config_stamps_the_hole_anew() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = large(&medium).await;
    put_record(&store, &slice, record(&slice, 4, None)).await;
    let write = store.write(
        &slice,
        0,
        tagged(1, 16),
        Write::Cached,
        carried(1, 4, 1),
        (),
    );
    write.await.unwrap();
    zero(&store, &slice, 0, CHUNK, 4).await;
    put_record(&store, &slice, record(&slice, 5, Some(5))).await;
    assert_eq!(holes(&store, &slice, 5).await, None);
    zero(&store, &slice, 0, CHUNK, 5).await;
    assert_eq!(holes(&store, &slice, 5).await.unwrap().0, 0);
}

#[tokio::test]
async fn while_no_other_slice_is_away_zeros_where_no_chunk_was_leave_nothing() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let (store, slice) = large(&medium).await;
    zero(&store, &slice, 0, LARGE * BLOCK, 0).await;
    put_record(&store, &slice, record(&slice, 4, None)).await;
    zero(&store, &slice, 0, LARGE * BLOCK, 4).await;
    // This one alone is away: what it is given, nobody else lacks.
    let mut alone = record(&slice, 5, None);
    alone.out_of_sync = vec![OutOfSync {
        slice: slice.uid(),
        since: Config(4),
    }];
    put_record(&store, &slice, alone).await;
    zero(&store, &slice, 0, LARGE * BLOCK, 5).await;
    assert_eq!(holes(&store, &slice, 0).await, None);
}

#[tokio::test]
async fn a_region_of_an_earlier_engine_stays_hot_when_a_newer_one_writes_without_a_number() {
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
    let store = open(&medium).unwrap();
    let uid = SliceUid::random();
    let slice = store.allocate(uid, request(BLOCKS)).await.unwrap();
    let write = async |store: &Arc<Store>, slice: &Arc<Slice>, carried: Carried| {
        let done = store.write(slice, 0, tagged(1, 1), Write::Cached, carried, ());
        done.await.unwrap();
    };
    write(&store, &slice, carried(1, 0, 7)).await;
    store.new_engine(&slice);
    write(&store, &slice, carried(2, 0, 0)).await;
    store.log(Wanted::Fold).await.unwrap();
    drop(slice);
    end(store).await;
    let store = open(&medium).unwrap();
    let slice = store.slice(uid).unwrap();
    store.log(Wanted::Fold).await.unwrap();
    let hot = |store: &Store, slice: &Slice| store.hot_set(slice, 0, 10).0;
    let inherited = HotRegion {
        region: 0,
        inherited: true,
    };
    assert_eq!(hot(&store, &slice), [inherited]);
    store.regions_equal(&slice, &[0]);
    store.log(Wanted::Fold).await.unwrap();
    assert_eq!(hot(&store, &slice), []);
}
