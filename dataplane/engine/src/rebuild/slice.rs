//! What a rebuild asks of a slice beside its bytes (`docs/protocol.md`, *ask*).

use crate::layers::mirror::Span;
pub use crate::membership::Region;
use async_trait::async_trait;
use std::sync::Arc;
use weft_block::DiskError;
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Number of a chunk of 64 KiB in a slice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ChunkIndex(pub u32);

/// The first 16 bytes of BLAKE3 over a range, as the drive reads it now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RangeHash(pub u128);

/// Chunks whose last change was under a config or a later one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Written.
    pub changed: Vec<ChunkIndex>,
    /// Freed.
    pub holes: Vec<ChunkIndex>,
    /// Where to ask on from; `None` at the end.
    pub next: Option<ChunkIndex>,
}

/// Regions of a slice that are hot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HotRegions {
    /// In order.
    pub regions: Vec<Region>,
    /// Where to ask on from; `None` at the end.
    pub next: Option<Region>,
}

/// A slice, asked by the engine that is admitted to it.
#[async_trait]
pub trait Slice: Send + Sync {
    /// Bytes of a region.
    fn region_size(&self) -> u64;

    /// Chunks changed under `since` or later, from one on; about as many as fit into an answer.
    async fn changes(&self, since: Config, from: ChunkIndex) -> Result<Changes, DiskError>;

    /// Hot regions, from one on; about as many as fit into an answer.
    async fn hot(&self, from: Region) -> Result<HotRegions, DiskError>;

    /// Hash of what is read from a range now, at most 4 MiB.
    async fn hash(&self, span: Span) -> Result<RangeHash, DiskError>;

    /// Tells that these regions are equal on all members and flushed there.
    async fn equal(&self, regions: &[Region]) -> Result<(), DiskError>;
}

/// All hot regions of a slice, in order. What a drive keeps hot is bounded by its folds.
pub async fn hot_set(slice: &dyn Slice) -> Result<Vec<Region>, DiskError> {
    let mut all = Vec::new();
    let mut from = Some(Region(0));
    while let Some(first) = from {
        let hot = slice.hot(first).await?;
        all.extend(hot.regions);
        from = hot.next;
    }
    Ok(all)
}

/// An in-sync member that can be asked.
#[derive(Clone)]
pub struct Source {
    /// Its name in the mirror.
    pub slice: SliceUid,
    /// How to ask it.
    pub asked: Arc<dyn Slice>,
}
