//! `weft-bench`: how fast the data path is, in ratios to what was measured beside it in the same
//! run. The measured process has one core, the load another.
//!
//! | file | what |
//! | --- | --- |
//! | `cases` | everything that is measured, and what is compared with what |
//! | `processes`, `target` | Weft's processes: this program around a cheap disk, the real drive, the real engine |
//! | `load` | requests by our own initiator |
//! | `echo` | bare TCP: the limits |
//! | `nbd` | nbdkit and qemu-storage-daemon, asked by fio |
//! | `raw` | the file itself |
//! | `figures` | medians, ratios, the table |
//! | `cores` | who runs where |

mod cases;
mod cores;
mod echo;
mod figures;
mod load;
mod nbd;
mod processes;
mod raw;
mod target;

use anyhow::Context;
use clap::{Parser, Subcommand};
use figures::Series;
use std::io::Write;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Measures the data path against bare TCP, other user-space targets and the raw file.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    /// Every case is measured once a round.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Milliseconds of one measurement.
    #[arg(long, default_value_t = 400)]
    time: u64,
    /// Only cases, and comparisons of cases, whose name has one of these words in it.
    #[arg(long)]
    only: Vec<String>,
    /// Where the files lie that are measured.
    #[arg(long, default_value = "target/bench")]
    directory: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/report/bench.json")]
    report: PathBuf,
}

/// What this program is when it starts itself.
#[derive(Subcommand)]
enum Part {
    /// A target.
    Target {
        /// Microseconds that it spins after bytes came.
        #[arg(long, default_value_t = 0)]
        poll: u64,
        #[command(subcommand)]
        backing: target::Backing,
    },
    /// Bare TCP.
    Echo,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match &args.part {
        Some(Part::Target { backing, poll }) => target::run(backing, Duration::from_micros(*poll)),
        Some(Part::Echo) => echo::serve(),
        None => measure(&args),
    }
}

fn measure(args: &Args) -> anyhow::Result<()> {
    let _first = cores::come_first();
    cores::pin(cores::LOAD)?;
    std::fs::create_dir_all(&args.directory)?;
    let files = tempfile::tempdir_in(&args.directory)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let runtime = Rc::new(runtime);
    let mut plan = cases::Plan::make(&runtime, files.path())?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|w| name.contains(w));
    plan.cases.retain(|case| wanted(&case.name));
    let mut series: Vec<Series> = plan.cases.iter().map(empty).collect();
    let time = Duration::from_millis(args.time);
    let began = Instant::now();
    for round in 1..=args.rounds {
        for (at, (case, series)) in plan.cases.iter_mut().zip(&mut series).enumerate() {
            progress(round, args.rounds, at, began, &case.name);
            let sample = (case.measure)(time).with_context(|| case.name.clone())?;
            series.samples.push(sample);
        }
    }
    eprintln!("\r\x1b[K{} s", began.elapsed().as_secs());
    let lines = figures::report(&series, &plan.comparisons);
    figures::print(&lines);
    if let Some(parent) = args.report.parent() {
        std::fs::create_dir_all(parent)?;
    }
    std::fs::write(&args.report, serde_json::to_vec_pretty(&lines)?)?;
    println!("\nstored in {}", args.report.display());
    Ok(())
}

fn empty(case: &cases::Case) -> Series {
    Series {
        name: case.name.clone(),
        depth: case.depth,
        samples: vec![],
    }
}

fn progress(round: u32, rounds: u32, at: usize, began: Instant, name: &str) {
    let seconds = began.elapsed().as_secs();
    eprint!(
        "\r\x1b[K{seconds:4} s  round {round} of {rounds}  case {}  {name}",
        at + 1
    );
    // A terminal that is gone needs no progress.
    let _ = std::io::stderr().flush();
}
