//! `weft-verify`: runs the oracle over a block device, a file or an NVMe/TCP namespace. What was
//! on it is overwritten.

use anyhow::{Context, bail};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use uuid::Uuid;
use weft_block::{BLOCK, Disk, FileMedium, Io, ThreadedDisk};
use weft_transport::{ConnectOptions, ReconnectingDisk, RemoteDisk};
use weft_verify::block::VolumeMark;
use weft_verify::history::Beginning;
use weft_verify::{History, Report, Workload};

/// Most violations printed.
const PRINTED: usize = 20;

/// Writes blocks that say what they are and judges every read. Overwrites what it is given.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// A block device or a file that is there.
    #[arg(long, required_unless_present = "address")]
    path: Option<PathBuf>,
    /// Address and port of an NVMe/TCP target, in the place of a path.
    #[arg(long, conflicts_with = "path", requires = "subsystem")]
    address: Option<SocketAddr>,
    /// NQN of its subsystem.
    #[arg(long)]
    subsystem: Option<String>,
    /// NQN of this host; made from a new UUID when left out.
    #[arg(long)]
    host: Option<String>,
    /// Chooses the requests; the same seed, the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends after so many seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Requests at a time.
    #[arg(long, default_value_t = 16)]
    depth: usize,
    /// Blocks of 4096 bytes that are used, from the first on.
    #[arg(long, default_value_t = 4096)]
    blocks: u64,
}

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let outcome = runtime
        .context("a runtime")
        .and_then(|runtime| runtime.block_on(run(Args::parse())));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("weft-verify: {error:#}");
            ExitCode::from(2)
        }
    }
}

async fn run(args: Args) -> anyhow::Result<bool> {
    let disk = open(&args).await?;
    let blocks = args.blocks.min(disk.size() / BLOCK);
    let workload = Workload {
        depth: args.depth,
        ..Workload::new(args.seed, blocks, u64::MAX)
    };
    let history = History::new(VolumeMark(Uuid::new_v4()), Beginning::Anything);
    let history = Mutex::new(history.without_power_cuts());
    let until = Instant::now() + Duration::from_secs(args.seconds);
    let over = |report: &Report| Instant::now() > until || report.violations.len() >= PRINTED;
    let mut report = workload.run(&*disk, &history, over).await;
    history
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .settle();
    let last = workload.look(&*disk, &history).await;
    report.done += last.done;
    report.failed += last.failed;
    report.violations.extend(last.violations);
    println!(
        "{} requests answered, {} failed, {} violations (seed {})",
        report.done,
        report.failed,
        report.violations.len(),
        args.seed
    );
    for violation in report.violations.iter().take(PRINTED) {
        println!("  {violation}");
    }
    Ok(report.violations.is_empty() && report.failed == 0)
}

async fn open(args: &Args) -> anyhow::Result<Arc<dyn Disk>> {
    if let Some(path) = &args.path {
        let found = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        let waiting = || eprintln!("another process holds it; waiting until it is gone");
        let medium = if found.is_file() {
            if found.len() == 0 {
                bail!(
                    "{} is empty; make it as long as it shall be",
                    path.display()
                );
            }
            FileMedium::open_file(path, found.len(), Io::Auto, waiting)?
        } else {
            FileMedium::open_device(path, Io::Auto, waiting)?
        };
        return Ok(Arc::new(ThreadedDisk::new(Arc::new(medium))));
    }
    let (Some(address), Some(subsystem)) = (args.address, &args.subsystem) else {
        bail!("name a path, or an address and a subsystem");
    };
    let id = Uuid::new_v4();
    let made = format!("nqn.2014-08.org.nvmexpress:uuid:{id}");
    let host = args.host.clone().unwrap_or(made);
    let host_id = Uuid::new_v5(&Uuid::NAMESPACE_OID, host.as_bytes());
    let options = ConnectOptions::new(address, subsystem, host, host_id);
    let remote = RemoteDisk::connect(options.clone()).await?;
    Ok(ReconnectingDisk::start(options, Some(remote)))
}
