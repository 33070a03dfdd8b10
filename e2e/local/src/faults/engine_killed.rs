//! Row 1: the engine's process is killed; its supervisor starts it again.

use super::load::Load;
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Setup;
use anyhow::Result;

pub const ROW: Row = Row {
    number: 1,
    injected: "engine killed (SIGKILL) ten times",
    expected: "the host waits; boot + 1 serves; no error",
    run,
};

const KILLS: u64 = 10;
/// Answers between two kills.
const BETWEEN: u64 = 300;

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        for _ in 0..KILLS {
            load.progress(BETWEEN).await;
            engine.kill_worker();
        }
        load.progress(BETWEEN).await;
        load.finish(&format!("{KILLS} kills")).await
    })
}
