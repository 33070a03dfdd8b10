//! What is newer than the checksum pages and the tables: in memory, and most of it in the log.

use super::core::{LeafKey, in_leaf};
use super::log::Entry;
use super::sums::Sums;
use super::suspect::Suspects;
use super::tables::{ChunkIndex, ChunkNumber, SliceNumber};
use super::voids::Voids;
use std::collections::{BTreeMap, HashMap};
use weft_spec::drive::Config;

/// A chunk's place in a slice.
pub type Place = (SliceNumber, ChunkIndex);

/// Checksums of a chunk and whose it is.
#[derive(Clone, Copy, Debug)]
struct Owned {
    place: Place,
    sums: Sums,
}

/// See the module.
#[derive(Default)]
pub struct Pending {
    /// Written, not in the log.
    written: BTreeMap<ChunkNumber, Owned>,
    /// In the log, not in the pages.
    logged: HashMap<ChunkNumber, Sums>,
    /// In the log, not in the tables.
    map: BTreeMap<Place, Option<ChunkNumber>>,
    /// Freed chunks that rebuilds must know of, and holes that are filled.
    holes: BTreeMap<Place, Option<Config>>,
    /// In the log, not in the tables.
    voids: Voids,
    /// Some of them are not durable.
    new_voids: bool,
    /// Allocated in the log, but their data may not be durable.
    unsettled: HashMap<ChunkNumber, Place>,
    /// Unmapped in the log; free once that is durable.
    freeing: Vec<ChunkNumber>,
    /// Blocks that are not what was written.
    suspects: Suspects,
    /// Those of them that the log does not know.
    unlogged_suspects: Suspects,
    folds: u64,
}

/// What one flush makes durable.
#[derive(Debug, Default)]
pub struct Flushing {
    /// For the log.
    pub entries: Vec<Entry>,
    /// Some of it are new chunks: their data must be durable before the record.
    pub settles: bool,
    /// Free afterwards.
    pub freed: Vec<ChunkNumber>,
}

/// What one fold takes into pages and tables.
#[derive(Clone, Debug, Default)]
pub struct Folding {
    /// For the pages.
    pub sums: HashMap<ChunkNumber, Sums>,
    /// For the chunk map.
    pub map: BTreeMap<Place, Option<ChunkNumber>>,
    /// For the table of holes.
    pub holes: BTreeMap<Place, Option<Config>>,
    /// For the table of voids.
    pub voids: Voids,
    /// All there are.
    pub suspects: Suspects,
}

impl Pending {
    /// Blocks of a chunk are not what was written. Whether that is news, for the log.
    pub fn suspect(&mut self, place: Place, mask: u16) -> bool {
        let new = self.suspects.add(place, mask);
        if new != 0 {
            self.unlogged_suspects.add(place, new);
        }
        new != 0
    }

    /// Suspects that the log does not know; from here on they count as logged.
    pub fn new_suspects(&mut self) -> Vec<Entry> {
        let new = std::mem::take(&mut self.unlogged_suspects);
        new.iter()
            .map(|((slice, index), mask)| Entry::Suspect(slice, index, mask))
            .collect()
    }

    /// The slice is gone.
    pub fn deleted(&mut self, slice: SliceNumber) {
        self.suspects.deleted(slice);
        self.unlogged_suspects.deleted(slice);
    }

    /// The log has, or will have next, what these blocks are.
    fn no_suspects(&mut self, place: Place, mask: u16) {
        self.suspects.written(place, mask);
        self.unlogged_suspects.written(place, mask);
    }

    /// Blocks of a chunk were written. Whether some were suspect: then the write is acknowledged
    /// only when the log knows of it.
    pub fn wrote(&mut self, place: Place, chunk: ChunkNumber, sums: &Sums) -> bool {
        let owned = self.written.entry(chunk).or_insert(Owned {
            place,
            sums: Sums::default(),
        });
        owned.place = place;
        owned.sums.overlay(sums);
        self.suspects.of(place) & sums.mask != 0
    }

    /// A new chunk is in the log; it was written whole.
    pub fn allocated(&mut self, place: Place, chunk: ChunkNumber, sums: Sums) {
        self.written.insert(chunk, Owned { place, sums });
        self.map.insert(place, Some(chunk));
        self.holes.insert(place, None);
        self.unsettled.insert(chunk, place);
        self.no_suspects(place, u16::MAX);
    }

    /// A chunk that is given up is in the log.
    pub fn unmapped(&mut self, place: Place, chunk: ChunkNumber, stamp: Config) {
        self.written.remove(&chunk);
        self.unsettled.remove(&chunk);
        self.map.insert(place, None);
        // Without a config nobody will ever ask what changed since one.
        let hole = (stamp != Config::default()).then_some(stamp);
        self.holes.insert(place, hole);
        self.freeing.push(chunk);
        self.no_suspects(place, u16::MAX);
    }

    /// Something without a chunk was made zeros, and that is in the log.
    pub fn void(&mut self, leaf: LeafKey, stamp: Config) {
        self.voids.stamp(leaf, stamp);
        self.new_voids = true;
    }

    /// Of a leaf, if the log has it.
    pub fn void_of(&self, leaf: LeafKey) -> Option<Config> {
        self.voids.of(leaf)
    }

    /// Whether a flush has to make some durable.
    pub fn has_new_voids(&self) -> bool {
        self.new_voids
    }

    /// Newest known of a chunk, above its page.
    pub fn sums(&self, chunk: ChunkNumber) -> Sums {
        let mut known = self.logged.get(&chunk).copied().unwrap_or_default();
        if let Some(written) = self.written.get(&chunk) {
            known.overlay(&written.sums);
        }
        known
    }

    /// Chunks with checksums that are in the log only once the next flush is.
    pub fn unlogged(&self) -> usize {
        self.written.len()
    }

    /// Whether a flush has anything to do but for voids.
    pub fn is_flushed(&self) -> bool {
        self.written.is_empty() && self.unsettled.is_empty() && self.freeing.is_empty()
    }

    /// Takes what the next flush makes durable. It counts as logged from here on: a log that
    /// cannot be written ends the store.
    pub fn begin_flush(&mut self) -> Flushing {
        self.new_voids = false;
        let unsettled = std::mem::take(&mut self.unsettled);
        let mut flushing = Flushing {
            entries: Vec::with_capacity(self.written.len()),
            settles: !unsettled.is_empty(),
            freed: std::mem::take(&mut self.freeing),
        };
        for (chunk, owned) in std::mem::take(&mut self.written) {
            let (slice, index) = owned.place;
            self.no_suspects(owned.place, owned.sums.mask);
            flushing.entries.push(Entry::Sums {
                slice,
                index,
                chunk,
                settled: unsettled.contains_key(&chunk),
                sums: owned.sums,
            });
            let logged = self.logged.entry(chunk).or_default();
            if owned.sums.mask == u16::MAX {
                *logged = owned.sums;
            } else {
                logged.overlay(&owned.sums);
            }
        }
        flushing
    }

    /// What was recovered from the log, as if it had just been logged.
    pub fn recovered(&mut self, found: Folding) {
        (self.logged, self.map, self.holes) = (found.sums, found.map, found.holes);
        (self.suspects, self.voids) = (found.suspects, found.voids);
    }

    /// Everything that is in the log.
    pub fn begin_fold(&self) -> Folding {
        Folding {
            sums: self.logged.clone(),
            map: self.map.clone(),
            holes: self.holes.clone(),
            voids: self.voids.clone(),
            suspects: self.suspects.clone(),
        }
    }

    /// All of that is in pages and tables. Nothing was logged meanwhile: one task does both.
    pub fn end_fold(&mut self) {
        self.logged.clear();
        self.map.clear();
        self.holes.clear();
        self.voids.clear();
        self.folds += 1;
    }

    /// Number of folds; what was read from the tables before another one began may be older than
    /// what is known here.
    pub fn folds(&self) -> u64 {
        self.folds
    }

    /// Holes of a leaf of the map that differ from the tables.
    pub fn holes_of(&self, leaf: LeafKey) -> impl Iterator<Item = (ChunkIndex, Option<Config>)> {
        of_leaf(&self.holes, leaf)
    }

    /// Chunks of a leaf of the map that differ from the tables.
    pub fn map_of(&self, leaf: LeafKey) -> impl Iterator<Item = (ChunkIndex, Option<ChunkNumber>)> {
        of_leaf(&self.map, leaf)
    }
}

fn of_leaf<T: Copy>(
    all: &BTreeMap<Place, T>,
    (slice, leaf): LeafKey,
) -> impl Iterator<Item = (ChunkIndex, T)> {
    let (first, last) = in_leaf(leaf).into_inner();
    let found = all.range((slice, ChunkIndex(first))..=(slice, ChunkIndex(last)));
    found.map(|((_, index), value)| (*index, *value))
}
