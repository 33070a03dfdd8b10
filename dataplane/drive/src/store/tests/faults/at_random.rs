//! Faults at random, by seed, under a random load: of data, and of what is recorded.
//!
//! Damage to a region that is hot at the death of the process cannot be told from a write that
//! was not flushed (decision 013), so a store that met damage here ends in order, or is broken.

use super::super::crash::Random;
use super::*;
use std::collections::{BTreeMap, BTreeSet};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use weft_block::{FaultMedium, Harm, Operation};

/// Chunks of the slice: two regions and a part.
const SIZE: u64 = 40 * 16;
const LOADS: u64 = 24;
const STEPS: u32 = 150;

/// Reports of corrupt blocks, as the log has them.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<u64>>>);

impl<S: tracing::Subscriber> Layer<S> for Reports {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Fields(Option<u64>, bool);
        impl tracing::field::Visit for Fields {
            fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
                if field.name() == "block" {
                    self.0 = Some(value);
                }
            }
            fn record_debug(&mut self, field: &tracing::field::Field, _: &dyn std::fmt::Debug) {
                self.1 |= field.name() == "slice";
            }
        }
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Fields(Some(block), true) = fields {
            self.0.lock().unwrap().push(block);
        }
    }
}

/// A store on a medium that does harm, and what may be read of its one slice.
struct World {
    memory: Arc<MemoryDisk>,
    medium: Arc<dyn Medium>,
    fault: Arc<FaultMedium>,
    store: Arc<Store>,
    slice: Arc<Slice>,
    random: Random,
    reports: Reports,
    /// Reported, and not written since.
    reported: BTreeSet<u64>,
    /// Tags that each block may have: the last acknowledged, and those whose write failed since.
    may: Vec<Vec<u32>>,
    /// The same, and all since the last flush.
    unflushed: Vec<Vec<u32>>,
}

impl World {
    async fn new(seed: u64, reports: Reports) -> Self {
        let memory = Arc::new(MemoryDisk::new(SMALLEST));
        let fault = Arc::new(FaultMedium::new(memory.clone()));
        let medium: Arc<dyn Medium> = fault.clone();
        let store = open(&medium).unwrap();
        let slice = store.allocate(SliceUid::random(), request(SIZE));
        let slice = slice.await.unwrap();
        Self {
            memory,
            medium,
            fault,
            store,
            slice,
            random: Random(seed),
            reports,
            reported: BTreeSet::new(),
            may: vec![vec![0]; SIZE as usize],
            unflushed: vec![vec![0]; SIZE as usize],
        }
    }

    fn range(&mut self) -> (u64, u64) {
        let first = self.random.below(SIZE);
        let count = [1, 1, 2, 7, 16, 30][self.random.below(6) as usize];
        (first, count.min(SIZE - first))
    }

    /// One request; an error is one of a change.
    async fn step(&mut self, tag: u32) -> Result<(), DiskError> {
        let (first, count) = self.range();
        let (at, length) = (first * BLOCK, count * BLOCK);
        let none = Carried::default();
        let (done, tag) = match self.random.below(16) {
            0..8 => (
                put(&self.store, &self.slice, at, tagged(tag, count)).await,
                tag,
            ),
            8..10 => (self.store.zero(&self.slice, at, length, none, ()).await, 0),
            10 => {
                self.store.flush(()).await?;
                self.unflushed.clone_from(&self.may);
                return Ok(());
            }
            11 => return self.store.log(Wanted::Fold).await,
            _ => {
                self.read(first, count).await;
                return Ok(());
            }
        };
        for block in first..first + count {
            let at = block as usize;
            if done.is_ok() {
                self.may[at].clear();
            }
            self.may[at].push(tag);
            self.unflushed[at].push(tag);
        }
        // Of a write that failed some blocks may be done.
        let corrupt = self.corrupt();
        let (reported, all) = (&mut self.reported, first..first + count);
        reported.retain(|block| !all.contains(block) || (done.is_err() && corrupt.contains(block)));
        done
    }

    /// What is read is what was written, or an error that was reported once.
    async fn read(&mut self, first: u64, count: u64) -> bool {
        let mut bytes = BytesMut::zeroed((count * BLOCK) as usize);
        let read = self.store.read(&self.slice, first * BLOCK, &mut bytes, ());
        let read = read.await;
        self.hear();
        if let Err(error) = &read {
            assert_eq!(error.kind(), ErrorKind::MediaRead, "{error}");
            let reported = self.reported.range(first..first + count).next();
            assert!(reported.is_some(), "{error} is not reported");
            return false;
        }
        for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK as usize)) {
            let may = &self.may[block as usize];
            let right = may.iter().any(|tag| bytes == &tagged(*tag, 1)[..]);
            assert!(
                right,
                "block {block} reads {:x?}, may be {may:x?}",
                &bytes[..8]
            );
        }
        true
    }

    /// Takes in what was reported since.
    fn hear(&mut self) {
        for block in self.reports.0.lock().unwrap().drain(..) {
            let first = self.reported.insert(block);
            assert!(first, "block {block} is reported twice");
        }
        assert_eq!(self.corrupt(), self.reported);
    }

    /// Blocks that the store knows to be corrupt.
    fn corrupt(&self) -> BTreeSet<u64> {
        let known = self.store.corrupted();
        known.iter().map(|found| found.block).collect()
    }

    /// Ends the store, in order if it can, and opens it again.
    async fn again(self, in_order: bool) -> Self {
        let Self { store, slice, .. } = self;
        if in_order {
            store.close().await.unwrap();
        }
        let uid = slice.uid();
        drop(slice);
        end(store).await;
        let opening = Opening {
            atomic: true,
            ..AFTER_DEATH
        };
        let store = open_after(&self.medium, opening).unwrap();
        Self {
            slice: store.slice(uid).unwrap(),
            store,
            // Another process reports anew.
            reported: BTreeSet::new(),
            ..self
        }
    }

    /// Whether the medium has, where the block lies, what was written there last.
    fn is_whole(&self, block: u64) -> bool {
        let number = self.slice.number();
        let placed = self
            .store
            .core()
            .plan_read(number, block * BLOCK, BLOCK, false);
        let placed = placed.unwrap();
        self.store.core().unpin(&placed);
        let (piece, chunk) = placed[0];
        let mut bytes = vec![0; BLOCK as usize];
        let at = self.store.place(chunk) + piece.within;
        self.memory.read_at(at, &mut bytes).unwrap();
        self.may[block as usize] == [u32::from_le_bytes(bytes[..4].try_into().unwrap())]
            && bytes[4..] == bytes[..bytes.len() - 4]
    }
}

/// Harm to requests for data, and how often each was done.
type Harms = Arc<Mutex<BTreeMap<String, u64>>>;

fn harm_data(world: &World, seed: u64, harms: &Harms) {
    let geometry = world.store.geometry;
    let blocks = geometry.chunks * CHUNK / BLOCK;
    let (harms, mut random) = (harms.clone(), Random(!seed));
    world.fault.script(move |request| {
        if request.offset < geometry.data_start {
            return Harm::None;
        }
        let length = request.length;
        let harm = match (request.operation, random.below(200)) {
            (Operation::Write, 0..4) => Harm::Flipped(random.below(length * 8)),
            (Operation::Write, 4..8) => {
                let last = blocks - length / BLOCK;
                Harm::Misdirected(geometry.data_start + random.below(last) * BLOCK)
            }
            (Operation::Write, 8..12) => Harm::Lost,
            // Torn, or short at the end of a block.
            (Operation::Write, 12..16) => Harm::Short(random.below(length / 512) * 512),
            (Operation::Write, 16..20) => Harm::Short(random.below(length / BLOCK) * BLOCK),
            (Operation::Write, 20..50) => Harm::Fail(ErrorKind::MediaWrite),
            (Operation::Write, 50..70) => Harm::Fail(ErrorKind::NoSpace),
            (Operation::Write, 70..80) => Harm::ShortAndTold(random.below(length / 512) * 512),
            (Operation::Read, 0..4) => Harm::Flipped(random.below(length * 8)),
            (Operation::Read, 4..8) => Harm::Stale,
            (Operation::Read, 8..14) => Harm::Fail(ErrorKind::MediaRead),
            _ => Harm::None,
        };
        let name = format!("{:?} {harm:?}", request.operation);
        let name = name
            .split_once('(')
            .map_or(name.clone(), |(name, _)| name.into());
        *harms.lock().unwrap().entry(name).or_default() += 1;
        harm
    });
}

#[test]
fn whatever_the_medium_does_to_data_no_wrong_byte_is_served_and_each_block_is_told_once() {
    let harms = Harms::default();
    // With one subscriber alone the log asks the thread that meets a place first, which may be
    // another test's, whether anybody listens there.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let mut corrupt = 0;
    for seed in 0..LOADS {
        let reports = Reports::default();
        let subscriber = tracing_subscriber::registry().with(reports.clone());
        let _listening = tracing::subscriber::set_default(subscriber);
        corrupt += run(load_on_harmed_data(seed, reports, &harms));
    }
    println!("{corrupt} corrupt blocks after {:?}", harms.lock().unwrap());
    assert!(corrupt > 100, "{corrupt}");
    let harms = harms.lock().unwrap();
    assert!(
        harms.len() == 11 && harms.values().all(|times| *times > 5),
        "{harms:?}"
    );
}

/// Gives the number of blocks that were corrupt at the end.
async fn load_on_harmed_data(seed: u64, reports: Reports, harms: &Harms) -> u64 {
    let mut world = World::new(seed, reports).await;
    harm_data(&world, seed, harms);
    for tag in 1..=STEPS {
        // A write that fails is one that may or may not be there.
        let _ = world.step(tag).await;
        if tag == STEPS / 2 {
            world = world.again(true).await;
        }
    }
    world.fault.heal();
    let mut bad = vec![];
    for block in 0..SIZE {
        if !world.read(block, 1).await {
            assert!(!world.is_whole(block), "block {block} is as it was written");
            bad.push(block);
        }
    }
    // The check of everything tells nothing twice, and after another start all of it.
    world.store.scrub_all().await;
    world.hear();
    world = world.again(true).await;
    for _ in 0..2 {
        world.store.scrub_all().await;
        world.hear();
        assert!(world.reported.iter().eq(&bad), "seed {seed}");
    }
    for block in &bad {
        check_write(&world.store, &world.slice, block * BLOCK, 7, 1).await;
    }
    assert_eq!(world.store.corrupt_blocks(), []);
    bad.len() as u64
}

/// EIO and ENOSPC at some request for what the store records, or at a flush: nothing more is
/// accepted, nothing wrong is served, and where bytes may be gone the next start says so.
#[test]
fn a_store_that_meets_an_error_where_it_records_stops_and_loses_nothing_flushed() {
    let mut stopped = 0;
    for seed in 0..4 * LOADS {
        stopped += u64::from(run(load_until_it_cannot_record(seed)));
    }
    println!("{stopped} of {} stores stopped", 4 * LOADS);
    assert!(stopped > 2 * LOADS, "{stopped}");
}

async fn load_until_it_cannot_record(seed: u64) -> bool {
    let mut world = World::new(seed, Reports::default()).await;
    let incarnation = world.store.superblock().incarnation;
    let data_start = world.store.geometry.data_start;
    let mut left = Random(seed).below(120);
    let kind = [ErrorKind::MediaWrite, ErrorKind::NoSpace][(seed % 2) as usize];
    world.fault.script(move |request| {
        let here = match request.operation {
            Operation::Write => request.offset < data_start,
            Operation::Flush => true,
            _ => false,
        };
        left = left.saturating_sub(u64::from(here));
        match here && left == 0 {
            true => Harm::Fail(kind),
            false => Harm::None,
        }
    });
    let mut broken = false;
    for tag in 1..=STEPS {
        let done = world.step(tag).await;
        let failed = world.store.failure().borrow().is_some();
        assert!(done.is_ok() || failed, "seed {seed}: {done:?}");
        if broken {
            let refused = put(&world.store, &world.slice, 0, tagged(1, 1)).await;
            assert!(refused.is_err(), "seed {seed}: it writes on");
            world.unflushed[0].push(1);
            world.may[0].push(1);
        }
        broken = failed;
    }
    world.fault.heal();
    world = world.again(false).await;
    if world.store.superblock().incarnation != incarnation {
        assert!(broken, "seed {seed}: nothing was lost");
        // What was not flushed may be there or not.
        world.may.clone_from(&world.unflushed);
    }
    for block in 0..SIZE {
        assert!(world.read(block, 1).await, "seed {seed}: block {block}");
    }
    broken
}
