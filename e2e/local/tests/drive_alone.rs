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
use weft_transport::{ConnectOptions, RemoteDisk};
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
            let disk = connect(&setup, kill + 1).await;
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
            let disk = connect(&setup, kill + 1).await;
            let look = within("a look at everything", workload.look(&*disk, &history)).await;
            assert_eq!((look.failed, look.violations), (0, vec![]), "kill {kill}");
        }
        println!("{answered} requests answered, {KILLS} kills");
    });
}

/// As an engine of one boot each, which needs no state but its number. Once: what is under way when
/// the drive dies fails.
async fn connect(setup: &Setup, boot: u64) -> Arc<RemoteDisk> {
    let fence = FencePair {
        term: Term(1),
        boot: Boot(boot),
    };
    let (subsystem, host) = setup.engine_at_drive(fence);
    let options = ConnectOptions::new(
        setup.drive_address(),
        subsystem,
        host.expose(),
        host.host_id(),
    );
    let disk = attach(options).await.current();
    let disk = disk.expect("the association of now");
    assert!(disk.size() >= BLOCKS * weft_block::BLOCK);
    disk
}
