//! What an engine asks of a slice beside its bytes.

use super::core::{LEAF, in_leaf};
use super::hot::{Mark, REGION};
use super::io::blocking;
use super::tables::{ChunkIndex, ChunkNumber};
use super::{Slice, Store};
use crate::superblock::CHUNK;
use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::iter;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{Config, HotCount, HotRegion};
use weft_spec::ids::FencePair;

/// Most bytes hashed by one question.
pub const MOST_HASHED: u64 = 4 << 20;
/// Bytes read at a time for a hash.
const HASH_STEP: u64 = 64 << 10;
/// Reads of them under way at once.
const HASH_READS: usize = 4;

/// Chunks of a slice that changed since a config.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Written.
    pub changed: Vec<u32>,
    /// Freed, or made zeros where no chunk was.
    pub holes: Vec<u32>,
    /// Where to go on.
    pub next: Option<u32>,
}

/// One leaf of the chunk map as it is now.
#[derive(Default)]
struct LeafView {
    chunks: BTreeMap<ChunkIndex, ChunkNumber>,
    holes: BTreeMap<ChunkIndex, Config>,
    /// Of what has no chunk, wherever it is in the leaf.
    void: Option<Config>,
}

impl Store {
    /// Another engine is admitted to the slice.
    pub fn new_engine(&self, slice: &Slice) {
        self.core().hot.new_engine(slice.number());
    }

    /// Every write of this pair up to this number is equal on all members and flushed.
    pub fn checkpoint(&self, slice: &Slice, pair: FencePair, number: u64) {
        let mark = Mark { pair, number };
        self.core().hot.checkpoint(slice.number(), mark);
    }

    /// These regions are equal on all members and flushed.
    pub fn regions_equal(&self, slice: &Slice, regions: &[u32]) {
        let mut core = self.core();
        for region in regions {
            core.hot.equal((slice.number(), *region));
        }
    }

    /// Hot regions of a slice, at most so many, and where to go on.
    pub fn hot_set(&self, slice: &Slice, from: u32, most: usize) -> (Vec<HotRegion>, Option<u32>) {
        let found = self.core().hot.of(slice.number());
        let mut found = found.into_iter().skip_while(|(region, _)| *region < from);
        let regions = found.by_ref().take(most).map(|(region, state)| HotRegion {
            region,
            inherited: state.inherited,
        });
        let regions = regions.collect();
        (regions, found.next().map(|(region, _)| region))
    }

    /// How much of a slice is hot.
    pub fn hot_count(&self, slice: &Slice) -> HotCount {
        HotCount {
            regions: self.core().hot.count(slice.number()) as u64,
            region_size: REGION,
        }
    }

    /// Chunks and holes stamped with `since` or later, from a chunk on; about `most` of them.
    pub async fn changes(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        since: Config,
        from: u32,
        most: usize,
    ) -> Result<Changes, DiskError> {
        let (store, slice) = (self.clone(), slice.clone());
        let changes = move || store.changes_blocking(&slice, since, from, most);
        blocking(&*self.medium, changes).await
    }

    fn changes_blocking(
        &self,
        slice: &Slice,
        since: Config,
        from: u32,
        most: usize,
    ) -> Result<Changes, DiskError> {
        // Bounded by the size of a slice.
        let end = slice.size().div_ceil(CHUNK) as u32;
        let mut changes = Changes::default();
        let mut at = from;
        while at < end {
            let view = self.leaf_view(slice, at / LEAF)?;
            // The last leaf that there can be ends at 2^32.
            let last = (at / LEAF + 1).saturating_mul(LEAF);
            for index in at..last.min(end) {
                if changes.changed.len() + changes.holes.len() >= most {
                    changes.next = Some(index);
                    return Ok(changes);
                }
                let index = ChunkIndex(index);
                if let Some(chunk) = view.chunks.get(&index) {
                    if self.sums(*chunk)?.stamp >= since {
                        changes.changed.push(index.0);
                    }
                } else if view.holes.get(&index).copied().max(view.void) >= Some(since) {
                    changes.holes.push(index.0);
                }
            }
            at = last;
        }
        Ok(changes)
    }

    fn leaf_view(&self, slice: &Slice, leaf: u32) -> Result<LeafView, DiskError> {
        let key = (slice.number(), leaf);
        let range = in_leaf(leaf);
        let failed = |error| DiskError::new(ErrorKind::MediaRead, "the chunk map").caused_by(error);
        loop {
            let folds = self.core().pending.folds();
            let mapped = self.tables.mapped(slice.number(), range.clone());
            let holes = self.tables.holes(slice.number(), range.clone());
            let void = self.tables.void(key).map_err(failed)?;
            let mut view = LeafView {
                chunks: mapped.map_err(failed)?.into_iter().collect(),
                holes: holes.map_err(failed)?.into_iter().collect(),
                void,
            };
            let core = self.core();
            if core.pending.folds() != folds {
                continue;
            }
            for (index, chunk) in core.pending.map_of(key) {
                match chunk {
                    Some(chunk) => drop(view.chunks.insert(index, chunk)),
                    None => drop(view.chunks.remove(&index)),
                }
            }
            view.void = view.void.max(core.pending.void_of(key));
            for (index, stamp) in core.pending.holes_of(key) {
                match stamp {
                    Some(stamp) => drop(view.holes.insert(index, stamp)),
                    None => drop(view.holes.remove(&index)),
                }
            }
            return Ok(view);
        }
    }

    /// Chunks of one leaf of the map, for the scrub.
    pub(super) fn chunks_of(&self, slice: &Slice, leaf: u32) -> Result<Vec<ChunkIndex>, DiskError> {
        Ok(self.leaf_view(slice, leaf)?.chunks.into_keys().collect())
    }

    /// BLAKE3 of a range, over what is read now.
    pub async fn hash(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        length: u64,
    ) -> Result<[u8; 16], DiskError> {
        if length == 0 || length > MOST_HASHED {
            let context = format!("a hash of {length} bytes; at most {MOST_HASHED} are hashed");
            return Err(DiskError::new(ErrorKind::OutOfRange, context));
        }
        let reads = (0..length)
            .step_by(HASH_STEP as usize)
            .map(|done| async move {
                let mut bytes = BytesMut::zeroed((length - done).min(HASH_STEP) as usize);
                let from = offset.saturating_add(done);
                self.read(slice, from, &mut bytes, ()).await?;
                Ok::<_, DiskError>(bytes)
            });
        let mut hasher = blake3::Hasher::new();
        let mut reads = iter(reads).buffered(HASH_READS);
        while let Some(bytes) = reads.next().await {
            hasher.update(&bytes?);
        }
        let mut short = [0; 16];
        let whole = hasher.finalize();
        short.copy_from_slice(&whole.as_bytes()[..16]);
        Ok(short)
    }
}
