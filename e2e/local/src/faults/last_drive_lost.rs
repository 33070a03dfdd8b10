//! Row 7: the last drive with the data is lost, and comes back.

use super::load::Load;
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Setup;
use crate::wait::until_async;
use anyhow::Result;

pub const ROW: Row = Row {
    number: 7,
    injected: "the last drive's pod killed whole, started again later, twice",
    expected: "the volume pauses without an error and goes on with everything acknowledged",
    run,
};

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let mut drive = setup.start_drive(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        for pauses in 1..=2 {
            load.progress(300).await;
            drive.kill();
            until_async("the engine pauses", || {
                (engine.log().matches("drive lost").count() >= pauses).then_some(())
            })
            .await;
            drive = setup.start_drive(Role::Supervised);
        }
        load.progress(300).await;
        load.finish("paused twice").await
    })
}
