//! Lives by seed: what is done to a store, and what may be found of it after each step.

use super::super::faults::record;
use super::medium::{Block, Event, PAGE, Random, Recorder};
use super::*;

/// Blocks of a slice when it is made: 12 chunks, so that three do not fit at once.
const BLOCKS: u64 = 192;
/// Most blocks of one.
const MOST: u64 = 288;
const PER_CHUNK: u64 = CHUNK / BLOCK;
const SLICES: usize = 3;
const CHUNKS: u64 = 28;
const STEPS: u32 = 36;

/// Whether a slice is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum There {
    Yes,
    Maybe,
    No,
}

/// What may be read of a block: tags, the newest last, each with whether its write was answered.
pub type Tags = Vec<(u32, bool)>;

/// What may be found of a slice.
#[derive(Clone)]
pub struct Known {
    pub uid: SliceUid,
    pub volume: VolumeUid,
    pub there: There,
    /// Blocks: at least, at most.
    pub sizes: (u64, u64),
    /// Configs of its record, the newest last.
    pub records: Vec<Option<u64>>,
    pub blocks: Vec<Tags>,
    /// Of each chunk, configs of changes: the newest last, and the first is durable.
    pub stamps: Vec<Vec<(u64, bool)>>,
}

impl Known {
    fn new(uid: SliceUid, there: There) -> Self {
        Self {
            uid,
            volume: VolumeUid(uid.0),
            there,
            sizes: (BLOCKS, BLOCKS),
            records: vec![None],
            blocks: vec![vec![(0, true)]; BLOCKS as usize],
            stamps: vec![vec![(0, true)]; BLOCKS.div_ceil(PER_CHUNK) as usize],
        }
    }

    fn request(&self, blocks: u64) -> SliceRequest {
        SliceRequest {
            volume: self.volume,
            ..request(blocks)
        }
    }
}

/// One change.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Slice, first block, blocks, tag; 0 for zeros.
    Data(usize, u64, u64, u32),
    Make(SliceUid),
    Delete(usize),
    /// Slice, blocks.
    Grow(usize, u64),
    /// Slice, config.
    Record(usize, u64),
    /// All that was answered is durable.
    Flush,
    Nothing,
}

/// How far a step has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Come {
    UnderWay,
    Answered,
    Durable,
}

pub fn change(known: &mut Vec<Known>, step: Step, come: Come) {
    let done = come != Come::UnderWay;
    match step {
        Step::Data(at, first, count, tag) => {
            let config = newest(&known[at]).unwrap_or(0);
            let known = &mut known[at];
            for tags in &mut known.blocks[first as usize..(first + count) as usize] {
                put(tags, tag, come);
            }
            let (first, end) = (first / PER_CHUNK, (first + count).div_ceil(PER_CHUNK));
            for stamps in &mut known.stamps[first as usize..end as usize] {
                put(stamps, config, come);
            }
        }
        Step::Make(uid) => {
            let there = if done { There::Yes } else { There::Maybe };
            known.push(Known::new(uid, there));
        }
        Step::Delete(at) => known[at].there = if done { There::No } else { There::Maybe },
        Step::Grow(at, blocks) => {
            let known = &mut known[at];
            known.sizes.1 = blocks;
            if done {
                known.sizes.0 = blocks;
            }
            known.blocks.resize(blocks as usize, vec![(0, true)]);
            let chunks = blocks.div_ceil(PER_CHUNK) as usize;
            known.stamps.resize(chunks, vec![(0, true)]);
        }
        Step::Record(at, config) => {
            if done {
                known[at].records.clear();
            }
            known[at].records.push(Some(config));
        }
        Step::Flush if done => known.iter_mut().for_each(keep_answered),
        Step::Flush | Step::Nothing => {}
    }
}

fn put<T>(all: &mut Vec<(T, bool)>, next: T, come: Come) {
    if come == Come::Durable {
        all.clear();
    }
    all.push((next, come != Come::UnderWay));
}

/// Nothing older than what was answered last is there any more.
pub fn keep_answered(known: &mut Known) {
    known.blocks.iter_mut().for_each(keep_last);
    known.stamps.iter_mut().for_each(keep_last);
}

fn keep_last<T>(all: &mut Vec<(T, bool)>) {
    let last = all.iter().rposition(|(_, answered)| *answered);
    all.drain(..last.unwrap());
}

/// A moment: so many events had happened, this may be found, and this step comes next.
pub struct Moment {
    pub events: usize,
    pub known: Vec<Known>,
    pub next: Step,
}

pub struct Life {
    pub start: Vec<Block>,
    pub events: Vec<Event>,
    pub moments: Vec<Moment>,
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
    medium.state().blocks.clone()
}

/// Lives by seed.
pub async fn live(seed: u64, breakage: Breakage) -> Life {
    let mut random = Random(seed);
    let medium = Arc::new(Recorder::new(blank()));
    let recorder: Arc<dyn Medium> = medium.clone();
    let opening = Opening {
        breakage,
        ..AFTER_DEATH
    };
    let store = open_after(&recorder, opening).unwrap();
    let mut known = vec![];
    for _ in 0..SLICES {
        let step = Step::Make(SliceUid::random());
        assert_eq!(act(&store, &known, step, false).await, Come::Answered);
        change(&mut known, step, Come::Answered);
    }
    let start = {
        let mut state = medium.state();
        state.events.clear();
        state.blocks.clone()
    };
    let mut moments = vec![];
    let mut events = 0;
    for tag in 1..=STEPS {
        let next = choose(&known, tag, &mut random);
        moments.push(Moment {
            events,
            known: known.clone(),
            next,
        });
        let durable = random.below(3) == 0;
        let come = act(&store, &known, next, durable).await;
        change(&mut known, next, come);
        if matches!(next, Step::Nothing) {
            store.log(Wanted::Fold).await.unwrap();
            change(&mut known, Step::Flush, Come::Answered);
        }
        events = medium.state().events.len();
    }
    moments.push(Moment {
        events,
        known,
        next: Step::Nothing,
    });
    let events = medium.state().events.clone();
    Life {
        start,
        events,
        moments,
    }
}

fn choose(known: &[Known], tag: u32, random: &mut Random) -> Step {
    let there: Vec<_> = (0..known.len())
        .filter(|at| known[*at].there == There::Yes)
        .collect();
    if there.len() < SLICES && random.below(3) == 0 {
        return Step::Make(SliceUid::random());
    }
    let Some(at) = there.get(random.below(SLICES as u64) as usize).copied() else {
        return Step::Flush;
    };
    let size = known[at].sizes.1;
    let first = random.below(size);
    let first = if random.below(2) == 0 {
        first / 16 * 16
    } else {
        first
    };
    let count = [1, 1, 3, 16, 30][random.below(5) as usize].min(size - first);
    match random.below(20) {
        0..10 => Step::Data(at, first, count, tag),
        10..14 => Step::Data(at, first, count, 0),
        14..16 => Step::Flush,
        16 => Step::Delete(at),
        17 if size < MOST => Step::Grow(at, size + 1 + random.below(MOST - size)),
        18 => Step::Record(at, newest(&known[at]).unwrap_or(0) + 1 + random.below(3)),
        _ => Step::Nothing,
    }
}

fn newest(known: &Known) -> Option<u64> {
    known.records.last().copied().flatten()
}

/// Does a step and says how far it came.
async fn act(store: &Arc<Store>, known: &[Known], step: Step, durable: bool) -> Come {
    let slice = |at: usize| store.slice(known[at].uid).unwrap();
    let carried = |at: usize| Carried {
        config: Config(newest(&known[at]).unwrap_or(0)),
        ..Carried::default()
    };
    match step {
        Step::Data(at, first, count, 0) => {
            let (slice, offset, length) = (slice(at), first * BLOCK, count * BLOCK);
            let done = store.zero(&slice, offset, length, carried(at), ());
            done.await.unwrap();
            Come::Answered
        }
        Step::Data(at, first, count, tag) => {
            let mode = if durable {
                Write::Durable
            } else {
                Write::Cached
            };
            let (slice, data) = (slice(at), tagged(tag, count));
            let done = store.write(&slice, first * BLOCK, data, mode, carried(at), ());
            match done.await {
                Ok(()) if durable => Come::Durable,
                Ok(()) => Come::Answered,
                // Nothing is free: parts of it may have been written all the same.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NoSpace);
                    Come::UnderWay
                }
            }
        }
        Step::Make(uid) => {
            let known = Known::new(uid, There::Yes);
            store.allocate(uid, known.request(BLOCKS)).await.unwrap();
            Come::Answered
        }
        Step::Delete(at) => {
            assert!(store.delete(known[at].uid).await.unwrap());
            Come::Answered
        }
        Step::Grow(at, blocks) => {
            let request = known[at].request(blocks);
            store.allocate(known[at].uid, request).await.unwrap();
            Come::Answered
        }
        Step::Record(at, config) => {
            let slice = slice(at);
            let expected = slice.record();
            // A member lacks something: holes are kept.
            let next = record(&slice, config, Some(config));
            let put = store.put_record(&slice, expected.as_deref(), next);
            assert!(put.await.unwrap());
            Come::Answered
        }
        Step::Flush => {
            store.flush(()).await.unwrap();
            // As an engine tells that has flushed all members: what it does not number leaves so.
            let there = known.iter().filter_map(|known| store.slice(known.uid));
            there.for_each(|slice| store.regions_equal(&slice, &[0, 1]));
            Come::Answered
        }
        Step::Nothing => Come::Answered,
    }
}
