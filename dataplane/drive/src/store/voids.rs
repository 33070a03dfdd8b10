//! Stamps of what has no chunk. To make it zeros changes no byte here, but a slice that is away may
//! have others there: it must hear of it, from this slice if that is all that is left.
//!
//! One stamp for a leaf of the chunk map, so that a discard of all that there is takes 24 bytes for
//! each 64 MiB. More chunks than were zeroed may so be told as holes. That costs a rebuild time and
//! is never wrong: they do read as zeros.

use super::Slice;
use super::core::LeafKey;
use std::collections::BTreeMap;
use weft_spec::drive::Config;

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Voids(BTreeMap<LeafKey, Config>);

impl Voids {
    /// Something without a chunk was made zeros under this config.
    pub fn stamp(&mut self, leaf: LeafKey, stamp: Config) {
        let known = self.0.entry(leaf).or_default();
        *known = stamp.max(*known);
    }

    /// Of a leaf.
    pub fn of(&self, leaf: LeafKey) -> Option<Config> {
        self.0.get(&leaf).copied()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (LeafKey, Config)> {
        self.0.iter().map(|(leaf, stamp)| (*leaf, *stamp))
    }

    /// They are recorded elsewhere.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

impl Slice {
    /// Whether another slice of the volume may lack what is changed here under this config.
    pub(super) fn is_missed(&self, config: Config) -> bool {
        let out = |record: &weft_spec::drive::SliceRecord| {
            let mut out = record.out_of_sync.iter();
            out.any(|out| out.slice != self.uid())
        };
        config != Config(0) && self.record().as_deref().is_none_or(out)
    }
}
