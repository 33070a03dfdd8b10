//! Processes are killed under load: the host waits, nothing fails, nothing is lost.

use weft_e2e_local::host::Host;
use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;

/// Requests that must be answered between two kills: the load goes on, it does not only begin.
const BETWEEN: u64 = 200;

#[test]
fn an_engine_killed_five_times_loses_no_write() {
    namespace::enter();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        for _ in 0..5 {
            host.progress(BETWEEN).await;
            engine.kill_worker();
        }
        host.progress(BETWEEN).await;
        host.finish().await.unwrap();
    });
}

#[test]
fn a_drive_killed_five_times_loses_no_write() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        for _ in 0..5 {
            host.progress(BETWEEN).await;
            drive.kill_worker();
        }
        host.progress(BETWEEN).await;
        host.finish().await.unwrap();
    });
}

#[test]
fn drive_and_engine_killed_together_lose_no_write() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        for round in 0..4 {
            host.progress(BETWEEN).await;
            if round % 2 == 0 {
                drive.kill_worker();
                engine.kill_worker();
            } else {
                engine.kill_worker();
                drive.kill_worker();
            }
        }
        host.progress(BETWEEN).await;
        host.finish().await.unwrap();
    });
}

#[test]
fn whole_pods_killed_and_started_again_lose_no_write() {
    namespace::enter();
    let setup = Setup::new();
    let mut drive = setup.start_drive(Role::Supervised);
    let mut engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        for _ in 0..2 {
            host.progress(BETWEEN).await;
            engine.kill();
            engine = setup.start_engine(1, Role::Supervised);
            host.progress(BETWEEN).await;
            drive.kill();
            drive = setup.start_drive(Role::Supervised);
        }
        host.progress(BETWEEN).await;
        host.finish().await.unwrap();
    });
}

#[test]
fn an_engine_that_is_stopped_for_a_while_is_waited_for() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let host = Host::start(setup.host_options(1));
        for process in [&engine, &drive] {
            host.progress(BETWEEN).await;
            process.signal_worker(rustix::process::Signal::STOP);
            // What is in flight comes back first; then nothing does.
            let mut last = u64::MAX;
            while last != host.done() {
                last = host.done();
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            process.signal_worker(rustix::process::Signal::CONT);
        }
        host.progress(BETWEEN).await;
        host.finish().await.unwrap();
    });
}
