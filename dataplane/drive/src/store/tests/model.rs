//! Random lives of a store, and what may be read after each: through reopening, the death of the
//! process and power cuts.

use super::*;
use crate::superblock::Geometry;
use proptest::prelude::*;
use weft_block::PowerDisk;

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize),
    Delete(usize),
    Write(usize, u64, u64, bool),
    Zero(usize, u64, u64),
    Flush,
    Reopen,
}

fn range() -> impl Strategy<Value = (u64, u64)> {
    // Borders of chunks are where the cases are: 16 blocks each.
    let place = prop_oneof![(0..BLOCKS), (0..BLOCKS / 16).prop_map(|chunk| chunk * 16)];
    let length = prop_oneof![(1..40u64), Just(16), Just(32), Just(1)];
    (place, length).prop_map(|(place, length)| (place, length.min(BLOCKS - place)))
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..3usize).prop_map(Step::Allocate),
        1 => (0..3usize).prop_map(Step::Delete),
        12 => (0..3usize, range(), any::<bool>()).prop_map(|(s, (at, n), d)| Step::Write(s, at, n, d)),
        5 => (0..3usize, range()).prop_map(|(s, (at, n))| Step::Zero(s, at, n)),
        2 => Just(Step::Flush),
        1 => Just(Step::Reopen),
    ]
}

/// What a slice may read as: for each block every tag it may have, the newest last.
struct Model {
    uid: SliceUid,
    /// Deletion was asked for and not answered.
    maybe_gone: bool,
    blocks: Vec<Vec<u32>>,
}

impl Model {
    fn new(uid: SliceUid) -> Self {
        Self {
            uid,
            maybe_gone: false,
            blocks: vec![vec![0]; BLOCKS as usize],
        }
    }

    fn change(&mut self, at: u64, blocks: u64, tag: u32, durable: bool) {
        for block in &mut self.blocks[at as usize..(at + blocks) as usize] {
            if durable {
                block.clear();
            }
            block.push(tag);
        }
    }

    fn flush(&mut self) {
        self.blocks
            .iter_mut()
            .for_each(|block| drop(block.drain(..block.len() - 1)));
    }
}

/// A store, the models of its slices, and those deleted.
struct World {
    store: Option<Arc<Store>>,
    models: [Option<Model>; 3],
    deleted: Vec<SliceUid>,
    next_tag: u32,
}

impl World {
    fn new(store: Arc<Store>) -> Self {
        Self {
            store: Some(store),
            models: [None, None, None],
            deleted: vec![],
            next_tag: 1,
        }
    }

    fn store(&self) -> Arc<Store> {
        self.store.clone().unwrap()
    }

    /// Closes and opens again, never two stores on one medium.
    async fn reopen(&mut self, medium: &Arc<dyn Medium>) {
        end(self.store.take().unwrap()).await;
        self.store = Some(open(medium).unwrap());
    }

    /// Does one step; an error is one of the medium.
    async fn step(&mut self, step: &Step) -> Result<(), DiskError> {
        let store = self.store();
        let slice_of = |model: &Model| store.slice(model.uid).unwrap();
        match *step {
            Step::Allocate(at) if self.models[at].is_none() => {
                let uid = SliceUid::random();
                match store.allocate(uid, request(BLOCKS)).await {
                    Ok(_) => self.models[at] = Some(Model::new(uid)),
                    Err(AllocateError::Disk(error)) => return Err(error),
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Delete(at) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                model.maybe_gone = true;
                assert!(store.delete(model.uid).await?);
                self.deleted.push(model.uid);
                self.models[at] = None;
            }
            Step::Write(at, offset, blocks, durable) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                let tag = self.next_tag;
                self.next_tag += 1;
                let mode = if durable {
                    Write::Durable
                } else {
                    Write::Cached
                };
                let data = tagged(tag, blocks);
                let done = store
                    .write(
                        &slice_of(model),
                        offset * BLOCK,
                        data,
                        mode,
                        Carried::default(),
                        (),
                    )
                    .await;
                model.change(offset, blocks, tag, durable && done.is_ok());
                done?;
            }
            Step::Zero(at, offset, blocks) => {
                let Some(model) = &mut self.models[at] else {
                    return Ok(());
                };
                let done = store
                    .zero(
                        &slice_of(model),
                        offset * BLOCK,
                        blocks * BLOCK,
                        Carried::default(),
                        (),
                    )
                    .await;
                model.change(offset, blocks, 0, false);
                done?;
            }
            Step::Flush => {
                store.flush(()).await?;
                self.models.iter_mut().flatten().for_each(Model::flush);
            }
            Step::Allocate(_) | Step::Reopen => {}
        }
        Ok(())
    }

    /// `newest`: what was acknowledged last must be there; else anything that may be.
    async fn check(&self, store: &Arc<Store>, newest: bool) {
        let mut allocated = 0;
        for model in self.models.iter().flatten() {
            let Some(slice) = store.slice(model.uid) else {
                assert!(model.maybe_gone, "a slice is lost");
                continue;
            };
            for (block, tag) in tags(store, &slice).await.into_iter().enumerate() {
                let may = &model.blocks[block];
                let right = if newest {
                    may.last() == Some(&tag)
                } else {
                    may.contains(&tag)
                };
                assert!(right, "block {block} reads {tag}, may be {may:?}");
            }
            allocated += store.allocated(&slice);
        }
        for uid in &self.deleted {
            assert!(store.slice(*uid).is_none(), "a deleted slice is back");
            assert!(matches!(
                store.allocate(*uid, request(1)).await,
                Err(AllocateError::Deleted(_))
            ));
        }
        let known: Vec<_> = self
            .models
            .iter()
            .flatten()
            .map(|model| model.uid)
            .collect();
        let others = store
            .slices()
            .into_iter()
            .filter(|slice| !known.contains(&slice.uid()));
        let others: u64 = others.map(|slice| store.allocated(&slice)).sum();
        assert_eq!(store.free() + allocated + others, store.capacity());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn it_reads_as_the_model_says_through_every_reopening(steps in prop::collection::vec(step(), 1..60)) {
        run(async {
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::new(SMALLEST));
            let mut world = World::new(open(&medium).unwrap());
            for step in &steps {
                if matches!(step, Step::Reopen) {
                    world.reopen(&medium).await;
                }
                world.step(step).await.unwrap();
            }
            world.check(&world.store(), true).await;
            world.reopen(&medium).await;
            world.check(&world.store(), true).await;
        });
    }

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_foreign_shown_wherever_the_power_goes(
        steps in prop::collection::vec(step(), 1..40),
        cut in 0u64..400,
        choices in prop::collection::vec(any::<usize>(), 64),
    ) {
        run(async {
            let power = Arc::new(PowerDisk::new(used(Geometry::of(SMALLEST).unwrap().data_start)));
            let medium: Arc<dyn Medium> = power.clone();
            let mut world = World::new(open(&medium).unwrap());
            power.cut_after(cut);
            for step in &steps {
                if world.step(step).await.is_err() {
                    break;
                }
            }
            let mut choice = choices.iter().cycle();
            let cut = power.after_power_cut(|_, versions| choice.next().map_or(0, |choice| choice % (versions + 1)));
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(cut));
            world.check(&open_after(&medium, AFTER_CUT).unwrap(), false).await;
        });
    }

    #[test]
    fn the_death_of_the_process_alone_loses_nothing_acknowledged(
        steps in prop::collection::vec(step(), 1..40),
        cut in 0u64..400,
    ) {
        run(async {
            let power = Arc::new(PowerDisk::new(vec![0; SMALLEST as usize]));
            let medium: Arc<dyn Medium> = power.clone();
            let mut world = World::new(open(&medium).unwrap());
            power.cut_after(cut);
            let mut whole = true;
            for step in &steps {
                whole = world.step(step).await.is_ok();
                if !whole {
                    break;
                }
            }
            let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(power.after_process_death()));
            world.check(&open(&medium).unwrap(), whole).await;
        });
    }
}

/// What of the blocks written since the last flush a power cut keeps.
#[derive(Clone, Copy, Debug)]
enum Kept {
    Metadata,
    Data,
}

/// Each request at which the power may go, in a life in which chunks go from one slice to another.
#[test]
fn the_power_may_go_at_any_request_and_leave_data_or_metadata_alone() {
    use Step::{Allocate, Delete, Flush, Write, Zero};
    let mut steps = vec![
        Allocate(0),
        Write(0, 0, 1, false),
        Write(0, 20, 30, true),
        Flush,
        Zero(0, 0, 64),
    ];
    steps.extend([
        Allocate(1),
        Write(1, 3, 5, false),
        Write(1, 30, 4, true),
        Delete(1),
        Write(0, 100, 16, false),
    ]);
    for kept in [Kept::Metadata, Kept::Data] {
        let mut cut = 0;
        while !run(live_until(cut, &steps, kept)) {
            cut += 1;
        }
        assert!(cut > 40, "the power went at {cut} requests only");
    }
}

/// Lives until the power goes after `cut` requests, then looks at what is left; true if it lived
/// to its end.
async fn live_until(cut: u64, steps: &[Step], kept: Kept) -> bool {
    let data_start = Geometry::of(SMALLEST).unwrap().data_start;
    let power = Arc::new(PowerDisk::new(used(data_start)));
    let medium: Arc<dyn Medium> = power.clone();
    let mut world = World::new(open(&medium).unwrap());
    power.cut_after(cut);
    let mut whole = true;
    for step in steps {
        whole = world.step(step).await.is_ok();
        if !whole {
            break;
        }
    }
    let left = power.after_power_cut(|offset, versions| match (kept, offset < data_start) {
        (Kept::Metadata, true) | (Kept::Data, false) => versions,
        (Kept::Metadata, false) | (Kept::Data, true) => 0,
    });
    let medium: Arc<dyn Medium> = Arc::new(MemoryDisk::from_bytes(left));
    world
        .check(&open_after(&medium, AFTER_CUT).unwrap(), false)
        .await;
    whole
}

/// Old bytes everywhere in the data area: a chunk that is shown before it was written shows them.
fn used(data_start: u64) -> Vec<u8> {
    let mut bytes = vec![0xee; SMALLEST as usize];
    bytes[..data_start as usize].fill(0);
    bytes
}
