//! Row 7 with two copies: the member that has every write is lost while the other has not. Nothing is
//! served before it is back.

use super::load::Load;
use super::mirrored::{ALL, FEWER, PAUSED, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::{Nth, Setup};
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 7,
    injected: "both members killed in sequence, the one that lacks writes started first",
    expected: "the volume pauses until the one that has all of them is back; no stale byte, no error",
    run,
};

fn run() -> Result<Seen> {
    let setup = Setup::mirrored();
    let mut drives = setup.start_drives(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(500).await;
        let before = said(&engine, FEWER);
        drives[1].kill();
        says_again(&engine, FEWER, before).await;
        load.progress(500).await;
        let before = said(&engine, PAUSED);
        drives[0].kill();
        says_again(&engine, PAUSED, before).await;
        let (stood, admitted) = (load.answered(), "engine admitted");
        drives[1] = setup.start_nth(Nth(1), Role::Supervised);
        let before = said(&drives[1], admitted);
        says_again(&drives[1], admitted, before.saturating_sub(1)).await;
        ensure!(
            load.answered() == stood,
            "answered by a member that lacks writes"
        );
        let before = said(&engine, ALL);
        drives[0] = setup.start_nth(Nth(0), Role::Supervised);
        says_again(&engine, ALL, before).await;
        load.progress(500).await;
        load.finish("paused, then gone on").await
    })
}
