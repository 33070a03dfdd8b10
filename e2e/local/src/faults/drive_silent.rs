//! Row 6, above the limit: a drive that does not move and keeps its connections open.

use super::load::Load;
use super::mirrored::{ALL, FEWER, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Setup;
use anyhow::Result;
use rustix::process::Signal;

pub const ROW: Row = Row {
    number: 6,
    injected: "one of two drives stopped (SIGSTOP) until the volume goes on without it, then continued",
    expected: "as row 5; what the stopped drive had in its queues does no harm",
    run,
};

fn run() -> Result<Seen> {
    let setup = Setup::mirrored();
    let drives = setup.start_drives(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(500).await;
        let before = said(&engine, FEWER);
        drives[1].signal_worker(Signal::STOP);
        says_again(&engine, FEWER, before).await;
        load.progress(500).await;
        let before = said(&engine, ALL);
        drives[1].signal_worker(Signal::CONT);
        says_again(&engine, ALL, before).await;
        load.progress(500).await;
        load.finish("gone on without, and brought up to date").await
    })
}
