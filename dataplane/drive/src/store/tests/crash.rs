//! The crash recorder: a life of a store is recorded, write by write, and recovered from every
//! prefix of it: after the death of the process, and after power cuts that keep any of the
//! versions of each block written since the last flush, whole or torn at 512 bytes. Some of the
//! recoveries are recorded and cut off too, and recovered from.

mod life;
mod medium;

use super::*;
use life::{Come, Known, Life, Tags, There, change, keep_answered, live};
pub use medium::Random;
use medium::{Cut, Event, Kept, PAGE, Recorder};
use std::sync::atomic::{AtomicU64, Ordering};
use weft_spec::drive::Config;

/// What is done at each prefix.
const CUTS: [Cut; 5] = [
    Cut::Death,
    Cut::Prefix,
    Cut::Reordered,
    Cut::Torn,
    Cut::Torn,
];
/// One recovery of so many is cut off itself, and one is followed by writes and a death.
const TWICE: u64 = 4;
/// Tag of what is written after a recovery.
const LATER: u32 = 0x7000;

/// Recoveries done.
#[derive(Clone, Copy, Default, Debug)]
struct Done {
    /// By [`Cut`].
    cuts: [u64; 4],
    /// Of them, after a recovery that was cut off.
    again: u64,
    /// Of them, after the death of a process that had recovered and written on.
    later: u64,
}

impl Done {
    fn all(&self) -> u64 {
        self.cuts.iter().sum()
    }

    fn add(&mut self, other: &Self) {
        for (mine, more) in self.cuts.iter_mut().zip(other.cuts) {
            *mine += more;
        }
        self.again += other.again;
        self.later += other.later;
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [death, prefix, reordered, torn] = self.cuts;
        write!(
            f,
            "{} recoveries: {death} after the death of the process alone, {prefix} from a prefix, \
             {reordered} from a reordering, {torn} from torn blocks; {} of them after a recovery \
             that was cut off, {} after one whose process wrote on and died",
            self.all(),
            self.again,
            self.later
        )
    }
}

/// How a store is opened after these ends. The medium writes blocks whole if that was needed and
/// so it was.
fn opening(cuts: &[Cut], breakage: Breakage) -> Opening {
    let deaths = cuts.iter().rev().take_while(|cut| **cut == Cut::Death);
    let boots = cuts.len() - deaths.count();
    Opening {
        session: Uuid::from_u128(1 + boots as u128),
        atomic: boots > 0 && !cuts.contains(&Cut::Torn),
        breakage,
    }
}

/// Recovers this life from every `stride`th prefix, after each of these ends; gives the number of
/// recoveries, or what was wrong first.
async fn recover_all(
    life: &Life,
    stride: usize,
    cuts: &[Cut],
    seed: u64,
    breakage: Breakage,
) -> Result<Done, String> {
    let mut random = Random(seed);
    let mut kept = Kept::new(life.start.clone());
    let mut done = Done::default();
    let mut moment = 0;
    for prefix in 0..=life.events.len() {
        let next = |moment: usize| life.moments.get(moment + 1);
        while next(moment).is_some_and(|next| next.events <= prefix) {
            moment += 1;
        }
        let now = &life.moments[moment];
        if prefix % stride == 0 || now.events == prefix {
            let mut known = now.known.clone();
            if now.events != prefix {
                change(&mut known, now.next, Come::UnderWay);
            }
            for cut in cuts {
                let one = recover(&kept, &known, *cut, breakage, &mut random).await;
                let place = || format!("{cut:?} after {prefix} events, in {:?}", now.next);
                done.add(&one.map_err(|wrong| format!("{}: {wrong}", place()))?);
            }
        }
        if let Some(event) = life.events.get(prefix) {
            kept.take(event);
        }
    }
    Ok(done)
}

/// Recovers from what this end leaves, and now and then once more from a part of that.
async fn recover(
    kept: &Kept,
    known: &[Known],
    cut: Cut,
    breakage: Breakage,
    random: &mut Random,
) -> Result<Done, String> {
    let mut done = Done::default();
    let left = kept.after(cut, random);
    // What was not durable when the process died still is not.
    let mut kept = match cut {
        Cut::Death => kept.clone(),
        _ => Kept::new(left.clone()),
    };
    let medium = Arc::new(Recorder::new(left));
    let recorder: Arc<dyn Medium> = medium.clone();
    let store = opened(&recorder, opening(&[cut], breakage))?;
    let earlier = std::mem::take(&mut medium.state().events);
    look(&store, known, &[cut]).await?;
    done.cuts[cut as usize] += 1;
    let (second, events, known) = match random.below(TWICE) {
        0 => {
            let second = CUTS[random.below(CUTS.len() as u64) as usize];
            let end = cut_off(&earlier, random);
            done.again += 1;
            (second, earlier[..end].to_vec(), known.to_vec())
        }
        1 => {
            let known = write_on(&store, known, random).await;
            let later = std::mem::take(&mut medium.state().events);
            done.later += 1;
            (Cut::Death, [earlier, later].concat(), known)
        }
        _ => return Ok(done),
    };
    end(store).await;
    events.iter().for_each(|event| kept.take(event));
    let left: Arc<dyn Medium> = Arc::new(Recorder::new(kept.after(second, random)));
    let place = |wrong| {
        let (after, events) = (
            ["the recovery", "who wrote on"][done.later as usize],
            events.len(),
        );
        format!("and {second:?} of {after} after {events} events: {wrong}")
    };
    let cuts = [cut, second];
    let store = opened(&left, opening(&cuts, breakage)).map_err(place)?;
    look(&store, &known, &cuts).await.map_err(place)?;
    done.cuts[second as usize] += 1;
    Ok(done)
}

/// Writes a block of each slice that is there, now and then one that the end left unreadable; gives what may be found then.
async fn write_on(store: &Arc<Store>, known: &[Known], random: &mut Random) -> Vec<Known> {
    let mut known = known.to_vec();
    for known in &mut known {
        let Some(slice) = store.slice(known.uid) else {
            continue;
        };
        let blocks = slice.size() / BLOCK;
        known.sizes = (blocks, blocks);
        let reads = read_blocks(store, &slice).await;
        let is_unreadable = |block: &u64| reads[*block as usize].is_err();
        let block = (0..blocks)
            .find(is_unreadable)
            .filter(|_| random.below(2) == 0)
            .unwrap_or_else(|| random.below(blocks));
        let carried = Carried {
            config: slice.record().map_or(Config(0), |record| record.config),
            ..Carried::default()
        };
        let data = tagged(LATER, 1);
        let done = store.write(&slice, block * BLOCK, data, Write::Cached, carried, ());
        let tags = &mut known.blocks[block as usize];
        match done.await {
            Ok(()) => *tags = vec![(LATER, true)],
            Err(error) => assert_eq!(error.kind(), ErrorKind::NoSpace),
        }
    }
    known
}

/// How much of these happens before the end: anything, or all that one flush would make durable.
fn cut_off(events: &[Event], random: &mut Random) -> usize {
    let is_flush = |at: &usize| matches!(events[*at], Event::Flush);
    let flushes: Vec<_> = (0..events.len()).filter(is_flush).collect();
    if flushes.is_empty() || random.below(2) == 0 {
        return random.below(events.len() as u64 + 1) as usize;
    }
    flushes[random.below(flushes.len() as u64) as usize]
}

fn opened(medium: &Arc<dyn Medium>, opening: Opening) -> Result<Arc<Store>, String> {
    open_after(medium, opening).map_err(|error| format!("does not open: {error:?}"))
}

/// Compares all that can be found with what may be there after these ends.
async fn look(store: &Arc<Store>, known: &[Known], cuts: &[Cut]) -> Result<(), String> {
    let torn = cuts.contains(&Cut::Torn);
    let mut allocated = 0;
    let mut found = 0;
    for known in known {
        let mut known = known.clone();
        if cuts.iter().all(|cut| *cut == Cut::Death) {
            keep_answered(&mut known);
        }
        let slice = match (store.slice(known.uid), known.there) {
            (Some(_), There::No) => return Err("a deleted slice is back".into()),
            (None, There::Yes) => return Err("a slice is lost".into()),
            (None, _) => continue,
            (Some(slice), _) => slice,
        };
        found += 1;
        allocated += store.allocated(&slice);
        let (least, most) = known.sizes;
        let blocks = slice.size() / BLOCK;
        if ![least, most].contains(&blocks) {
            return Err(format!("{blocks} blocks, not {least} or {most}"));
        }
        let config = slice.record().map(|record| record.config.0);
        if !known.records.contains(&config) {
            let may = &known.records;
            return Err(format!("record of config {config:?}, may be {may:?}"));
        }
        for (block, read) in read_blocks(store, &slice).await.into_iter().enumerate() {
            right(read, &known.blocks[block], torn)
                .map_err(|wrong| format!("block {block} {wrong}"))?;
        }
        told(store, &slice, &known).await?;
    }
    if found != store.slices().len() {
        return Err("a slice that was never made".into());
    }
    if store.free() + allocated != store.capacity() {
        return Err("chunks are lost or in two slices".into());
    }
    Ok(())
}

/// Who is away is told of every change that cannot be gone.
async fn told(store: &Arc<Store>, slice: &Arc<Slice>, known: &Known) -> Result<(), String> {
    // What is older than the newest record is of use to nobody that it names.
    let since = known.records.iter().flatten().max().copied().unwrap_or(0);
    let changes = store.changes(slice, Config(since.max(1)), 0, usize::MAX);
    let changes = changes.await.map_err(|error| error.to_string())?;
    for (chunk, stamps) in (0u32..).zip(&known.stamps) {
        let is_told = changes.changed.contains(&chunk) || changes.holes.contains(&chunk);
        if stamps[0].0 >= since.max(1) && !is_told {
            return Err(format!("a change of chunk {chunk} is not told: {stamps:?}"));
        }
    }
    Ok(())
}

fn right(read: Result<u32, ErrorKind>, may: &Tags, torn: bool) -> Result<(), String> {
    match read {
        Ok(tag) if may.iter().any(|(may, _)| *may == tag) => Ok(()),
        Ok(tag) => Err(format!("reads {tag:#x}, may be {may:?}")),
        // Torn, or one of two whole ones that cannot be told from torn.
        Err(ErrorKind::MediaRead) if torn && may.len() > 1 => Ok(()),
        Err(kind) => Err(format!("is {kind:?}, may be {may:?}")),
    }
}

async fn read_blocks(store: &Arc<Store>, slice: &Arc<Slice>) -> Vec<Result<u32, ErrorKind>> {
    let tag = |block: &[u8]| {
        let tag = u32::from_le_bytes([block[0], block[1], block[2], block[3]]);
        let whole = block[4..] == block[..block.len() - 4];
        if whole { tag } else { u32::MAX }
    };
    let mut all = BytesMut::zeroed(slice.size() as usize);
    if store.read(slice, 0, &mut all, ()).await.is_ok() {
        return all.chunks_exact(PAGE).map(|block| Ok(tag(block))).collect();
    }
    let mut found = vec![];
    for block in 0..slice.size() / BLOCK {
        let mut bytes = BytesMut::zeroed(PAGE);
        let read = store.read(slice, block * BLOCK, &mut bytes, ()).await;
        found.push(read.map(|()| tag(&bytes)).map_err(|error| error.kind()));
    }
    found
}

/// One life, and all its recoveries.
fn recovered(seed: u64, stride: usize, cuts: &[Cut], breakage: Breakage) -> Result<Done, String> {
    let done = run(async {
        let life = live(seed, breakage).await;
        recover_all(&life, stride, cuts, seed, breakage).await
    });
    done.map_err(|wrong| format!("seed {seed}: {wrong}"))
}

#[test]
fn every_prefix_of_a_life_recovers_and_nothing_acknowledged_is_lost() {
    let done = recovered(0, 1, &CUTS, Breakage::NONE).unwrap();
    assert!(
        done.again > 100 && done.later > 100 && done.cuts.iter().all(|cut| *cut > 200),
        "{done}"
    );
}

/// By seed, and on all processors. `make recoveries` and `make soak` say how many.
#[test]
#[ignore = "minutes: make recoveries"]
fn as_many_recoveries_as_are_asked_for_lose_nothing() {
    let wanted = std::env::var("WEFT_RECOVERIES").expect("WEFT_RECOVERIES says how many");
    let wanted: u64 = wanted.parse().expect("WEFT_RECOVERIES is a number");
    let seeds = AtomicU64::new(0);
    let total = Mutex::new(Done::default());
    let work = || {
        while total.lock().unwrap().all() < wanted {
            let seed = seeds.fetch_add(1, Ordering::Relaxed);
            let done = recovered(seed, 1, &CUTS, Breakage::NONE).unwrap();
            let mut total = total.lock().unwrap();
            let tenths = |total: &Done| total.all() * 10 / wanted;
            let before = tenths(&total);
            total.add(&done);
            if tenths(&total) > before {
                println!("{} of {wanted}, {} lives", total.all(), seed + 1);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let total = *total.lock().unwrap();
    println!("{total}; nothing was lost");
    assert!(total.all() >= wanted && total.again.min(total.later) > wanted / 10);
}

/// What is left out of the order of writes shows in one of these lives.
fn caught(broken: Broken) {
    caught_after(broken, &[Cut::Death, Cut::Reordered, Cut::Reordered]);
}

fn caught_after(broken: Broken, cuts: &[Cut]) {
    let mut lives = (0..40).map(|seed| recovered(seed, 3, cuts, Breakage(Some(broken))));
    let found = lives.find_map(Result::err);
    println!(
        "{broken:?}: {}",
        found.expect("the recorder did not find it")
    );
}

#[test]
fn a_flush_left_out_is_caught() {
    caught(Broken::NoFlush);
}

#[test]
fn an_allocation_settled_before_its_data_is_caught() {
    caught(Broken::NoDataFlush);
}

#[test]
fn a_heat_up_left_out_is_caught() {
    caught(Broken::NoHeat);
}

#[test]
fn an_allocation_logged_too_late_is_caught() {
    caught(Broken::LateAllocation);
}

#[test]
fn a_log_freed_before_it_is_folded_is_caught() {
    caught(Broken::FreeFirst);
}

#[test]
fn an_unreadable_block_forgotten_is_caught() {
    caught_after(Broken::NoSuspects, &[Cut::Torn]);
}

#[test]
fn zeros_without_a_stamp_are_caught() {
    caught(Broken::NoVoids);
}

#[test]
fn a_stamp_of_zeros_that_no_flush_makes_durable_is_caught() {
    caught(Broken::VoidsUnflushed);
}

#[test]
fn a_write_over_an_unreadable_block_logged_too_late_is_caught() {
    caught_after(Broken::LateSums, &[Cut::Torn]);
}

#[test]
fn tables_opened_with_a_commit_in_one_phase_are_caught() {
    caught(Broken::OnePhase);
}
