//! What of the store decodes bytes of the medium, for [`crate::fuzz`]: the log and its replay,
//! checksum pages, rows and records.

use super::log::{Entry, Log, decode_body};
use super::sums::{Area, BLOCKS, Sums, seal_page};
use super::tables::{ChunkIndex, ChunkNumber, SliceNumber, decode_row, encode_row};
use super::{Breakage, Carried, Mark, Opening, Slice, Store, StoreError};
use crate::superblock::{CHUNK, Copies, Geometry, LogStart, PAGE_PAIR, Superblock};
use bytes::{Bytes, BytesMut};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;
use weft_block::{AlignedBuf, BLOCK, ErrorKind, Medium, MemoryDisk, Write};
use weft_spec::drive::{Config, SliceRecord, SliceRequest};
use weft_spec::ids::{Boot, ClusterUid, DriveUid, FencePair, SliceUid, Term, VolumeUid};
use zerocopy::IntoBytes;

/// Of the one slice that the drive of the fuzz targets has.
pub(crate) const SLICE: SliceUid = SliceUid(Uuid::from_u128(0x51));
/// Its volume.
pub(crate) const VOLUME: VolumeUid = VolumeUid(Uuid::from_u128(0x70));
const DRIVE: DriveUid = DriveUid(Uuid::from_u128(0xd0));
/// Bytes of that slice: into a second region.
const SIZE: u64 = 20 * CHUNK;
const SAME: Uuid = Uuid::from_u128(1);
const OTHER: Uuid = Uuid::from_u128(2);

const OPENING: Opening = Opening {
    session: SAME,
    atomic: false,
    breakage: Breakage::NONE,
};

/// A drive at one moment.
struct Image {
    bytes: Vec<u8>,
    log: LogStart,
}

/// Runs the store's requests to their end on this thread.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let made = || Builder::new_current_thread().enable_time().build().ok();
    let runtime = RUNTIME.get_or_init(made).as_ref();
    let runtime = runtime.expect("a runtime needs no descriptor");
    runtime.block_on(work)
}

/// What a small drive says of itself: one MiB of metadata, 128 KiB of log, some 24 chunks.
pub(crate) fn superblock() -> Superblock {
    let size = (1 << 20) + (1 << 20) + (128 << 10) + 26 * CHUNK;
    let geometry = Geometry::with(size, 1 << 20, 128 << 10).expect("it fits");
    Superblock {
        incarnation: Uuid::from_u128(0x1c),
        ..Superblock::new(DRIVE, ClusterUid(Uuid::from_u128(0xc1)), geometry)
    }
}

/// A drive with one slice of which the first three chunks are written, and nothing in its log.
fn image() -> &'static Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let now = superblock();
        let size = now.geometry.data_start + now.geometry.chunks * CHUNK;
        let medium = Arc::new(MemoryDisk::new(size));
        let now = now.write_next(&*medium).expect("a medium in memory");
        let store = Store::open(medium.clone(), now, OPENING).expect("a new drive");
        let log = wait(async {
            let slice = store.allocate(SLICE, request()).await.expect("it fits");
            let data = Bytes::from(vec![7; 3 * CHUNK as usize]);
            let carried = Carried::default();
            let done = store.write(&slice, 0, data, Write::Cached, carried, ());
            done.await.expect("it fits");
            store.close().await.expect("a medium in memory");
            store.superblock().log
        });
        ended(store);
        let bytes = medium.to_bytes();
        Image { bytes, log }
    })
}

fn request() -> SliceRequest {
    SliceRequest {
        volume: VOLUME,
        size: SIZE,
        overcommit_percent: 100,
    }
}

/// The store of this medium, as it is found after this opening.
fn open(medium: &Arc<MemoryDisk>, opening: Opening) -> Result<Arc<Store>, StoreError> {
    match Superblock::read(&**medium)? {
        Copies::Good(now) => Store::open(medium.clone(), now, opening),
        copies => unreachable!("the superblock is not what is fuzzed: {copies:?}"),
    }
}

/// Waits until nobody uses the store any more, so that no two are on one medium. Its tasks run
/// only while somebody waits.
fn ended(store: Arc<Store>) {
    wait(async {
        while Arc::strong_count(&store) > 1 || Arc::strong_count(&store.tables) > 1 {
            tokio::task::yield_now().await;
        }
    });
}

/// A drive in memory with one slice, for the commands that a host sends to it.
pub(crate) fn drive() -> (Arc<Store>, Arc<Slice>) {
    let medium = Arc::new(MemoryDisk::from_bytes(image().bytes.clone()));
    let store = open(&medium, OPENING).expect("nothing is wrong with it");
    let slice = store.slice(SLICE).expect("its slice");
    (store, slice)
}

/// The log as it is found at a start, and what is made of it. The first byte: bit 0, another
/// session; bit 1, the medium writes blocks whole; bit 2, what follows is the log as it lies on
/// the medium. Else what follows are bodies of records, each after its length in two bytes, that
/// get a header that is right.
///
/// A log that cannot be is refused. After any other each chunk is in one place, what is read is
/// what was written or an error, and the next start finds the same chunks.
pub fn log(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let image = image();
    let medium = Arc::new(MemoryDisk::from_bytes(image.bytes.clone()));
    let geometry = superblock().geometry;
    if flags & 4 != 0 {
        let most = rest.len().min(geometry.log_size as usize);
        let raw = AlignedBuf::copy_of(&rest[..most]);
        let at = geometry.log_start + image.log.offset;
        let _ = medium.write_at(at, &raw, Write::Cached);
    } else {
        let mut log = Log::new(medium.clone(), &geometry, image.log);
        for body in bodies(rest) {
            same_body(body);
            // A log that is full takes no more, as it should.
            let _ = log.append_body(body);
        }
    }
    let opening = Opening {
        session: if flags & 1 != 0 { OTHER } else { SAME },
        atomic: flags & 2 != 0,
        breakage: Breakage::NONE,
    };
    // Not closed in order, or nobody would look at the log.
    let unclean = Superblock::read(&*medium).map(|copies| match copies {
        Copies::Good(now) => Superblock {
            clean: false,
            ..now
        }
        .write_next(&*medium),
        copies => unreachable!("{copies:?}"),
    });
    unclean.and_then(|done| done).expect("a medium in memory");
    let first = match open(&medium, opening) {
        Ok(store) => look(store),
        Err(StoreError::Damaged(_)) => return,
        Err(error) => panic!("{error:?}"),
    };
    let again = look(open(&medium, opening).expect("it was opened before"));
    assert_eq!(again, first, "the second start finds something else");
}

/// Records that a body tells are written as they were read.
fn same_body(body: &[u8]) {
    let Some(entries) = decode_body(body) else {
        return;
    };
    let mut again = vec![];
    entries.iter().for_each(|entry| entry.encode(&mut again));
    assert_eq!(again, body);
}

/// Bodies, each after its length.
fn bodies(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, body) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_le_bytes(*length)).min(body.len());
        let (body, after) = body.split_at(length);
        rest = after;
        Some(body)
    })
}

/// Chunks of the slice, and what can be read of each block.
fn look(store: Arc<Store>) -> (u64, Vec<Option<u8>>) {
    let slice = store.slice(SLICE).expect("its slice");
    let allocated = store.allocated(&slice);
    assert_eq!(store.free() + allocated, store.capacity());
    let read = wait(async {
        let mut read = vec![];
        for block in 0..SIZE / BLOCK {
            let mut bytes = BytesMut::zeroed(BLOCK as usize);
            read.push(
                match store.read(&slice, block * BLOCK, &mut bytes, ()).await {
                    Ok(()) => Some(bytes[0]),
                    Err(error) if error.kind() == ErrorKind::MediaRead => None,
                    Err(error) => panic!("block {block}: {error}"),
                },
            );
        }
        read
    });
    drop(slice);
    ended(store);
    (allocated, read)
}

/// A pair of checksum pages, 8 KiB after a first byte; its bit 0 and 1 say that the first and the
/// second get what makes them pages of this drive. What is known of a chunk is found again after
/// it is put, and nothing else changes.
pub fn page(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let geometry = superblock().geometry;
    let medium = Arc::new(MemoryDisk::new(geometry.data_start));
    let mut pair = AlignedBuf::zeroed(PAGE_PAIR as usize);
    let most = rest.len().min(pair.len());
    pair[..most].copy_from_slice(&rest[..most]);
    for (copy, page) in pair.chunks_exact_mut(BLOCK as usize).enumerate() {
        if flags & 1 << copy != 0 {
            seal_page(page, 0, DRIVE);
        }
    }
    let written = medium.write_at(geometry.sums_start, &pair, Write::Cached);
    written.expect("a medium in memory");
    let area = || Area::new(medium.clone(), &geometry, DRIVE);
    let all = |area: &Area| -> Vec<Sums> {
        let chunks = 0..geometry.chunks as u32;
        let sums = chunks.map(|chunk| area.get(ChunkNumber(chunk)));
        sums.collect::<Result<_, _>>().expect("a medium in memory")
    };
    let mut expected = all(&area());
    let newer = Sums {
        mask: u16::MAX,
        blocks: [9; BLOCKS],
        stamp: Config(3),
    };
    let put = area().put(&HashMap::from([(ChunkNumber(1), newer)]));
    put.expect("a medium in memory");
    expected[1] = newer;
    assert_eq!(all(&area()), expected);
}

/// A row of the table of slices (first byte even) or a record as it is in its table: what is
/// understood is written, and understood again as the same.
pub fn record(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    if kind % 2 == 0 {
        if let Ok(row) = decode_row(SLICE.0.as_u128(), rest) {
            assert_eq!(encode_row(&row).as_bytes(), rest);
        }
    } else if let Ok(record) = serde_json::from_slice::<SliceRecord>(rest) {
        let json = serde_json::to_vec(&record).expect("what was read can be written");
        let again: SliceRecord = serde_json::from_slice(&json).expect("and read");
        assert_eq!(again, record);
    }
}

/// Seeds of [`log`], [`page`] and [`record`], written by what writes them on a drive.
pub(crate) fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = vec![
        ("drive-log", "life", life()),
        ("drive-record", "row", row()),
        ("drive-page", "pair", pages()),
    ];
    for (name, flags) in [("death", 0), ("cut", 1), ("cut-whole-blocks", 3)] {
        seeds.push(("drive-log", name, of_records(flags, &records())));
    }
    let suspect = Entry::Suspect(SliceNumber(0), ChunkIndex(0), 0b101);
    let heat = Entry::Heat((SliceNumber(0), 0), Mark::default());
    let found = of_records(0, &[vec![suspect], vec![heat]]);
    seeds.push(("drive-log", "suspect", found));
    seeds
}

/// Bodies of these records, each after its length.
fn of_records(flags: u8, records: &[Vec<Entry>]) -> Vec<u8> {
    let mut seed = vec![flags];
    for entries in records {
        let mut body = vec![];
        entries.iter().for_each(|entry| entry.encode(&mut body));
        seed.extend_from_slice(&(body.len() as u16).to_le_bytes());
        seed.extend_from_slice(&body);
    }
    seed
}

/// Records of a life: regions become hot, chunks come and go.
fn records() -> [Vec<Entry>; 3] {
    let (slice, mark) = (SliceNumber(0), Mark::default());
    let pair = FencePair {
        term: Term(2),
        boot: Boot(1),
    };
    let numbered = Mark { pair, number: 9 };
    let sums = |index: u32, chunk: u32, settled, mask| Entry::Sums {
        slice,
        index: ChunkIndex(index),
        chunk: ChunkNumber(chunk),
        settled,
        sums: Sums {
            mask,
            blocks: [chunk; BLOCKS],
            stamp: Config(4),
        },
    };
    let allocate = |index, chunk| Entry::Allocate(slice, ChunkIndex(index), ChunkNumber(chunk));
    let unmap = Entry::Unmap(slice, ChunkIndex(1), ChunkNumber(1), Config(4));
    [
        vec![Entry::Heat((slice, 0), mark), allocate(5, 6)],
        vec![sums(5, 6, true, u16::MAX), sums(0, 0, false, 5)],
        vec![Entry::Heat((slice, 1), numbered), unmap, allocate(17, 7)],
    ]
}

/// The log of a drive as it lies on the medium after some requests.
fn life() -> Vec<u8> {
    let medium = Arc::new(MemoryDisk::from_bytes(image().bytes.clone()));
    let now = superblock().geometry;
    let store = open(&medium, OPENING).expect("nothing is wrong with it");
    let slice = store.slice(SLICE).expect("its slice");
    wait(async {
        // Each made durable alone: of several the order in a record is any.
        for (block, mode) in [
            (0, Write::Durable),
            (90, Write::Durable),
            (300, Write::Durable),
        ] {
            let data = Bytes::from(vec![block as u8; BLOCK as usize]);
            let done = store.write(&slice, block * BLOCK, data, mode, Carried::default(), ());
            done.await.expect("it fits");
        }
        let zeroed = store.zero(&slice, CHUNK, CHUNK, Carried::default(), ());
        zeroed.await.expect("a medium in memory");
        store.flush(()).await.expect("a medium in memory");
    });
    drop(slice);
    ended(store);
    let mut log = vec![0; 6 * BLOCK as usize];
    let read = medium.read_at(now.log_start, &mut log);
    read.expect("a medium in memory");
    [&[4], &log[..]].concat()
}

fn row() -> Vec<u8> {
    let (store, slice) = drive();
    let row = [&[0], encode_row(&slice.row()).as_bytes()].concat();
    drop(slice);
    ended(store);
    row
}

fn pages() -> Vec<u8> {
    let at = superblock().geometry.sums_start as usize;
    [&[3], &image().bytes[at..at + PAGE_PAIR as usize]].concat()
}
