//! The engine's program: reads its one document and serves its one volume.

use anyhow::Context;
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use tracing_subscriber::EnvFilter;
use weft_control::supervisor::{self, Options};
use weft_engine::run::Outcome;
use weft_engine::{document, run};

/// Composes one volume from slices and exports it over NVMe/TCP.
#[derive(Parser)]
#[command(name = "weft-engine", version)]
struct Args {
    /// The engine's document (JSON).
    #[arg(long, value_name = "PATH")]
    document: PathBuf,
    /// Be PID 1: run this program again as a child and start it anew when it dies.
    #[arg(long)]
    supervise: bool,
    /// Adaptive polling: microseconds for which a busy process stays awake for the next bytes, at most
    /// 1000. 0: it sleeps whenever there is nothing to do.
    #[arg(long, env = "WEFT_POLL_MICROSECONDS", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(0..=1000))]
    poll_microseconds: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.supervise {
        return supervisor::run(Options::default());
    }
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    match serve(&args) {
        Ok(Outcome::Left) => ExitCode::SUCCESS,
        Ok(Outcome::Parked) => ExitCode::from(supervisor::PARKED),
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: &Args) -> anyhow::Result<Outcome> {
    let document = document::read(&args.document)?;
    // One thread: a volume's work is moving bytes between sockets, and memory is what counts.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let patience = Duration::from_micros(args.poll_microseconds);
    let outcome = runtime.block_on(async {
        weft_transport::polling::set(patience);
        run::run(document).await
    });
    // Nothing that a task still holds may delay the end of the process.
    runtime.shutdown_background();
    outcome
}
