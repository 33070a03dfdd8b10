//! A medium that records what is done to it, and what is left of it after an end.

use super::super::*;
use std::collections::BTreeMap;

pub const PAGE: usize = BLOCK as usize;
const SECTOR: usize = 512;

pub type Block = Arc<[u8; PAGE]>;

#[derive(Clone)]
pub enum Event {
    Write(usize, Block, bool),
    Flush,
}

/// A medium in memory that notes what is done to it.
pub struct Recorder(Mutex<State>);

pub struct State {
    pub blocks: Vec<Block>,
    pub events: Vec<Event>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder")
    }
}

impl Recorder {
    pub fn new(blocks: Vec<Block>) -> Self {
        let events = vec![];
        Self(Mutex::new(State { blocks, events }))
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
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
        assert!(data.len().is_multiple_of(PAGE) && offset.is_multiple_of(BLOCK));
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
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// How a life ends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cut {
    /// The process dies: all that was written is there.
    Death,
    /// The power goes, and all that was written is there all the same.
    Prefix,
    /// The power goes. Of each block written since the last flush any version is there.
    Reordered,
    /// The same, and blocks may be torn at 512 bytes.
    Torn,
}

/// What the medium has for certain, and the versions that it may keep or lose.
#[derive(Clone)]
pub struct Kept {
    durable: Vec<Block>,
    cached: BTreeMap<usize, Vec<Block>>,
}

impl Kept {
    pub fn new(durable: Vec<Block>) -> Self {
        let cached = BTreeMap::new();
        Self { durable, cached }
    }

    pub fn take(&mut self, event: &Event) {
        match event {
            Event::Write(at, block, true) => {
                self.cached.remove(at);
                self.durable[*at] = block.clone();
            }
            Event::Write(at, block, false) => {
                self.cached.entry(*at).or_default().push(block.clone());
            }
            Event::Flush => {
                for (at, versions) in std::mem::take(&mut self.cached) {
                    self.durable[at] = versions.last().unwrap().clone();
                }
            }
        }
    }

    /// A place that parts what is cached: often at the widest gap, as between tables and checksums.
    fn pivot(&self, random: &mut Random) -> usize {
        let places: Vec<_> = self.cached.keys().copied().collect();
        let widest = places.windows(2).max_by_key(|pair| pair[1] - pair[0]);
        match widest {
            Some(pair) if random.below(2) == 0 => pair[0],
            _ if places.is_empty() => 0,
            _ => places[random.below(places.len() as u64) as usize],
        }
    }

    /// What is there after this end. Of some cuts most is kept, of others most is lost, or all
    /// beyond some place.
    pub fn after(&self, cut: Cut, random: &mut Random) -> Vec<Block> {
        let mut left = self.durable.clone();
        let bias = random.below(6);
        let pivot = self.pivot(random);
        for (at, versions) in &self.cached {
            let newest = versions.len() as u64;
            let chosen = match (cut, bias) {
                (Cut::Death | Cut::Prefix, _) => newest,
                (_, 0) if random.below(8) > 0 => newest,
                (_, 1) if random.below(8) > 0 => 0,
                // One part of the medium is ahead of the other: tables of checksums, say.
                (_, 2) => newest * u64::from(*at <= pivot),
                (_, 3) => newest * u64::from(*at > pivot),
                _ => random.below(newest + 1),
            };
            let version = |chosen: u64| match chosen {
                0 => self.durable[*at].clone(),
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
}
