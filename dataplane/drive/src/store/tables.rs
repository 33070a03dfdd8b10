//! The tables in the metadata region, and the transactions on them. Blocks its caller.

use super::backend::Region;
use super::commit::{Breakage, Broken};
use super::core::LeafKey;
use super::hot::{Mark, RegionKey};
use super::pending::Folding;
use super::scrub::Cursor;
use super::suspect::Suspects;
use crate::superblock::LogStart;
use redb::{
    Builder, Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction,
};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use uuid::Uuid;
use weft_spec::drive::{Config, SliceRecord};
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, SliceUid, Term, VolumeUid};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slice uid to [`RawRow`].
const SLICES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("slices");
/// Uid of each slice that was deleted, to the number it had. Never forgotten.
const TOMBSTONES: TableDefinition<'_, u128, u32> = TableDefinition::new("tombstones");
/// Slice number (high half) and chunk index in the slice (low half), to the chunk's number.
const CHUNKS: TableDefinition<'_, u64, u32> = TableDefinition::new("chunks");

/// Slice number and chunk index of chunks that were freed, to the config since which.
const HOLES: TableDefinition<'_, u64, u64> = TableDefinition::new("holes");
/// Slice number and leaf of the chunk map, to the greatest config under which something there that
/// had no chunk was made zeros.
const VOIDS: TableDefinition<'_, u64, u64> = TableDefinition::new("voids");
/// Slice number and region of hot regions, to term, boot and number of the last write known.
const HOT: TableDefinition<'_, u64, (u64, u64, u64)> = TableDefinition::new("hot");
/// Slice uid to its record, as JSON.
const RECORDS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("records");
/// Epoch, offset and sequence of the first record of the log that is not in these tables.
const FOLDED: TableDefinition<'_, (), (u64, u64, u64)> = TableDefinition::new("folded");
/// Slice and chunk at which the check of everything stored goes on, and bytes checked before.
const SCRUB: TableDefinition<'_, (), (u128, u32, u64)> = TableDefinition::new("scrub");
/// Slice number and chunk index, to the blocks that are known not to be what was written.
const SUSPECT: TableDefinition<'_, u64, u16> = TableDefinition::new("suspect");

/// Memory for pages of the tables: the chunk map has a cache of its own above this.
const CACHE: usize = 512 << 10;

/// A slice's own small number on this drive, short for its uid in the chunk map. Never used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct SliceNumber(pub u32);

/// Index of a chunk within a slice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChunkIndex(pub u32);

/// Number of a chunk on the medium.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ChunkNumber(pub u32);

/// What is recorded of one slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceRow {
    /// Its identity.
    pub uid: SliceUid,
    /// Its number in the chunk map.
    pub number: SliceNumber,
    /// Whose it is.
    pub volume: VolumeUid,
    /// Bytes.
    pub size: u64,
    /// Greatest fence pair heard.
    pub fence: FencePair,
    /// Host identifier registered for that pair; nil before any.
    pub host_id: Uuid,
    /// Greatest generation of the engine's document that was made durable here.
    pub generation: DocumentGeneration,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct RawRow {
    volume: [u8; 16],
    host_id: [u8; 16],
    size: U64,
    term: U64,
    boot: U64,
    generation: U64,
    number: U32,
}

/// What a fold takes into the tables.
#[derive(Debug)]
pub struct Fold<'a> {
    /// Chunk map, holes and voids.
    pub pending: &'a Folding,
    /// The whole hot set.
    pub hot: &'a [(RegionKey, Mark)],
    /// The log up to here.
    pub log: LogStart,
    /// Where the check of everything stored goes on.
    pub cursor: Cursor,
}

/// Everything but the chunk map, as found at the start.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Slices that exist.
    pub slices: Vec<SliceRow>,
    /// Slices that did.
    pub tombstones: Vec<SliceUid>,
    /// First number never used.
    pub next_number: u32,
    /// Regions that were hot.
    pub hot: Vec<(RegionKey, Mark)>,
    /// Records of slices.
    pub records: Vec<(SliceUid, SliceRecord)>,
    /// Up to where the log is in the tables.
    pub folded: LogStart,
    /// Where the check of everything stored goes on.
    pub cursor: Cursor,
    /// Blocks that are not what was written.
    pub suspects: Suspects,
}

/// The open tables.
#[derive(Debug)]
pub struct Tables(Database);

impl Tables {
    /// Opens the tables in the region, or makes them in an empty one.
    pub fn open(region: Region, breakage: Breakage) -> Result<Self, redb::Error> {
        let database = Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(region)?;
        // In two phases, as every other change: after a commit in one phase a slot that is newer
        // than the current one counts as soon as it is found on the medium (redb's own repair
        // commits so), and the next fold could be taken for done while its checksum pages are not
        // durable.
        let mut change = database.begin_write()?;
        change.set_two_phase_commit(!breakage.is(Broken::OnePhase));
        change.open_table(SLICES)?;
        change.open_table(TOMBSTONES)?;
        change.open_table(CHUNKS)?;
        change.open_table(HOLES)?;
        change.open_table(VOIDS)?;
        change.open_table(HOT)?;
        change.open_table(RECORDS)?;
        change.open_table(FOLDED)?;
        change.open_table(SCRUB)?;
        change.open_table(SUSPECT)?;
        change.commit()?;
        Ok(Self(database))
    }

    /// Reads the slices, and gives each mapped chunk to `chunk`.
    pub fn load(
        &self,
        mut chunk: impl FnMut(SliceNumber, ChunkIndex, ChunkNumber),
    ) -> Result<Loaded, redb::Error> {
        let read = self.0.begin_read()?;
        let mut loaded = Loaded::default();
        for entry in read.open_table(SLICES)?.iter()? {
            let (uid, row) = entry?;
            let row = decode_row(uid.value(), row.value())?;
            loaded.next_number = loaded.next_number.max(row.number.0 + 1);
            loaded.slices.push(row);
        }
        for entry in read.open_table(TOMBSTONES)?.iter()? {
            let (uid, number) = entry?;
            loaded.next_number = loaded.next_number.max(number.value() + 1);
            loaded
                .tombstones
                .push(SliceUid(Uuid::from_u128(uid.value())));
        }
        for entry in read.open_table(CHUNKS)?.iter()? {
            let (key, number) = entry?;
            let (slice, index) = split(key.value());
            chunk(slice, index, ChunkNumber(number.value()));
        }
        for entry in read.open_table(HOT)?.iter()? {
            let (key, mark) = entry?;
            let (slice, region) = split(key.value());
            loaded.hot.push(((slice, region.0), mark_of(mark.value())));
        }
        for entry in read.open_table(RECORDS)?.iter()? {
            let (uid, record) = entry?;
            let record = serde_json::from_slice(record.value())
                .map_err(|error| redb::Error::Corrupted(format!("a record: {error}")))?;
            loaded
                .records
                .push((SliceUid(Uuid::from_u128(uid.value())), record));
        }
        for entry in read.open_table(SUSPECT)?.iter()? {
            let (key, mask) = entry?;
            loaded.suspects.add(split(key.value()), mask.value());
        }
        if let Some(folded) = read.open_table(FOLDED)?.get(())? {
            let (epoch, offset, sequence) = folded.value();
            loaded.folded = LogStart {
                epoch,
                offset,
                sequence,
            };
        }
        if let Some(cursor) = read.open_table(SCRUB)?.get(())? {
            let (slice, index, checked) = cursor.value();
            loaded.cursor = Cursor {
                slice: Some(SliceUid(Uuid::from_u128(slice))),
                index,
                checked,
            };
        }
        Ok(loaded)
    }

    /// The chunks that the slice has in this range of indexes.
    pub fn mapped(
        &self,
        slice: SliceNumber,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<(ChunkIndex, ChunkNumber)>, redb::Error> {
        self.range(CHUNKS, slice, range, ChunkNumber)
    }

    /// The holes of the slice in this range of indexes.
    pub fn holes(
        &self,
        slice: SliceNumber,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<(ChunkIndex, Config)>, redb::Error> {
        self.range(HOLES, slice, range, Config)
    }

    /// The stamp of what has no chunk in a leaf of the map.
    pub fn void(&self, (slice, leaf): LeafKey) -> Result<Option<Config>, redb::Error> {
        let found = self.range(VOIDS, slice, leaf..=leaf, Config)?;
        Ok(found.first().map(|(_, stamp)| *stamp))
    }

    fn range<V: redb::Value + 'static, T>(
        &self,
        table: TableDefinition<'_, u64, V>,
        slice: SliceNumber,
        range: RangeInclusive<u32>,
        value: impl Fn(V::SelfType<'_>) -> T,
    ) -> Result<Vec<(ChunkIndex, T)>, redb::Error> {
        let table = self.0.begin_read()?.open_table(table)?;
        let (start, end) = (ChunkIndex(*range.start()), ChunkIndex(*range.end()));
        let mut found = Vec::new();
        for entry in table.range(join(slice, start)..=join(slice, end))? {
            let (key, stored) = entry?;
            found.push((split(key.value()).1, value(stored.value())));
        }
        Ok(found)
    }

    /// Two flushes at the end: data and pages first, then the header that makes them current.
    /// With one, a power cut could keep the tables and lose what they speak of.
    fn change<T>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_two_phase_commit(true);
        let result = change(&transaction)?;
        transaction.commit()?;
        Ok(result)
    }

    /// Records a slice, new or not.
    pub fn put(&self, row: &SliceRow) -> Result<(), redb::Error> {
        self.change(|transaction| {
            let mut slices = transaction.open_table(SLICES)?;
            slices.insert(row.uid.0.as_u128(), encode_row(row).as_bytes())?;
            Ok(())
        })
    }

    /// Sets the record of a slice; holes older than this config are forgotten.
    pub fn put_record(
        &self,
        row: &SliceRow,
        record: &[u8],
        oldest: Config,
    ) -> Result<(), redb::Error> {
        self.change(|transaction| {
            let mut records = transaction.open_table(RECORDS)?;
            records.insert(row.uid.0.as_u128(), record)?;
            let mut holes = transaction.open_table(HOLES)?;
            let missed = |_, stamp| stamp >= oldest.0;
            holes.retain_in(all_of(row.number), missed)?;
            let mut voids = transaction.open_table(VOIDS)?;
            voids.retain_in(all_of(row.number), missed)?;
            Ok(())
        })
    }

    /// Deletes a slice with everything it has, and its uid for good; gives its chunks.
    pub fn delete(&self, row: &SliceRow) -> Result<Vec<ChunkNumber>, redb::Error> {
        self.change(|transaction| {
            let mut freed = Vec::new();
            let uid = row.uid.0.as_u128();
            transaction.open_table(SLICES)?.remove(uid)?;
            transaction.open_table(RECORDS)?.remove(uid)?;
            transaction
                .open_table(TOMBSTONES)?
                .insert(uid, row.number.0)?;
            let all = all_of(row.number);
            let mut chunks = transaction.open_table(CHUNKS)?;
            chunks.retain_in(all.clone(), |_, number| {
                freed.push(ChunkNumber(number));
                false
            })?;
            let mut holes = transaction.open_table(HOLES)?;
            holes.retain_in(all.clone(), |_, _| false)?;
            let mut voids = transaction.open_table(VOIDS)?;
            voids.retain_in(all.clone(), |_, _| false)?;
            let mut hot = transaction.open_table(HOT)?;
            hot.retain_in(all.clone(), |_, _| false)?;
            let mut suspect = transaction.open_table(SUSPECT)?;
            suspect.retain_in(all, |_, _| false)?;
            Ok(freed)
        })
    }

    /// Takes in what the log says. Everything written to the medium before this call is durable
    /// before the change is.
    pub fn fold(&self, fold: &Fold<'_>) -> Result<(), redb::Error> {
        self.change(|transaction| {
            let mut chunks = transaction.open_table(CHUNKS)?;
            for ((slice, index), chunk) in &fold.pending.map {
                match chunk {
                    Some(chunk) => drop(chunks.insert(join(*slice, *index), chunk.0)?),
                    None => drop(chunks.remove(join(*slice, *index))?),
                }
            }
            let mut holes = transaction.open_table(HOLES)?;
            for ((slice, index), stamp) in &fold.pending.holes {
                match stamp {
                    Some(stamp) => drop(holes.insert(join(*slice, *index), stamp.0)?),
                    None => drop(holes.remove(join(*slice, *index))?),
                }
            }
            let mut voids = transaction.open_table(VOIDS)?;
            for ((slice, leaf), stamp) in fold.pending.voids.iter() {
                voids.insert(join(slice, ChunkIndex(leaf)), stamp.0)?;
            }
            let mut hot = transaction.open_table(HOT)?;
            become_these(&mut hot, fold.hot.iter().map(hot_entry).collect())?;
            let mut suspect = transaction.open_table(SUSPECT)?;
            let now = fold.pending.suspects.iter();
            become_these(
                &mut suspect,
                now.map(|((slice, index), mask)| (join(slice, index), mask))
                    .collect(),
            )?;
            let log = fold.log;
            let mut folded = transaction.open_table(FOLDED)?;
            folded.insert((), (log.epoch, log.offset, log.sequence))?;
            let Cursor {
                slice,
                index,
                checked,
            } = fold.cursor;
            let slice = slice.map_or(0, |slice| slice.0.as_u128());
            let mut cursor = transaction.open_table(SCRUB)?;
            cursor.insert((), (slice, index, checked))?;
            Ok(())
        })
    }
}

/// Makes a small table what is to be in it, and writes nothing of what is there already.
fn become_these<V>(
    table: &mut Table<'_, u64, V>,
    mut now: BTreeMap<u64, V>,
) -> Result<(), redb::Error>
where
    V: for<'a> redb::Value<SelfType<'a> = V> + PartialEq + 'static,
{
    table.retain(|key, value| now.get(&key) == Some(&value))?;
    for entry in table.iter()? {
        now.remove(&entry?.0.value());
    }
    for (key, value) in now {
        table.insert(key, value)?;
    }
    Ok(())
}

fn hot_entry(((slice, region), mark): &(RegionKey, Mark)) -> (u64, (u64, u64, u64)) {
    let pair = mark.pair;
    let value = (pair.term.0, pair.boot.0, mark.number);
    (join(*slice, ChunkIndex(*region)), value)
}

fn mark_of((term, boot, number): (u64, u64, u64)) -> Mark {
    let pair = FencePair {
        term: Term(term),
        boot: Boot(boot),
    };
    Mark { pair, number }
}

fn all_of(slice: SliceNumber) -> RangeInclusive<u64> {
    join(slice, ChunkIndex(0))..=join(slice, ChunkIndex(u32::MAX))
}

fn join(slice: SliceNumber, index: ChunkIndex) -> u64 {
    u64::from(slice.0) << 32 | u64::from(index.0)
}

fn split(key: u64) -> (SliceNumber, ChunkIndex) {
    (SliceNumber((key >> 32) as u32), ChunkIndex(key as u32))
}

pub(super) fn encode_row(row: &SliceRow) -> RawRow {
    RawRow {
        volume: row.volume.0.into_bytes(),
        host_id: row.host_id.into_bytes(),
        size: row.size.into(),
        term: row.fence.term.0.into(),
        boot: row.fence.boot.0.into(),
        generation: row.generation.0.into(),
        number: row.number.0.into(),
    }
}

pub(super) fn decode_row(uid: u128, bytes: &[u8]) -> Result<SliceRow, redb::Error> {
    let raw = RawRow::read_from_bytes(bytes).map_err(|_| {
        redb::Error::Corrupted(format!("the row of a slice has {} bytes", bytes.len()))
    })?;
    Ok(SliceRow {
        uid: SliceUid(Uuid::from_u128(uid)),
        number: SliceNumber(raw.number.get()),
        volume: VolumeUid(Uuid::from_bytes(raw.volume)),
        size: raw.size.get(),
        fence: FencePair {
            term: Term(raw.term.get()),
            boot: Boot(raw.boot.get()),
        },
        host_id: Uuid::from_bytes(raw.host_id),
        generation: DocumentGeneration(raw.generation.get()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::superblock::{Geometry, Superblock, Superblocks};
    use std::collections::HashMap;
    use std::sync::Arc;
    use weft_block::MemoryDisk;
    use weft_spec::ids::{ClusterUid, DriveUid};

    /// Ids in an order that splits pages everywhere (a full-period generator modulo 2^15).
    fn scattered() -> impl Iterator<Item = u32> {
        std::iter::successors(Some(1u32), |at| {
            Some(at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223) % (1 << 15))
        })
        .take(1 << 15)
    }

    #[test]
    fn the_chunk_map_of_a_full_drive_fits_its_region_through_all_its_growth() {
        let geometry = Geometry::of(2 << 30).unwrap();
        assert!(geometry.chunks <= 1 << 15);
        let superblock = Superblock::new(DriveUid::random(), ClusterUid::random(), geometry);
        let medium = Arc::new(MemoryDisk::new(geometry.data_start));
        let superblocks = Arc::new(Superblocks::new(medium.clone(), superblock));
        let tables =
            Tables::open(Region::new(medium, superblocks.clone()), Breakage::NONE).unwrap();
        let all: Vec<_> = scattered().collect();
        let fold = |ids: &[u32], mapped: bool| {
            let place = |id: &u32| (SliceNumber(id % 7), ChunkIndex(id / 7));
            let map = ids
                .iter()
                .map(|id| (place(id), mapped.then_some(ChunkNumber(*id))))
                .collect();
            let holes = ids
                .iter()
                .map(|id| (place(id), (!mapped).then_some(Config(1))))
                .collect();
            let sums = HashMap::new();
            let fold = Fold {
                pending: &Folding {
                    sums,
                    map,
                    holes,
                    ..Folding::default()
                },
                hot: &[],
                log: LogStart::default(),
                cursor: Cursor::default(),
            };
            tables.fold(&fold).unwrap();
        };
        for ids in all.chunks(2048) {
            fold(ids, true);
        }
        for ids in all.chunks(4096).step_by(2) {
            fold(ids, false);
            fold(ids, true);
        }
        let mut found = 0;
        tables.load(|_, _, _| found += 1).unwrap();
        assert_eq!(found, 1 << 15);
        let length = superblocks.now().metadata_length;
        assert!(
            length <= geometry.metadata_size / 2,
            "{length} of {}",
            geometry.metadata_size
        );
    }
}
