//! The tables in the metadata region, and the transactions on them. Blocks its caller.

use super::backend::Region;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use std::ops::RangeInclusive;
use uuid::Uuid;
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, SliceUid, Term, VolumeUid};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slice uid to [`RawRow`].
const SLICES: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("slices");
/// Uid of each slice that was deleted, to the number it had. Never forgotten.
const TOMBSTONES: TableDefinition<'_, u128, u32> = TableDefinition::new("tombstones");
/// Slice number (high half) and chunk index in the slice (low half), to the chunk's number.
const CHUNKS: TableDefinition<'_, u64, u32> = TableDefinition::new("chunks");

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
struct RawRow {
    volume: [u8; 16],
    host_id: [u8; 16],
    size: U64,
    term: U64,
    boot: U64,
    generation: U64,
    number: U32,
}

/// One change of the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// This slice is recorded so, new or not.
    Put(SliceRow),
    /// This slice is gone with all its chunks, and its uid for good.
    Delete(SliceRow),
    /// The slice has this chunk from now on.
    Map(SliceNumber, ChunkIndex, ChunkNumber),
    /// The slice does not have this chunk any more.
    Unmap(SliceNumber, ChunkIndex, ChunkNumber),
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
}

/// The open tables.
#[derive(Debug)]
pub struct Tables(Database);

impl Tables {
    /// Opens the tables in the region, or makes them in an empty one.
    pub fn open(region: Region) -> Result<Self, redb::Error> {
        let database = Builder::new()
            .set_cache_size(CACHE)
            .create_with_backend(region)?;
        let change = database.begin_write()?;
        change.open_table(SLICES)?;
        change.open_table(TOMBSTONES)?;
        change.open_table(CHUNKS)?;
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
        Ok(loaded)
    }

    /// The chunks that the slice has in this range of indexes.
    pub fn mapped(
        &self,
        slice: SliceNumber,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<(ChunkIndex, ChunkNumber)>, redb::Error> {
        let table = self.0.begin_read()?.open_table(CHUNKS)?;
        let (start, end) = (ChunkIndex(*range.start()), ChunkIndex(*range.end()));
        let mut found = Vec::new();
        for entry in table.range(join(slice, start)..=join(slice, end))? {
            let (key, number) = entry?;
            found.push((split(key.value()).1, ChunkNumber(number.value())));
        }
        Ok(found)
    }

    /// Makes all changes durable, or none; gives the chunks of deleted slices. Everything
    /// written to the medium before this call is durable before the changes are.
    pub fn commit(
        &self,
        changes: impl Iterator<Item = Change>,
    ) -> Result<Vec<ChunkNumber>, redb::Error> {
        let mut transaction = self.0.begin_write()?;
        // Two flushes: data and pages first, then the header that makes them current. With one, a
        // power cut could keep a mapping and lose the data (or zeros) written into its chunk.
        transaction.set_two_phase_commit(true);
        let mut freed = Vec::new();
        {
            let mut slices = transaction.open_table(SLICES)?;
            let mut tombstones = transaction.open_table(TOMBSTONES)?;
            let mut chunks = transaction.open_table(CHUNKS)?;
            for change in changes {
                match change {
                    Change::Put(row) => {
                        slices.insert(row.uid.0.as_u128(), encode_row(&row).as_bytes())?;
                    }
                    Change::Delete(row) => {
                        slices.remove(row.uid.0.as_u128())?;
                        tombstones.insert(row.uid.0.as_u128(), row.number.0)?;
                        let all = join(row.number, ChunkIndex(0))
                            ..=join(row.number, ChunkIndex(u32::MAX));
                        chunks.retain_in(all, |_, number| {
                            freed.push(ChunkNumber(number));
                            false
                        })?;
                    }
                    Change::Map(slice, index, number) => {
                        chunks.insert(join(slice, index), number.0)?;
                    }
                    Change::Unmap(slice, index, _) => {
                        chunks.remove(join(slice, index))?;
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(freed)
    }
}

fn join(slice: SliceNumber, index: ChunkIndex) -> u64 {
    u64::from(slice.0) << 32 | u64::from(index.0)
}

fn split(key: u64) -> (SliceNumber, ChunkIndex) {
    (SliceNumber((key >> 32) as u32), ChunkIndex(key as u32))
}

fn encode_row(row: &SliceRow) -> RawRow {
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

fn decode_row(uid: u128, bytes: &[u8]) -> Result<SliceRow, redb::Error> {
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
        let superblock = Superblock {
            counter: 0,
            drive: DriveUid::random(),
            cluster: ClusterUid::random(),
            geometry,
            metadata_length: 0,
            document_generation: DocumentGeneration(0),
        };
        let medium = Arc::new(MemoryDisk::new(geometry.data_start));
        let superblocks = Arc::new(Superblocks::new(medium.clone(), superblock));
        let tables = Tables::open(Region::new(medium, superblocks.clone())).unwrap();
        let all: Vec<_> = scattered().collect();
        let place = |id: &u32| (SliceNumber(id % 7), ChunkIndex(id / 7), ChunkNumber(*id));
        for ids in all.chunks(2048) {
            tables
                .commit(
                    ids.iter()
                        .map(place)
                        .map(|(slice, index, chunk)| Change::Map(slice, index, chunk)),
                )
                .unwrap();
        }
        for ids in all.chunks(4096).step_by(2) {
            tables
                .commit(
                    ids.iter()
                        .map(place)
                        .map(|(slice, index, chunk)| Change::Unmap(slice, index, chunk)),
                )
                .unwrap();
            tables
                .commit(
                    ids.iter()
                        .map(place)
                        .map(|(slice, index, chunk)| Change::Map(slice, index, chunk)),
                )
                .unwrap();
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
