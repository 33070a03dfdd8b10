//! The crash recorder: a life of a store is recorded, write by write, and recovered from every
//! prefix of it: after the death of the process, and after power cuts that keep any of the
//! versions of each block written since the last flush, whole or torn at 512 bytes.

use super::*;
use std::collections::BTreeMap;
use weft_block::AlignedBuf;

const PAGE: usize = BLOCK as usize;
const SECTOR: usize = 512;
const SLICES: usize = 3;
/// Blocks of a slice: 12 chunks, so that all three do not fit at once.
const SLICE_BLOCKS: u64 = 192;
const CHUNKS: u64 = 28;

type Block = Arc<[u8; PAGE]>;

#[derive(Clone)]
enum Event {
    Write(usize, Block, bool),
    Flush,
}

/// A medium in memory that notes what is done to it.
struct Recorder(Mutex<State>);

struct State {
    blocks: Vec<Block>,
    events: Vec<Event>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder")
    }
}

impl Recorder {
    fn new(blocks: Vec<Block>) -> Self {
        let events = vec![];
        Self(Mutex::new(State { blocks, events }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl Medium for Recorder {
    fn size(&self) -> u64 {
        self.state().blocks.len() as u64 * BLOCK
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let state = self.state();
        let first = (offset / BLOCK) as usize;
        for (at, block) in into.chunks_exact_mut(PAGE).enumerate() {
            block.copy_from_slice(&state.blocks[first + at][..]);
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        assert!(AlignedBuf::zeroed(data.len()).len() == data.len() && offset.is_multiple_of(BLOCK));
        let mut state = self.state();
        for (at, block) in data.chunks_exact(PAGE).enumerate() {
            let place = (offset / BLOCK) as usize + at;
            let block: Block = Arc::new(block.try_into().unwrap());
            state.blocks[place] = block.clone();
            let event = Event::Write(place, block, mode == Write::Durable);
            state.events.push(event);
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.state().events.push(Event::Flush);
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.write_at(offset, &vec![0; length as usize], Write::Cached)
    }

    fn discard_at(&self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// For each block of each slice: the tags that it may have after a power cut, the newest last.
type May = Vec<Vec<Vec<u32>>>;

/// A moment: so many events had happened, and this may be read.
struct Moment {
    events: usize,
    may: May,
}

struct Life {
    start: Vec<Block>,
    events: Vec<Event>,
    uids: Vec<SliceUid>,
    /// After each step.
    moments: Vec<Moment>,
    /// What each step may add: slice, first block, blocks, tag.
    steps: Vec<Option<(usize, u64, u64, u32)>>,
}

fn blank() -> Vec<Block> {
    let chunks_start = 1 << 20;
    let size = chunks_start + (1 << 20) + (128 << 10) + (64 << 10) + CHUNKS * CHUNK;
    let geometry = Geometry::with(size, 1 << 20, 128 << 10).unwrap();
    assert!(geometry.chunks <= CHUNKS);
    let (zero, old): (Block, Block) = (Arc::new([0; PAGE]), Arc::new([0xee; PAGE]));
    let mut blocks = vec![zero; (geometry.data_start / BLOCK) as usize];
    // A chunk that is shown before it was written shows what was there.
    blocks.resize((size / BLOCK) as usize, old);
    let medium = Recorder::new(blocks);
    let blank = Superblock::new(DriveUid::random(), ClusterUid::random(), geometry);
    blank
        .write_next(&medium)
        .unwrap()
        .write_next(&medium)
        .unwrap();
    medium.0.into_inner().unwrap().blocks
}

/// Lives by seed.
async fn live(seed: u64, breakage: Breakage) -> Life {
    let mut random = Random(seed);
    let medium = Arc::new(Recorder::new(blank()));
    let recorder: Arc<dyn Medium> = medium.clone();
    let opening = Opening {
        breakage,
        ..AFTER_DEATH
    };
    let store = open_after(&recorder, opening).unwrap();
    let mut slices = vec![];
    for _ in 0..SLICES {
        let uid = SliceUid::random();
        slices.push(store.allocate(uid, request(SLICE_BLOCKS)).await.unwrap());
    }
    let start = {
        let mut state = medium.state();
        state.events.clear();
        state.blocks.clone()
    };
    let mut may: May = vec![vec![vec![0]; SLICE_BLOCKS as usize]; SLICES];
    let (mut moments, mut steps) = (vec![], vec![]);
    moments.push(Moment {
        events: 0,
        may: may.clone(),
    });
    for tag in 1..=30 {
        let at = random.below(SLICES as u64) as usize;
        let first = random.below(SLICE_BLOCKS);
        let first = if random.below(2) == 0 {
            first / 16 * 16
        } else {
            first
        };
        let count = [1, 1, 3, 16, 30][random.below(5) as usize].min(SLICE_BLOCKS - first);
        let (offset, length) = (first * BLOCK, count * BLOCK);
        let mut added = None;
        match random.below(10) {
            0..6 => {
                let durable = random.below(3) == 0;
                let mode = if durable {
                    Write::Durable
                } else {
                    Write::Cached
                };
                let done = store
                    .write(
                        &slices[at],
                        offset,
                        tagged(tag, count),
                        mode,
                        Carried::default(),
                        (),
                    )
                    .await;
                added = Some((at, first, count, tag));
                // Nothing is free: parts of it may have been written all the same.
                change(&mut may, added, durable && done.is_ok());
                if let Err(error) = done {
                    assert_eq!(error.kind(), ErrorKind::NoSpace);
                }
            }
            6..8 => {
                let slice = &slices[at];
                store
                    .zero(slice, offset, length, Carried::default(), ())
                    .await
                    .unwrap();
                added = Some((at, first, count, 0));
                change(&mut may, added, false);
            }
            8 => {
                store.flush(()).await.unwrap();
                keep_newest(&mut may);
            }
            _ => {
                store.log(Wanted::Fold).await.unwrap();
                keep_newest(&mut may);
            }
        }
        steps.push(added);
        let events = medium.state().events.len();
        moments.push(Moment {
            events,
            may: may.clone(),
        });
    }
    let uids = slices.iter().map(|slice| slice.uid()).collect();
    let events = medium.state().events.clone();
    Life {
        start,
        events,
        uids,
        moments,
        steps,
    }
}

fn change(may: &mut May, added: Option<(usize, u64, u64, u32)>, durable: bool) {
    let Some((at, first, count, tag)) = added else {
        return;
    };
    for block in &mut may[at][first as usize..(first + count) as usize] {
        if durable {
            block.clear();
        }
        block.push(tag);
    }
}

fn keep_newest(may: &mut May) {
    let blocks = may.iter_mut().flatten();
    blocks.for_each(|block| drop(block.drain(..block.len() - 1)));
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Cut {
    Process,
    /// Blocks are kept whole or not at all.
    Whole,
    /// Blocks may be torn.
    Torn,
}

/// Recovers this life from every `stride`th prefix, `cuts` times each; gives the number of
/// recoveries, or what was wrong first.
async fn recover_all(life: &Life, stride: usize, cuts: &[Cut], seed: u64) -> Result<u64, String> {
    let mut random = Random(seed);
    let mut durable = life.start.clone();
    let mut cached: BTreeMap<usize, Vec<Block>> = BTreeMap::new();
    let (mut recoveries, mut moment) = (0, 0);
    for prefix in 0..=life.events.len() {
        while life
            .moments
            .get(moment + 1)
            .is_some_and(|next| next.events <= prefix)
        {
            moment += 1;
        }
        if prefix % stride == 0 || life.moments[moment].events == prefix {
            for cut in cuts {
                let left = cut_now(&durable, &cached, *cut, &mut random);
                let place = format!("{cut:?} after {prefix} events, step {moment}");
                check(life, moment, prefix, left, *cut)
                    .await
                    .map_err(|wrong| format!("{place}: {wrong}"))?;
                recoveries += 1;
            }
        }
        match life.events.get(prefix) {
            Some(Event::Write(at, block, true)) => {
                cached.remove(at);
                durable[*at] = block.clone();
            }
            Some(Event::Write(at, block, false)) => {
                cached.entry(*at).or_default().push(block.clone())
            }
            Some(Event::Flush) => {
                for (at, versions) in std::mem::take(&mut cached) {
                    durable[at] = versions.last().unwrap().clone();
                }
            }
            None => {}
        }
    }
    Ok(recoveries)
}

fn cut_now(
    durable: &[Block],
    cached: &BTreeMap<usize, Vec<Block>>,
    cut: Cut,
    random: &mut Random,
) -> Vec<Block> {
    let mut left = durable.to_vec();
    // Of some cuts most is kept, of others most is lost.
    let bias = random.below(4);
    for (at, versions) in cached {
        let newest = versions.len() as u64;
        let chosen = match (cut, bias) {
            (Cut::Process, _) => newest,
            (_, 0) if random.below(8) > 0 => newest,
            (_, 1) if random.below(8) > 0 => 0,
            _ => random.below(newest + 1),
        };
        let version = |chosen: u64| match chosen {
            0 => durable[*at].clone(),
            chosen => versions[chosen as usize - 1].clone(),
        };
        let mut block = version(chosen);
        if cut == Cut::Torn && chosen > 0 && random.below(3) == 0 {
            let sector = random.below((PAGE / SECTOR) as u64) as usize * SECTOR;
            let mut torn = *block;
            torn[sector..].copy_from_slice(&version(chosen - 1)[sector..]);
            block = Arc::new(torn);
        }
        left[*at] = block;
    }
    left
}

/// Recovers what is left and compares all that can be read with what may be there.
async fn check(
    life: &Life,
    moment: usize,
    prefix: usize,
    left: Vec<Block>,
    cut: Cut,
) -> Result<(), String> {
    let medium: Arc<dyn Medium> = Arc::new(Recorder::new(left));
    let opening = match cut {
        Cut::Process => AFTER_DEATH,
        Cut::Whole => AFTER_CUT,
        Cut::Torn => Opening {
            atomic: false,
            ..AFTER_CUT
        },
    };
    let store =
        open_after(&medium, opening).map_err(|error| format!("does not open: {error:?}"))?;
    let now = &life.moments[moment];
    let mut may = now.may.clone();
    let under_way = life.steps.get(moment).copied().flatten();
    if cut == Cut::Process {
        keep_newest(&mut may);
    }
    if now.events != prefix {
        change(&mut may, under_way, false);
    }
    let mut allocated = 0;
    for (uid, may) in life.uids.iter().zip(&may) {
        let slice = store.slice(*uid).ok_or("a slice is lost")?;
        allocated += store.allocated(&slice);
        for (block, found) in read_blocks(&store, &slice).await.into_iter().enumerate() {
            let may = &may[block];
            match found {
                Ok(tag) if may.contains(&tag) => {}
                Ok(tag) => return Err(format!("block {block} reads {tag:#x}, may be {may:?}")),
                // Torn, or one of two whole ones that cannot be told from torn.
                Err(ErrorKind::MediaRead) if cut == Cut::Torn && may.len() > 1 => {}
                Err(kind) => return Err(format!("block {block}: {kind:?}, may be {may:?}")),
            }
        }
    }
    if store.free() + allocated != store.capacity() {
        return Err("chunks are lost or in two slices".into());
    }
    Ok(())
}

async fn read_blocks(store: &Arc<Store>, slice: &Arc<Slice>) -> Vec<Result<u32, ErrorKind>> {
    let tag = |block: &[u8]| {
        let tag = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        let whole = block[4..] == block[..block.len() - 4];
        if whole { tag } else { u32::MAX }
    };
    let mut all = BytesMut::zeroed(slice.size() as usize);
    if store.read(slice, 0, &mut all, ()).await.is_ok() {
        return all.chunks_exact(PAGE).map(|block| Ok(tag(block))).collect();
    }
    let mut found = vec![];
    for block in 0..SLICE_BLOCKS {
        let mut bytes = BytesMut::zeroed(PAGE);
        let read = store.read(slice, block * BLOCK, &mut bytes, ()).await;
        found.push(read.map(|()| tag(&bytes)).map_err(|error| error.kind()));
    }
    found
}

fn lives(
    seeds: std::ops::Range<u64>,
    stride: usize,
    cuts: &[Cut],
    breakage: Breakage,
) -> Result<u64, String> {
    let mut recoveries = 0;
    for seed in seeds {
        let done = run(async {
            let life = live(seed, breakage).await;
            recover_all(&life, stride, cuts, seed).await
        });
        recoveries += done.map_err(|wrong| format!("seed {seed}: {wrong}"))?;
    }
    Ok(recoveries)
}

#[test]
fn every_prefix_of_a_life_recovers_and_nothing_acknowledged_is_lost() {
    assert!(soak(1) > 1500);
}

/// By seed, and on all processors: more than 100,000 recoveries.
#[test]
#[ignore = "minutes: make full"]
fn a_hundred_thousand_recoveries_lose_nothing() {
    let recoveries = soak(52);
    println!("{recoveries} recoveries");
    assert!(recoveries > 100_000, "{recoveries}");
}

/// Recovers so many lives from every prefix; gives the number of recoveries.
fn soak(seeds: u64) -> u64 {
    let next = std::sync::atomic::AtomicU64::new(0);
    let cuts = [Cut::Process, Cut::Whole, Cut::Whole, Cut::Torn, Cut::Torn];
    let work = || {
        let mut recoveries = 0;
        loop {
            let seed = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if seed >= seeds {
                return recoveries;
            }
            recoveries += lives(seed..seed + 1, 1, &cuts, Breakage::NONE).unwrap();
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum()
    })
}

fn caught(broken: Broken) {
    let cuts = [Cut::Process, Cut::Whole, Cut::Whole];
    let found = lives(0..40, 3, &cuts, Breakage(Some(broken)));
    let wrong = found.expect_err("the recorder did not find it");
    println!("{broken:?}: {wrong}");
}

#[test]
fn a_flush_left_out_is_caught() {
    caught(Broken::NoFlush);
}

#[test]
fn an_allocation_settled_before_its_data_is_caught() {
    caught(Broken::NoDataFlush);
}

#[test]
fn a_heat_up_left_out_is_caught() {
    caught(Broken::NoHeat);
}

#[test]
fn an_allocation_logged_too_late_is_caught() {
    caught(Broken::LateAllocation);
}

#[test]
fn a_log_freed_before_it_is_folded_is_caught() {
    caught(Broken::FreeFirst);
}
