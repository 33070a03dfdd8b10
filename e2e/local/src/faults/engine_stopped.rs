//! Row 3: an engine is stopped in the middle of its work, another takes over, and the first one
//! goes on with what it had in its queues.

use super::load::Load;
use super::two_engines::is_parked;
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Setup;
use crate::wait::until_async;
use anyhow::Result;
use rustix::process::Signal;

pub const ROW: Row = Row {
    number: 3,
    injected: "engine stopped (SIGSTOP), its successor serves, then continued (SIGCONT)",
    expected: "the continued engine acknowledges nothing and parks; none of its writes lands",
    run,
};

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let older = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(300).await;
        older.signal_worker(Signal::STOP);
        let _newer = setup.start_engine(2, Role::Supervised);
        load.disk.set_address(setup.engine_address(2));
        load.progress(1000).await;
        older.signal_worker(Signal::CONT);
        until_async("the continued engine parks", || is_parked(&older)).await;
        load.progress(300).await;
        load.finish("parked").await
    })
}
