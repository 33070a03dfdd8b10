//! The simulation: engines, drives, a host and an operator in one process, with faults by seed on every
//! message and every request of a medium (`docs/decisions/023-simulation.md`).
//!
//! ```sh
//! WEFT_SIM_SEEDS=100000 cargo test -p weft-engine --test sim seeds    # so many
//! WEFT_SIM_SEED=4711 cargo test -p weft-engine --test sim seeds -- --nocapture    # one, with its trace
//! ```
//!
//! | file | what |
//! | --- | --- |
//! | `run.rs` | one seed from its beginning to its judgement |
//! | `faults.rs` | what goes wrong, how often |
//! | `network.rs`, `target.rs` | associations: this end, the far end |
//! | `medium.rs`, `drive.rs` | a medium that forgets and fails; the process that serves it |
//! | `pod.rs`, `operator.rs` | the engine's process and its supervisor; terms and documents |
//! | `host.rs`, `oracle.rs` | requests, and what may come of them |
//! | `lies.rs` | drives that do not keep what they promise: the simulation must find it |
//! | `world.rs`, `trace.rs` | chance, faults of now, what happened |

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod drive;
mod faults;
mod host;
mod lies;
mod medium;
mod network;
mod operator;
mod oracle;
mod pod;
mod run;
mod target;
mod trace;
mod world;

use lies::Lie;
use run::{Outcome, Setting, run};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seeds of an ordinary run.
const SEEDS: u64 = 2000;
/// What a simulation leaves behind, some MiB, is given back only when its process ends.
const BATCH: u64 = 250;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is no number")),
    )
}

/// On a thread of its own, as every seed.
fn simulated(setting: Setting) -> Outcome {
    std::thread::scope(|scope| {
        let ran = scope.spawn(move || run(setting)).join();
        ran.unwrap_or_else(|_| panic!("seed {} panicked", setting.seed))
    })
}

fn replay(seed: u64) -> String {
    format!("WEFT_SIM_SEED={seed} cargo test -p weft-engine --test sim seeds -- --nocapture")
}

#[test]
fn without_faults_everything_is_answered_and_all_members_have_the_same() {
    for seed in 0..20 {
        let setting = Setting {
            calm: true,
            ..Setting::of(seed)
        };
        let outcome = simulated(setting);
        assert_eq!(outcome.violations, [""; 0], "seed {seed}");
        assert!(outcome.requests > 0);
    }
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..20 {
        let (one, two) = (simulated(Setting::of(seed)), simulated(Setting::of(seed)));
        assert_eq!(one.digest, two.digest, "seed {seed}");
    }
}

#[test]
fn seeds_lose_nothing_whatever_fails() {
    if let Some(seed) = number("WEFT_SIM_SEED") {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stdout)
            .without_time()
            .init();
        let setting = Setting {
            is_printed: true,
            ..Setting::of(seed)
        };
        let outcome = simulated(setting);
        println!("{} requests, {:?}", outcome.requests, outcome.took);
        assert_eq!(outcome.violations, [""; 0], "seed {seed}");
        return;
    }
    let (began, wanted) = (Instant::now(), number("WEFT_SIM_SEEDS").unwrap_or(SEEDS));
    let first = number("WEFT_SIM_FIRST").unwrap_or(0);
    if wanted > BATCH {
        return in_batches(first, wanted);
    }
    let (next, requests) = (AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(vec![]);
    let work = || {
        loop {
            let seed = first + next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + wanted {
                return;
            }
            let outcome = simulated(Setting::of(seed));
            requests.fetch_add(outcome.requests, Ordering::Relaxed);
            if !outcome.violations.is_empty() {
                println!("seed {seed}: {}", outcome.violations[0]);
                failed.lock().unwrap().push(seed);
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    let (took, requests) = (began.elapsed(), requests.into_inner());
    println!("{wanted} seeds, {requests} requests of hosts, {took:?}");
    let failed = failed.into_inner().unwrap();
    if let Some(seed) = failed.first() {
        let share = format!("{} of {wanted} seeds failed", failed.len());
        panic!("{share}; one again, with its trace:\n{}", replay(*seed));
    }
}

/// Each batch in a process of its own.
fn in_batches(first: u64, wanted: u64) {
    let batch = usize::try_from(BATCH).expect("a small number");
    for from in (first..first + wanted).step_by(batch) {
        let seeds = BATCH.min(first + wanted - from);
        let status = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "seeds_lose_nothing_whatever_fails",
                "--exact",
                "--nocapture",
            ])
            .env("WEFT_SIM_FIRST", from.to_string())
            .env("WEFT_SIM_SEEDS", seeds.to_string())
            .status();
        let status = status.expect("it starts");
        assert!(status.success(), "seeds from {from} on: {status}");
    }
}

/// In how many seeds it is found first, at most.
fn found(lie: Lie, seeds: u64) -> u64 {
    let lies = |seed| Setting {
        lie,
        ..Setting::of(seed)
    };
    let first = (0..seeds).find(|seed| !simulated(lies(*seed)).violations.is_empty());
    let first = first.unwrap_or_else(|| panic!("{lie:?} is not found in {seeds} seeds"));
    println!("{lie:?} is found in seed {first}");
    first
}

#[test]
#[ignore = "not found in 300 seeds: docs/decisions/023-simulation.md"]
fn a_drive_that_writes_for_engines_that_are_shut_out_is_found() {
    found(Lie::WritesPastTheFence, 300);
}

#[test]
#[ignore = "not found in 300 seeds: docs/decisions/023-simulation.md"]
fn a_drive_that_reads_for_engines_that_are_shut_out_is_found() {
    found(Lie::ReadsPastTheFence, 300);
}

#[test]
fn a_drive_that_does_not_flush_is_found() {
    found(Lie::NoFlush, 300);
}

#[test]
fn a_drive_that_does_not_tell_its_hot_set_is_found() {
    found(Lie::NothingHot, 300);
}

#[test]
fn a_drive_that_does_not_tell_what_has_changed_is_found() {
    found(Lie::NothingChanged, 300);
}

#[test]
fn a_drive_that_does_not_put_records_is_found() {
    found(Lie::NoRecord, 300);
}

#[test]
fn a_drive_that_does_not_write_zeroes_is_found() {
    found(Lie::NoZeroes, 300);
}
