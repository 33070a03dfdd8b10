//! Row 4: two engines of one volume are started at the same time.

use super::load::Load;
use super::{Row, Seen};
use crate::namespace;
use crate::process::{Process, Role};
use crate::setup::Setup;
use crate::wait::until_async;
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 4,
    injected: "engines of two terms started together",
    expected: "the greater term serves, the other parks",
    run,
};

/// Its supervisor lives and starts nothing any more.
pub fn is_parked(engine: &Process) -> Option<()> {
    let parked = engine.log().contains("parked") && engine.worker().is_none();
    (parked && engine.first().is_some()).then_some(())
}

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let lesser = setup.start_engine(1, Role::Supervised);
    let greater = setup.start_engine(2, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 2).await;
        load.progress(300).await;
        until_async("the lesser term parks", || is_parked(&lesser)).await;
        load.progress(300).await;
        ensure!(is_parked(&greater).is_none(), "both are parked");
        load.finish("parked").await
    })
}
