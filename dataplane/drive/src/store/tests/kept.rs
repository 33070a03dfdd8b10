//! A medium as a drive of format 1 left it, kept in the tree: whoever changes the format still
//! reads it. `format-1.img` has, again and again: a run of zeros (its length, 4 bytes little
//! endian), then bytes (their number, then they).

use super::faults::record;
use super::*;
use weft_spec::drive::Config;
use weft_spec::ids::{Boot, FencePair, Term};

const IMAGE: &[u8] = include_bytes!("format-1.img");
/// Shorter runs of zeros are left among the bytes.
const RUN: usize = 64;

/// Slices of the kept medium: cold and flushed; hot, of which only the first half is flushed;
/// deleted.
const COLD: SliceUid = SliceUid(Uuid::from_u128(0xc01d));
const HOT: SliceUid = SliceUid(Uuid::from_u128(0x0807));
const GONE: SliceUid = SliceUid(Uuid::from_u128(0x90e));
/// Blocks of each.
const SIZE: u64 = 64;

fn pack(bytes: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let zeros = rest
            .iter()
            .position(|byte| *byte != 0)
            .unwrap_or(rest.len());
        let (_, behind) = rest.split_at(zeros);
        let end = behind
            .windows(RUN)
            .position(|run| run.iter().all(|byte| *byte == 0))
            .unwrap_or(behind.len());
        let (plain, behind) = behind.split_at(end);
        for length in [zeros, plain.len()] {
            packed.extend(u32::try_from(length).unwrap().to_le_bytes());
        }
        packed.extend(plain);
        rest = behind;
    }
    packed
}

fn unpack(mut packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let number = |packed: &mut &[u8]| {
        let (number, rest) = packed.split_first_chunk::<4>().unwrap();
        *packed = rest;
        u32::from_le_bytes(*number) as usize
    };
    while !packed.is_empty() {
        let zeros = number(&mut packed);
        bytes.resize(bytes.len() + zeros, 0);
        let plain;
        let length = number(&mut packed);
        (plain, packed) = packed.split_at(length);
        bytes.extend(plain);
    }
    bytes
}

fn carried(number: u64) -> Carried {
    let pair = FencePair {
        term: Term(7),
        boot: Boot(2),
    };
    Carried {
        config: Config(3),
        mark: Mark { pair, number },
    }
}

/// What each block of both slices has.
fn tag(slice: SliceUid, block: u64) -> u32 {
    (slice.0.as_u128() as u32) << 8 | block as u32
}

#[tokio::test]
#[ignore = "makes the kept medium anew, which nobody should: an older one has to stay readable"]
async fn make_the_kept_medium() {
    let memory = Arc::new(MemoryDisk::new(SMALLEST));
    let medium: Arc<dyn Medium> = memory.clone();
    let store = open(&medium).unwrap();
    for uid in [COLD, HOT, GONE] {
        let slice = store.allocate(uid, request(SIZE)).await.unwrap();
        let first = record(&slice, 3, Some(2));
        assert!(store.put_record(&slice, None, first).await.unwrap());
    }
    let write = async |uid: SliceUid, blocks: std::ops::Range<u64>| {
        let slice = store.slice(uid).unwrap();
        for block in blocks {
            let data = tagged(tag(uid, block), 1);
            let written = store.write(
                &slice,
                block * BLOCK,
                data,
                Write::Cached,
                carried(block + 1),
                (),
            );
            written.await.unwrap();
        }
    };
    write(COLD, 0..SIZE).await;
    write(GONE, 0..4).await;
    let cold = store.slice(COLD).unwrap();
    store
        .zero(&cold, CHUNK, CHUNK, carried(99), ())
        .await
        .unwrap();
    store.checkpoint(&cold, carried(0).mark.pair, 99);
    assert!(store.delete(GONE).await.unwrap());
    store.log(Wanted::Fold).await.unwrap();
    write(HOT, 0..SIZE / 2).await;
    store.flush(()).await.unwrap();
    write(HOT, SIZE / 2..SIZE).await;
    let bytes = memory.to_bytes();
    let packed = pack(&bytes);
    assert!(unpack(&packed) == bytes);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/store/tests/format-1.img");
    std::fs::write(path, packed).unwrap();
}

async fn look(opening: Opening, flushed_only: bool) {
    let bytes = unpack(IMAGE);
    assert_eq!(bytes.len() as u64, SMALLEST);
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(bytes));
    let store = open_after(&medium, opening).unwrap();
    let (cold, hot) = (store.slice(COLD).unwrap(), store.slice(HOT).unwrap());
    assert!(store.slice(GONE).is_none());
    let again = store.allocate(GONE, request(SIZE)).await.unwrap_err();
    assert!(matches!(again, AllocateError::Deleted(_)), "{again}");
    for (block, found) in (0..).zip(tags(&store, &cold).await) {
        let zeroed = (16..32).contains(&block);
        assert_eq!(found, if zeroed { 0 } else { tag(COLD, block) });
    }
    for (block, found) in (0..).zip(tags(&store, &hot).await) {
        // What was not flushed may be there, or not.
        let may_be_gone = flushed_only && block >= SIZE / 2;
        assert!(found == tag(HOT, block) || (may_be_gone && found == 0));
    }
    for slice in [&cold, &hot] {
        let kept = slice.record().unwrap();
        assert_eq!((kept.config, kept.volume), (Config(3), slice.volume()));
    }
    let changes = store.changes(&cold, Config(3), 0, 99).await.unwrap();
    assert_eq!((changes.changed, changes.holes), (vec![0, 2, 3], vec![1]));
    check_write(
        &store,
        &store
            .allocate(SliceUid::random(), request(SIZE))
            .await
            .unwrap(),
        0,
        5,
        16,
    )
    .await;
}

#[tokio::test]
async fn a_medium_of_format_1_is_read_after_the_death_of_its_process() {
    look(AFTER_DEATH, false).await;
}

#[tokio::test]
async fn a_medium_of_format_1_is_read_after_a_power_cut() {
    look(AFTER_CUT, true).await;
}
