//! Row 6, below the limit: a drive that does not move for a while, and then goes on.

use super::load::Load;
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Setup;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::time::Duration;

pub const ROW: Row = Row {
    number: 6,
    injected: "drive stopped (SIGSTOP) for 3 s",
    expected: "latency, nothing else",
    run,
};

/// The fault itself, as the matrix has it.
const STOPPED: Duration = Duration::from_secs(3);

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(300).await;
        let worker = drive.worker();
        drive.signal_worker(Signal::STOP);
        tokio::time::sleep(STOPPED).await;
        drive.signal_worker(Signal::CONT);
        load.progress(300).await;
        ensure!(drive.worker() == worker, "the drive was started again");
        load.finish("the same process").await
    })
}
