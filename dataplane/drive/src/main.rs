//! `weft-drive`: puts one drive on the network.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use weft_block::Io;
use weft_drive::process::Process;
use weft_drive::{control, document};

/// Threads that do I/O: the depth that one medium is asked with.
const IO_THREADS: usize = 16;
/// An idle drive has one thread.
const THREAD_LIFE: Duration = Duration::from_secs(1);
/// Enough for the metadata store; only what is touched costs memory.
const STACK: usize = 512 << 10;
/// For threads that wait for something that may never come (a medium held by another process).
const LEAVING: Duration = Duration::from_millis(200);

/// Puts one drive on the network: slices of it are exported over NVMe/TCP.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The document of this drive (JSON).
    #[arg(long)]
    document: PathBuf,
    /// Be PID 1: run this program as a child and start it again when it dies.
    #[arg(long)]
    supervise: bool,
    /// How the medium is asked: auto, plain or io_uring. The log says what was chosen, and why.
    #[arg(long, env = "WEFT_IO", default_value = "auto")]
    io: Io,
    /// Adaptive polling: microseconds for which a busy process stays awake for the next bytes, at most
    /// 1000. 0: it sleeps whenever there is nothing to do.
    #[arg(long, env = "WEFT_POLL_MICROSECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=1000))]
    poll_microseconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.supervise {
        return weft_control::supervisor::run(weft_control::supervisor::Options::default());
    }
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    let path = args.document.display();
    let bytes = std::fs::read(&args.document).with_context(|| format!("cannot read {path}"))?;
    let document = document::read(&bytes).with_context(|| format!("{path}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(IO_THREADS)
        .thread_keep_alive(THREAD_LIFE)
        .thread_stack_size(STACK)
        .build()?;
    let patience = Duration::from_micros(args.poll_microseconds);
    let ended = runtime.block_on(async {
        weft_transport::polling::set(patience);
        run(Process::new(document, args.io)).await
    });
    runtime.shutdown_timeout(LEAVING);
    ended
}

async fn run(process: std::sync::Arc<Process>) -> anyhow::Result<()> {
    let (mut term, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let link = process.document().control;
    let linked = {
        let process = process.clone();
        async move {
            match link {
                Some(link) => control::run(process, link).await,
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        ended = process.serve() => ended,
        ended = linked => ended,
        _ = term.recv() => leave(&process).await,
        _ = interrupt.recv() => leave(&process).await,
    }
}

async fn leave(process: &Process) -> anyhow::Result<()> {
    tracing::info!("asked to end");
    process.close().await;
    Ok(())
}
