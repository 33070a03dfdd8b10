//! The drive's process is killed, and nothing else: whatever it acknowledged is there again,
//! flushed or not. Judged by the oracle, block by block.

use std::sync::{Arc, Mutex};
use weft_block::Disk;
use weft_e2e_local::host::attach;
use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;
use weft_e2e_local::wait::within;
use weft_spec::ids::{Boot, FencePair, Term};
use weft_transport::initiator::{ConnectOptions, ReconnectingDisk, RemoteDisk};
use weft_verify::history::Beginning;
use weft_verify::{History, VolumeMark, Workload};

const KILLS: u64 = 8;
/// Blocks in use: enough to allocate in each round, few enough to be written again.
const BLOCKS: u64 = 4096;
/// Answers before each kill.
const BEFORE: u64 = 400;

#[test]
fn a_drive_killed_alone_has_everything_that_it_acknowledged() {
    namespace::enter();
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    namespace::runtime().block_on(async {
        let history = Mutex::new(History::new(VolumeMark(setup.volume.0), Beginning::Zeros));
        let mut answered = 0;
        for kill in 0..KILLS {
            let kept = connect(&setup, kill + 1).await;
            let disk = association(&kept);
            let mut killed = false;
            let workload = Workload::new(kill, BLOCKS, u64::MAX);
            let report = workload.run(&*disk, &history, |report| {
                // In the middle of what is under way.
                if report.done >= BEFORE && !killed {
                    drive.kill_worker();
                    killed = true;
                }
                report.failed > 0
            });
            let report = within("the end of a killed drive's requests", report).await;
            assert_eq!(report.violations, []);
            assert!(report.done >= BEFORE);
            answered += report.done;
            drop(kept);
            let kept = connect(&setup, kill + 1).await;
            let disk = association(&kept);
            let look = within("a look at everything", workload.look(&*disk, &history)).await;
            assert_eq!((look.failed, look.violations), (0, vec![]), "kill {kill}");
        }
        println!("{answered} requests answered, {KILLS} kills");
    });
}

/// As an engine of one boot each, which needs no state but its number.
async fn connect(setup: &Setup, boot: u64) -> Arc<ReconnectingDisk> {
    let fence = FencePair {
        term: Term(1),
        boot: Boot(boot),
    };
    let (subsystem, host) = setup.engine_at_drive(fence);
    attach(ConnectOptions::new(
        setup.drive_address(),
        subsystem,
        host.expose(),
        host.host_id(),
    ))
    .await
}

/// The association of now alone: what is under way when the drive dies fails, and is not sent
/// again. It ends with the disk that keeps it.
fn association(kept: &ReconnectingDisk) -> Arc<RemoteDisk> {
    let disk = kept.current().expect("the association of now");
    assert!(disk.size() >= BLOCKS * weft_block::BLOCK);
    disk
}
