//! Prints what idle Weft processes cost: memory, and context switches per second.
//!
//! `idle [SECONDS]` (60 when left out). Root, as the whole local tier.

use anyhow::Context;
use std::time::Duration;
use weft_e2e_local::files::FileSystem;
use weft_e2e_local::host::Host;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::usage::Usage;
use weft_e2e_local::wait::until;
use weft_e2e_local::{namespace, setup};

fn main() -> anyhow::Result<()> {
    let seconds = match std::env::args().nth(1) {
        Some(text) => text
            .parse()
            .with_context(|| format!("{text} is not a number of seconds"))?,
        None => 60,
    };
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    serves(&setup)?;
    println!(
        "{seconds} s each, volume of {} MiB, every process under its supervisor",
        setup::VOLUME_SIZE >> 20
    );
    println!("{}", Usage::HEADER);
    measure("unattached", seconds, &[&drive, &engine])?;

    let initiator = setup.start_initiator(1, Role::Supervised);
    let volume = setup.path("mnt/volume");
    until("the volume's file", || volume.exists().then_some(()));
    let mut fs = FileSystem::make(&volume, &setup.path("ext4"))?;
    measure(
        "attached, ext4 mounted",
        seconds,
        &[&drive, &engine, &initiator],
    )?;
    fs.unmount()?;
    Ok(())
}

/// Waits until the engine serves: a host has connected, worked and gone.
fn serves(setup: &Setup) -> anyhow::Result<()> {
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        host.progress(100).await;
        host.finish().await
    })
}

fn measure(state: &str, seconds: u64, processes: &[&Process]) -> anyhow::Result<()> {
    let pids = |process: &Process| {
        let first = until("the supervisor", || process.first());
        let worker = until("the worker", || process.worker());
        [
            (format!("{} (supervisor)", process.name()), first),
            (process.name().to_owned(), worker),
        ]
    };
    let watched: Vec<_> = processes.iter().flat_map(|process| pids(process)).collect();
    let begin = watched
        .iter()
        .map(|(_, pid)| Usage::of(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::sleep(Duration::from_secs(seconds));
    for ((name, pid), before) in watched.iter().zip(begin) {
        println!("{}", Usage::of(*pid)?.row(name, state, &before, seconds));
    }
    Ok(())
}
