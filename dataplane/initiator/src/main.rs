//! `weft-initiator`: presents one volume as one file. See the library's documentation.

use anyhow::Context;
use clap::Parser;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use weft_control::supervisor;
use weft_initiator::fuse::handshake;
use weft_initiator::run;
use weft_initiator::session::Session;
use weft_spec::initiator::InitiatorDocument;

/// Presents one Weft volume as a file through FUSE.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// File with the initiator's document (JSON).
    #[arg(long, value_name = "PATH")]
    document: PathBuf,
    /// Be PID 1 of a pod: mount, run the worker as a child and start it again when it dies.
    #[arg(long)]
    supervise: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match start(&args) {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<ExitCode> {
    let document = run::load(&args.document)?;
    if args.supervise {
        return supervise(&document);
    }
    if let Some(session) = Session::inherited(&supervisor::inherited_fds())? {
        return work(document, session);
    }
    let session = Session::mount(&document)?;
    let mount_point = document.mount_point.clone();
    let code = work(document, session);
    let _gone_already = handshake::detach(&mount_point);
    code
}

fn supervise(document: &InitiatorDocument) -> anyhow::Result<ExitCode> {
    let keep_fds = Session::mount(document)?.into_fds();
    let code = supervisor::run(supervisor::Options { keep_fds });
    // A worker that ended in order has unmounted; after any other end the name goes, at least.
    let _gone_already = handshake::detach(&document.mount_point);
    // Only an empty directory goes; whatever else lies there is not ours.
    let _not_empty = std::fs::remove_dir(&document.mount_point);
    Ok(code)
}

fn work(document: InitiatorDocument, session: Session) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("no runtime")?;
    runtime.block_on(run::run(document, session))?;
    Ok(ExitCode::SUCCESS)
}
