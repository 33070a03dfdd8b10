//! What a drive and an engine cost while nobody uses them, and while a host is attached and silent.

use rustix::process::Pid;
use std::time::Duration;
use weft_e2e_local::host::{Host, attach};
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::usage::Usage;
use weft_e2e_local::wait::until;

/// Resident at most, shared pages counted in parts, KiB.
const MEMORY: u64 = 8 * 1024;
/// Several times the keep-alive interval of a host, so that its part is in it.
const SECONDS: u64 = 24;
const LOOK: Duration = Duration::from_secs(4);

#[test]
fn an_idle_drive_and_an_idle_engine_are_small_and_sleep() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    let runtime = namespace::runtime();
    println!("{}", Usage::HEADER);
    // What was in use once counts, not what has just begun.
    runtime.block_on(async {
        let host = Host::start(setup.host_options(1));
        host.progress(2000).await;
        host.finish().await.expect("a host at work");
    });
    measure("unattached", &[&drive, &engine]);
    let attached = runtime.block_on(attach(setup.host_options(1)));
    // The runtime keeps the association alive on a thread of its own meanwhile.
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(|| runtime.block_on(async { drop(stopped.await) }));
        measure("attached, silent", &[&drive, &engine]);
        drop(stop);
    });
    runtime.block_on(attached.stop());
}

/// Threads end, memory goes back: some of it takes seconds.
fn quiet(worker: Pid) -> Option<()> {
    let before = Usage::of(worker).expect("its usage");
    std::thread::sleep(LOOK);
    let now = Usage::of(worker).expect("its usage");
    let woken = now.since(&before).voluntary;
    (woken <= LOOK.as_secs() && now.pss <= before.pss).then_some(())
}

fn measure(state: &str, processes: &[&Process]) {
    let worker = |process: &Process| until("the worker", || process.worker());
    let of = |process: &&Process| Usage::of(worker(process)).expect("its usage");
    for process in processes {
        until("the end of what the last request left to do", || {
            quiet(worker(process))
        });
    }
    let before: Vec<_> = processes.iter().map(of).collect();
    std::thread::sleep(Duration::from_secs(SECONDS));
    for (process, before) in processes.iter().zip(&before) {
        let now = of(process);
        println!("{}", now.row(process.name(), state, before, SECONDS));
        // Involuntary ones are what others on the machine did to it; each wake-up of its own ends
        // in a voluntary one.
        let switches = now.since(before);
        assert!(now.pss <= MEMORY, "{} has {} KiB", process.name(), now.pss);
        assert!(
            switches.voluntary <= SECONDS,
            "{} woke {switches:?} times in {SECONDS} s, {state}",
            process.name(),
        );
    }
}
