//! What is found at the start: tables, log, and what an unclean end left in hot regions.

use super::bitmap::FreeMap;
use super::commit::Broken;
use super::core::{Core, LEAF};
use super::hot::{Mark, REGION, RegionKey};
use super::log::{Entry, Log};
use super::pending::{Folding, Place};
use super::scrub::Cursor;
use super::sums::{Area, BLOCKS, Sums, salted};
use super::suspect::Suspects;
use super::tables::{ChunkIndex, ChunkNumber, Fold, Loaded, SliceNumber, SliceRow, Tables};
use super::{Directory, Opening, Slice, StoreError};
use crate::superblock::{CHUNK, Geometry, LogStart, Superblocks};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use uuid::Uuid;
use weft_block::{AlignedBuf, BLOCK, Medium};
use weft_spec::drive::Config;

/// An opened store's state.
pub struct Found {
    /// In memory.
    pub core: Core,
    /// Empty, of a new epoch.
    pub log: Log,
    /// The slices.
    pub directory: Directory,
    /// Where the check of everything stored goes on.
    pub cursor: Cursor,
}

/// What the log adds to the tables.
#[derive(Default)]
struct Replayed {
    pending: Folding,
    /// Sums in the last record, and what was there before them: the flush of that record may not
    /// have ended.
    before_last: HashMap<ChunkNumber, Sums>,
    /// Allocations whose data may not be durable.
    tentative: BTreeMap<Place, ChunkNumber>,
    hot: BTreeMap<RegionKey, Mark>,
}

impl Replayed {
    fn take_in(&mut self, entries: Vec<Entry>, knows: impl Fn(SliceNumber) -> bool) {
        self.before_last.clear();
        for entry in entries {
            match entry {
                Entry::Heat(key, mark) if knows(key.0) => {
                    let known = self.hot.entry(key).or_insert(mark);
                    *known = known.and(mark);
                }
                Entry::Allocate(slice, index, chunk) if knows(slice) => {
                    self.tentative.insert((slice, index), chunk);
                }
                Entry::Unmap(slice, index, _, stamp) if knows(slice) => {
                    self.tentative.remove(&(slice, index));
                    self.pending.map.insert((slice, index), None);
                    let hole = (stamp != Config::default()).then_some(stamp);
                    self.pending.holes.insert((slice, index), hole);
                    self.pending.suspects.written((slice, index), u16::MAX);
                }
                Entry::Void(leaf, stamp) if knows(leaf.0) => {
                    self.pending.voids.stamp(leaf, stamp);
                }
                Entry::Suspect(slice, index, mask) if knows(slice) => {
                    self.pending.suspects.add((slice, index), mask);
                }
                Entry::Sums {
                    slice,
                    index,
                    chunk,
                    settled,
                    sums,
                } if knows(slice) => {
                    if settled {
                        self.settle((slice, index), chunk);
                    }
                    self.sums(chunk, &sums);
                    self.pending.suspects.written((slice, index), sums.mask);
                }
                _ => {}
            }
        }
    }

    fn settle(&mut self, place: Place, chunk: ChunkNumber) {
        self.tentative.remove(&place);
        self.pending.map.insert(place, Some(chunk));
        self.pending.holes.insert(place, None);
    }

    fn sums(&mut self, chunk: ChunkNumber, sums: &Sums) {
        let known = self.pending.sums.entry(chunk).or_default();
        self.before_last.insert(chunk, *known);
        match sums.mask {
            u16::MAX => *known = *sums,
            _ => known.overlay(sums),
        }
    }
}

/// Reads everything, makes it right, and begins a new epoch of the log.
pub fn recover(
    medium: &Arc<dyn Medium>,
    superblocks: &Superblocks,
    tables: &Tables,
    area: &Area,
    opening: Opening,
) -> Result<Found, StoreError> {
    let before = superblocks.now();
    let geometry = before.geometry;
    let mut free = FreeMap::new(geometry.chunks as u32);
    let mut mapped: HashMap<SliceNumber, u32> = HashMap::new();
    let mut damage = None;
    let loaded = tables.load(|slice, index, chunk| {
        if !free.mark(chunk) {
            damage = Some(format!(
                "{chunk:?}, of {slice:?} at {index:?}, is mapped twice or is none"
            ));
        }
        *mapped.entry(slice).or_default() += 1;
    })?;
    let rows: HashMap<SliceNumber, SliceRow> =
        loaded.slices.iter().map(|row| (row.number, *row)).collect();
    if let Some(orphan) = mapped.keys().find(|number| !rows.contains_key(number)) {
        damage = Some(format!("{orphan:?} has chunks but is no slice"));
    }
    let proven = before.clean || (before.session == opening.session && !opening.session.is_nil());
    let replayed = replay(medium, &geometry, before.log, &loaded, &rows)?;
    let mut resolved = resolve(
        Unclean {
            medium,
            tables,
            area,
            geometry,
            rows: &rows,
            loaded: &loaded,
            take_as_is: proven || opening.atomic,
            proven,
            clean: before.clean,
        },
        replayed,
    )?;
    if let Some(problem) = apply_map(tables, &resolved.pending.map, &mut free, &mut mapped)? {
        damage.get_or_insert(problem);
    }
    if let Some(damage) = damage {
        return Err(StoreError::Damaged(damage));
    }
    let mut core = Core::new(free, mapped);
    resolved
        .hot
        .iter()
        .for_each(|(key, mark)| core.hot.inherit(*key, *mark));
    let next = LogStart {
        epoch: before.log.epoch.wrapping_add(1),
        offset: 0,
        sequence: 1,
    };
    if opening.breakage.is(Broken::NoSuspects) {
        resolved.pending.suspects = Suspects::default();
    }
    core.pending.recovered(resolved.pending);
    if resolved.lost {
        // Before anything says that all is well again.
        superblocks.update(|now| now.incarnation = Uuid::new_v4())?;
    }
    let cursor = loaded.cursor;
    fold(&mut core, tables, area, next, cursor)?;
    superblocks.update(|now| {
        now.log = next;
        now.session = opening.session;
        now.clean = false;
    })?;
    Ok(Found {
        core,
        log: Log::new(medium.clone(), &geometry, next),
        directory: directory(loaded),
        cursor,
    })
}

fn directory(loaded: Loaded) -> Directory {
    let mut records: HashMap<_, _> = loaded.records.into_iter().collect();
    let slices = loaded
        .slices
        .into_iter()
        .map(|row| (row.uid, Arc::new(Slice::new(row, records.remove(&row.uid)))))
        .collect();
    Directory {
        slices,
        tombstones: loaded.tombstones.into_iter().collect(),
        next_number: loaded.next_number,
    }
}

fn replay(
    medium: &Arc<dyn Medium>,
    geometry: &Geometry,
    start: LogStart,
    loaded: &Loaded,
    rows: &HashMap<SliceNumber, SliceRow>,
) -> Result<Replayed, StoreError> {
    let mut replayed = Replayed {
        pending: Folding {
            suspects: loaded.suspects.clone(),
            ..Folding::default()
        },
        hot: loaded.hot.iter().copied().collect(),
        ..Replayed::default()
    };
    let folded = loaded.folded;
    if folded.epoch == start.epoch.wrapping_add(1) {
        // An opening was cut off between the tables and the superblock: all of it is folded.
        return Ok(replayed);
    }
    let mut log = Log::new(medium.clone(), geometry, start);
    let mut wrong = None;
    log.replay(|sequence, entries| {
        if folded.epoch != start.epoch || sequence >= folded.sequence {
            let foreign = entries.iter().find(|entry| !fits(entry, geometry, rows));
            wrong = wrong.take().or(foreign.copied());
            replayed.take_in(entries, |slice| rows.contains_key(&slice));
        }
    })?;
    match wrong {
        Some(entry) => Err(StoreError::Damaged(format!("the log says {entry:?}"))),
        None => Ok(replayed),
    }
}

/// Whether an entry speaks of a place that there is: in a slice, which may be gone, and on the
/// medium. A sum kept for any other chunk would go into a page that is none.
fn fits(entry: &Entry, geometry: &Geometry, rows: &HashMap<SliceNumber, SliceRow>) -> bool {
    let in_slice = |slice: &SliceNumber, at: u64| rows.get(slice).is_none_or(|row| at < row.size);
    match entry {
        Entry::Heat((slice, region), _) => in_slice(slice, u64::from(*region) * REGION),
        Entry::Suspect(slice, index, _) => in_slice(slice, u64::from(index.0) * CHUNK),
        Entry::Void((slice, leaf), _) => {
            in_slice(slice, u64::from(*leaf) * u64::from(LEAF) * CHUNK)
        }
        Entry::Allocate(slice, index, chunk)
        | Entry::Unmap(slice, index, chunk, _)
        | Entry::Sums {
            slice,
            index,
            chunk,
            ..
        } => in_slice(slice, u64::from(index.0) * CHUNK) && u64::from(chunk.0) < geometry.chunks,
    }
}

/// What is needed to judge blocks of hot regions.
struct Unclean<'a> {
    medium: &'a Arc<dyn Medium>,
    tables: &'a Tables,
    area: &'a Area,
    geometry: Geometry,
    rows: &'a HashMap<SliceNumber, SliceRow>,
    loaded: &'a Loaded,
    /// A block that matches nothing is what was written last.
    take_as_is: bool,
    /// Nothing that was written is gone.
    proven: bool,
    clean: bool,
}

/// Nothing is left open.
struct Resolved {
    pending: Folding,
    hot: BTreeMap<RegionKey, Mark>,
    /// Acknowledged bytes may be gone.
    lost: bool,
}

/// Settles what the log leaves open.
fn resolve(unclean: Unclean<'_>, mut replayed: Replayed) -> Result<Resolved, StoreError> {
    replayed
        .hot
        .retain(|key, _| unclean.rows.contains_key(&key.0));
    let mut lost = false;
    if !unclean.clean {
        let written = !replayed.hot.is_empty() || !replayed.tentative.is_empty();
        lost = written && !unclean.proven;
        let tentative = std::mem::take(&mut replayed.tentative);
        if unclean.proven {
            for (place, chunk) in tentative {
                replayed.settle(place, chunk);
            }
        }
        let hot: Vec<_> = replayed.hot.keys().copied().collect();
        for key in hot {
            unclean.region(key, &mut replayed)?;
        }
    }
    Ok(Resolved {
        pending: replayed.pending,
        hot: replayed.hot,
        lost,
    })
}

impl Unclean<'_> {
    fn region(
        &self,
        (slice, region): RegionKey,
        replayed: &mut Replayed,
    ) -> Result<(), StoreError> {
        let Some(row) = self.rows.get(&slice) else {
            return Ok(());
        };
        let records = &self.loaded.records;
        let record = records.iter().find(|(uid, _)| *uid == row.uid);
        let config = record.map_or(Config::default(), |(_, record)| record.config);
        let per_region = (REGION / CHUNK) as u32;
        let range = region * per_region..=region * per_region + (per_region - 1);
        let mut chunks: BTreeMap<ChunkIndex, ChunkNumber> = self
            .tables
            .mapped(slice, range.clone())?
            .into_iter()
            .collect();
        let first = (slice, ChunkIndex(*range.start()));
        let last = (slice, ChunkIndex(*range.end()));
        for ((_, index), chunk) in replayed.pending.map.range(first..=last) {
            match chunk {
                Some(chunk) => chunks.insert(*index, *chunk),
                None => chunks.remove(index),
            };
        }
        for (index, chunk) in chunks {
            self.chunk(row, index, chunk, config, replayed)?;
        }
        Ok(())
    }

    /// What the chunk has, and which of its blocks cannot be read.
    fn data(&self, chunk: ChunkNumber) -> Result<(AlignedBuf, u16), StoreError> {
        let mut data = AlignedBuf::zeroed(CHUNK as usize);
        let at = self.geometry.data_start + u64::from(chunk.0) * CHUNK;
        let mut unreadable = 0;
        if self.medium.read_at(at, &mut data).is_err() {
            for (number, block) in data.chunks_exact_mut(BLOCK as usize).enumerate() {
                let read = self.medium.read_at(at + number as u64 * BLOCK, block);
                if let Err(error) = read {
                    tracing::error!(%error, ?chunk, number, "a block of a hot region cannot be read");
                    unreadable |= 1 << number;
                }
            }
        }
        Ok((data, unreadable))
    }

    fn chunk(
        &self,
        row: &SliceRow,
        index: ChunkIndex,
        chunk: ChunkNumber,
        config: Config,
        replayed: &mut Replayed,
    ) -> Result<(), StoreError> {
        let (data, unreadable) = self.data(chunk)?;
        let page = self.area.get(chunk)?;
        let mut newest = page;
        let logged = replayed
            .pending
            .sums
            .get(&chunk)
            .copied()
            .unwrap_or_default();
        newest.overlay(&logged);
        let mut before = page;
        if let Some(older) = replayed.before_last.get(&chunk) {
            before.overlay(older);
        }
        let place = (row.number, index);
        let suspects = &mut replayed.pending.suspects;
        for (block, bytes) in data.chunks_exact(BLOCK as usize).enumerate() {
            let number = u64::from(index.0) * BLOCKS as u64 + block as u64;
            let found = salted(row.uid, number, bytes);
            let bit = 1 << block;
            let in_doubt = replayed.before_last.contains_key(&chunk);
            if unreadable & bit == 0 && found == newest.blocks[block] {
                suspects.written(place, bit);
            } else if (unreadable | suspects.of(place)) & bit == 0
                && (self.take_as_is || (in_doubt && found == before.blocks[block]))
            {
                newest.blocks[block] = found;
            } else {
                // Its reader will be told; the blocks beside it are none the worse.
                suspects.add(place, bit);
            }
        }
        newest.mask = u16::MAX;
        newest.stamp = newest.stamp.max(config);
        replayed.pending.sums.insert(chunk, newest);
        Ok(())
    }
}

/// Brings the free map from the tables to what the log says; gives what contradicts itself.
fn apply_map(
    tables: &Tables,
    map: &BTreeMap<Place, Option<ChunkNumber>>,
    free: &mut FreeMap,
    mapped: &mut HashMap<SliceNumber, u32>,
) -> Result<Option<String>, StoreError> {
    for (slice, index) in map.keys() {
        for (_, chunk) in tables.mapped(*slice, index.0..=index.0)? {
            free.release(chunk);
            if let Some(count) = mapped.get_mut(slice) {
                *count -= 1;
            }
        }
    }
    let mut damage = None;
    for ((slice, index), chunk) in map {
        let Some(chunk) = chunk else { continue };
        if !free.mark(*chunk) {
            damage = Some(format!(
                "{chunk:?}, of {slice:?} at {index:?} in the log, is mapped twice or is none"
            ));
        }
        *mapped.entry(*slice).or_default() += 1;
    }
    Ok(damage)
}

fn fold(
    core: &mut Core,
    tables: &Tables,
    area: &Area,
    log: LogStart,
    cursor: Cursor,
) -> Result<(), StoreError> {
    let pending = core.pending.begin_fold();
    let hot = core.hot.cool();
    area.put(&pending.sums)?;
    tables.fold(&Fold {
        pending: &pending,
        hot: &hot,
        log,
        cursor,
    })?;
    core.pending.end_fold();
    Ok(())
}
