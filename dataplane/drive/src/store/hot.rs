//! Hot regions: where writes may differ between members, or from what is recorded of them here.

use super::tables::SliceNumber;
use std::collections::{BTreeMap, HashMap};
use weft_spec::drive::Config;
use weft_spec::ids::FencePair;

/// Bytes of a region. See the measurement in `docs/decisions/013-on-disk-format-1.md`.
pub const REGION: u64 = 1 << 20;

/// Which region of which slice.
pub type RegionKey = (SliceNumber, u32);

/// Number of a write that is one of an in-sync set and carries none: no checkpoint passes it.
const UNNUMBERED: u64 = u64::MAX;

/// The engine's process and its number of a write; 0 for one that carries none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Mark {
    /// Of the association that wrote.
    pub pair: FencePair,
    /// Grows within the pair.
    pub number: u64,
}

impl Mark {
    /// What a write under this config counts as. An engine without an in-sync set has no members to
    /// compare; one with a set has, and what it does not number it cannot checkpoint.
    pub fn under(self, config: Config) -> Self {
        match (config, self.number) {
            (Config(0), _) | (_, 1..) => self,
            (_, 0) => Self {
                number: UNNUMBERED,
                ..self
            },
        }
    }

    /// What counts of a region after another write: one without a number says nothing of those
    /// before it, whoever sent it.
    pub fn and(self, next: Self) -> Self {
        match (self.number, next.number) {
            (1.., 0) => self,
            (0, 1..) => next,
            _ => self.max(next),
        }
    }
}

/// One hot region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Of its last write that has a number.
    pub mark: Mark,
    /// From an earlier engine: leaves only when its engine says that it is equal and flushed.
    pub inherited: bool,
    /// Writes in flight.
    writers: u32,
    /// Written since what was last made durable.
    dirty: bool,
    /// The members are equal here, by the engine's word, unless written since.
    released: bool,
}

impl Region {
    /// As its record is durable, before any write.
    fn recorded(mark: Mark) -> Self {
        Self {
            mark,
            inherited: false,
            writers: 0,
            dirty: false,
            released: false,
        }
    }
}

/// The hot set in memory: every region whose record is durable.
#[derive(Default)]
pub struct Hot {
    regions: BTreeMap<RegionKey, Region>,
    /// Regions that did not cool last time.
    left: usize,
    checkpoints: HashMap<SliceNumber, Mark>,
}

/// What a write must do before it may write.
#[derive(Debug, PartialEq, Eq)]
pub enum Entered {
    /// Nothing.
    Hot,
    /// These are not recorded yet: record them, then [`Hot::recorded`], and try again.
    Cold(Vec<RegionKey>),
}

/// The regions that a range touches.
pub fn regions(
    slice: SliceNumber,
    offset: u64,
    length: u64,
) -> impl Iterator<Item = RegionKey> + Clone {
    let last = (offset + length.max(1) - 1) / REGION;
    // A slice has at most 2^48 bytes, so that the number of a region fits.
    (offset / REGION..=last).map(move |region| (slice, region as u32))
}

impl Hot {
    /// Takes in what was found at the start.
    pub fn inherit(&mut self, key: RegionKey, mark: Mark) {
        let region = Region {
            inherited: mark.number != 0,
            ..Region::recorded(mark)
        };
        self.regions.insert(key, region);
    }

    /// Begins a write in these regions, if all of them are recorded as hot.
    pub fn enter(&mut self, keys: impl Iterator<Item = RegionKey> + Clone, mark: Mark) -> Entered {
        let cold: Vec<_> = keys
            .clone()
            .filter(|key| !self.regions.contains_key(key))
            .collect();
        if !cold.is_empty() {
            return Entered::Cold(cold);
        }
        for key in keys {
            if let Some(region) = self.regions.get_mut(&key) {
                region.writers += 1;
                region.released = false;
                region.mark = region.mark.and(mark);
            }
        }
        Entered::Hot
    }

    /// These are recorded, durably.
    pub fn recorded(&mut self, keys: &[RegionKey], mark: Mark) {
        for key in keys {
            self.regions.entry(*key).or_insert(Region::recorded(mark));
        }
    }

    /// Ends a write begun by [`Hot::enter`].
    pub fn leave(&mut self, keys: impl Iterator<Item = RegionKey>) {
        for key in keys {
            if let Some(region) = self.regions.get_mut(&key) {
                region.writers = region.writers.saturating_sub(1);
                region.dirty = true;
            }
        }
    }

    /// What was written is about to be made durable: only writes after this count as dirty.
    pub fn snapshot(&mut self) {
        self.regions
            .values_mut()
            .for_each(|region| region.dirty = region.writers > 0);
    }

    /// Every write of this pair up to this number is equal on all members and flushed.
    pub fn checkpoint(&mut self, slice: SliceNumber, mark: Mark) {
        let newest = self.checkpoints.entry(slice).or_default();
        *newest = (*newest).max(mark);
    }

    /// The engine says that the region is equal on all members and flushed there.
    pub fn equal(&mut self, key: RegionKey) {
        if let Some(region) = self.regions.get_mut(&key)
            && region.writers == 0
        {
            region.released = true;
        }
    }

    /// Another engine is admitted: what is hot is none of its writes.
    pub fn new_engine(&mut self, slice: SliceNumber) {
        self.checkpoints.remove(&slice);
        let mine = self.regions.iter_mut().filter(|(key, _)| key.0 == slice);
        mine.for_each(|(_, region)| region.inherited |= region.mark.number != 0);
    }

    /// Takes out the regions that are durable here as a whole and checkpointed. What is left is
    /// the hot set to record.
    pub fn cool(&mut self) -> Vec<(RegionKey, Mark)> {
        let checkpoints = &self.checkpoints;
        self.regions.retain(|(slice, _), region| {
            let here = region.writers == 0 && !region.dirty;
            let checkpoint = checkpoints.get(slice).copied().unwrap_or_default();
            let passed = match region.mark.number {
                0 => true,
                UNNUMBERED => false,
                number => region.mark.pair == checkpoint.pair && number <= checkpoint.number,
            };
            let told = if region.inherited {
                region.released
            } else {
                region.released || passed
            };
            !(here && told)
        });
        self.left = self.regions.len();
        self.regions
            .iter()
            .map(|(key, region)| (*key, region.mark))
            .collect()
    }

    /// A slice is gone.
    pub fn forget(&mut self, slice: SliceNumber) {
        self.checkpoints.remove(&slice);
        self.regions.retain(|(owner, _), _| *owner != slice);
    }

    /// Regions of a slice, in order, with whether each is inherited.
    pub fn of(&self, slice: SliceNumber) -> Vec<(u32, Region)> {
        let mut found: Vec<_> = self
            .regions
            .iter()
            .filter(|((owner, _), _)| *owner == slice)
            .map(|((_, region), state)| (*region, *state))
            .collect();
        found.sort_by_key(|(region, _)| *region);
        found
    }

    /// Regions of a slice.
    pub fn count(&self, slice: SliceNumber) -> usize {
        self.regions
            .keys()
            .filter(|(owner, _)| *owner == slice)
            .count()
    }

    /// Regions that became hot since the last time that they were to cool. What could not cool
    /// then is no reason to try again.
    pub fn grown(&self) -> usize {
        self.regions.len().saturating_sub(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_spec::ids::{Boot, Term};

    const SLICE: SliceNumber = SliceNumber(1);
    const KEY: RegionKey = (SLICE, 0);

    fn mark(boot: u64, number: u64) -> Mark {
        let pair = FencePair {
            term: Term(1),
            boot: Boot(boot),
        };
        Mark { pair, number }
    }

    fn write(hot: &mut Hot, mark: Mark) {
        if let Entered::Cold(keys) = hot.enter([KEY].into_iter(), mark) {
            hot.recorded(&keys, mark);
            assert_eq!(hot.enter([KEY].into_iter(), mark), Entered::Hot);
        }
        hot.leave([KEY].into_iter());
    }

    #[test]
    fn a_region_leaves_when_it_is_durable_and_a_checkpoint_has_passed_its_last_write() {
        let mut hot = Hot::default();
        write(&mut hot, mark(1, 7));
        hot.checkpoint(SLICE, mark(1, 7));
        assert_eq!(hot.cool().len(), 1, "not durable here");
        hot.snapshot();
        assert_eq!(hot.cool(), []);
        write(&mut hot, mark(1, 8));
        hot.snapshot();
        assert_eq!(
            hot.cool(),
            [(KEY, mark(1, 8))],
            "written after the checkpoint"
        );
        hot.checkpoint(SLICE, mark(2, 99));
        assert_eq!(hot.cool().len(), 1, "another engine's number says nothing");
    }

    #[test]
    fn what_is_inherited_leaves_only_by_the_word_that_it_is_equal() {
        let mut hot = Hot::default();
        write(&mut hot, mark(1, 7));
        hot.snapshot();
        hot.new_engine(SLICE);
        hot.checkpoint(SLICE, mark(1, 7));
        assert_eq!(hot.cool().len(), 1);
        hot.equal(KEY);
        write(&mut hot, mark(2, 1));
        hot.snapshot();
        assert_eq!(hot.cool().len(), 1, "written since it was said");
        hot.equal(KEY);
        assert_eq!(hot.cool(), []);
    }

    #[test]
    fn a_newer_engines_write_without_a_number_takes_no_numbered_ones_place() {
        let mut hot = Hot::default();
        write(&mut hot, mark(1, 7));
        hot.new_engine(SLICE);
        write(&mut hot, mark(2, 0));
        hot.snapshot();
        assert_eq!(hot.cool(), [(KEY, mark(1, 7))]);
        // As it is found by the next process of the drive.
        let mut again = Hot::default();
        again.inherit(KEY, mark(1, 7));
        write(&mut again, mark(2, 0));
        again.snapshot();
        assert_eq!(again.cool().len(), 1);
        again.equal(KEY);
        assert_eq!(again.cool(), []);
    }

    #[test]
    fn what_a_set_does_not_number_leaves_only_by_the_word_that_it_is_equal() {
        let alone = mark(1, 0).under(Config(0));
        let (unnumbered, numbered) = (mark(1, 0).under(Config(3)), mark(1, 7).under(Config(3)));
        assert_eq!((alone, numbered), (mark(1, 0), mark(1, 7)));
        let mut hot = Hot::default();
        write(&mut hot, numbered);
        write(&mut hot, unnumbered);
        write(&mut hot, mark(1, 8));
        hot.checkpoint(SLICE, mark(1, u64::MAX));
        hot.snapshot();
        assert_eq!(hot.cool().len(), 1);
        hot.equal(KEY);
        assert_eq!(hot.cool(), []);
    }

    #[test]
    fn what_cannot_cool_is_no_reason_to_cool_again() {
        let mut hot = Hot::default();
        write(&mut hot, mark(1, 7));
        assert_eq!(hot.grown(), 1);
        hot.snapshot();
        assert_eq!(hot.cool().len(), 1, "not checkpointed");
        assert_eq!((hot.grown(), hot.count(SLICE)), (0, 1));
    }

    #[test]
    fn a_region_being_written_stays() {
        let mut hot = Hot::default();
        write(&mut hot, Mark::default());
        assert_eq!(hot.enter([KEY].into_iter(), Mark::default()), Entered::Hot);
        hot.snapshot();
        assert_eq!(hot.cool().len(), 1);
        hot.leave([KEY].into_iter());
        hot.snapshot();
        assert_eq!(hot.cool(), []);
    }
}
