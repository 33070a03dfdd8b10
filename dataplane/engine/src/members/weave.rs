//! Which composition of the mirror is wanted, and when it can be had. Does no I/O and waits for
//! nothing.
//!
//! A composition can be put in force only when nothing is in flight under the one before, so each
//! one is asked for first: the mirror is held, and drains.

use crate::layers::mirror::{Composition, Member, Span};
use crate::membership::{Region, View};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weft_block::Disk;
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Bytes of a region at every drive of this release (`docs/protocol.md`, Hot regions).
pub const REGION: u64 = 1 << 20;

/// See the module.
#[derive(Default)]
pub struct Weave {
    /// The in-sync set in force.
    view: Option<View>,
    /// Slices that are brought up to date beside it.
    targets: BTreeSet<SliceUid>,
    /// What may differ among the members since the view is in force.
    unequal: Vec<Region>,
    /// The mirror is not made of this yet.
    wanted: bool,
    /// The next view is being decided: nothing is composed before it is in force, or what is
    /// acknowledged then may be under a record that is not.
    is_deciding: bool,
}

impl Weave {
    /// A view is in force. Whoever was brought up to date begins again under it.
    pub fn adopt(&mut self, view: View) {
        self.view = Some(view);
        self.targets.clear();
        self.wanted = true;
        self.is_deciding = false;
    }

    /// In these regions the members may differ.
    pub fn unequal(&mut self, regions: Vec<Region>) {
        self.unequal.extend(regions);
    }

    /// This slice gets changes too, over the association that it has now: one that was lost meanwhile
    /// is still in the composition before.
    pub fn add(&mut self, target: SliceUid) {
        self.targets.insert(target);
        self.again();
    }

    /// The same set again, over other associations.
    pub fn again(&mut self) {
        self.wanted = self.view.is_some() && !self.is_deciding;
    }

    /// The next record is being decided: what was wanted before is not any more.
    pub fn forget(&mut self) {
        self.wanted = false;
        self.is_deciding = true;
    }

    /// Whether the mirror is to be held until it has drained.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// The composition wanted, with what may differ in it, once every member of it can be reached
    /// and may be read.
    pub fn take(
        &mut self,
        disks: &BTreeMap<SliceUid, Arc<dyn Disk>>,
        readers: &BTreeSet<SliceUid>,
    ) -> Option<(Composition, Vec<Region>)> {
        let view = self.view.as_ref().filter(|_| self.wanted)?;
        let member = |slice: &SliceUid| {
            let disk = disks.get(slice)?.clone();
            Some(Member {
                slice: *slice,
                disk,
            })
        };
        let in_sync = view
            .in_sync
            .iter()
            .map(|slice| member(slice).filter(|_| readers.contains(slice)));
        let in_sync = in_sync.collect::<Option<_>>()?;
        self.targets.retain(|target| disks.contains_key(target));
        let composition = Composition {
            config: view.config,
            in_sync,
            targets: self.targets.iter().filter_map(member).collect(),
            leader: view.leader,
        };
        self.wanted = false;
        Some((composition, std::mem::take(&mut self.unequal)))
    }

    /// The config in force.
    pub fn config(&self) -> Config {
        self.view.as_ref().map_or(Config(0), |view| view.config)
    }

    /// Who counts where the members differ.
    pub fn leader(&self) -> Option<SliceUid> {
        self.view.as_ref().map(|view| view.leader)
    }

    /// The members of the view.
    pub fn members(&self) -> &[SliceUid] {
        self.view.as_ref().map_or(&[], |view| &view.in_sync)
    }
}

/// The bytes of regions, as far as the volume goes.
pub fn spans(regions: &[Region], size: u64) -> impl Iterator<Item = Span> + '_ {
    let span = move |region: &Region| {
        let start = u64::from(region.0) * REGION;
        let end = (start + REGION).min(size);
        (start < end).then_some(Span { start, end })
    };
    regions.iter().filter_map(span)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;
    use weft_block::MemoryDisk;

    fn slice(number: u128) -> SliceUid {
        SliceUid(Uuid::from_u128(number))
    }

    fn view(config: u64) -> View {
        View {
            config: Config(config),
            in_sync: vec![slice(1)],
            leader: slice(1),
            loss: None,
        }
    }

    #[test]
    fn nothing_is_composed_while_the_next_record_is_being_decided() {
        let mut weave = Weave::default();
        weave.adopt(view(2));
        weave.forget();
        // A member connects again meanwhile, or hosts may read again.
        weave.again();
        assert!(!weave.is_wanted());
        weave.adopt(view(3));
        assert!(weave.is_wanted());
        assert_eq!(weave.config(), Config(3));
    }

    #[test]
    fn a_target_that_comes_back_is_composed_again() {
        let (member, target) = (slice(1), slice(2));
        let disk = || Arc::new(MemoryDisk::new(REGION)) as Arc<dyn Disk>;
        let disks = BTreeMap::from([(member, disk()), (target, disk())]);
        let readers = BTreeSet::from([member]);
        let mut weave = Weave::default();
        weave.adopt(view(2));
        for _ in 0..2 {
            weave.add(target);
            let (composition, _) = weave.take(&disks, &readers).expect("it is wanted");
            assert_eq!(composition.targets[0].slice, target);
            assert!(!weave.is_wanted());
        }
    }
}
