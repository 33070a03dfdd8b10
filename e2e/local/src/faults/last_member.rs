//! Row 7 with two copies: the member that has every write is lost while the other has not. Nothing is
//! served before it is back.

use super::load::Load;
use super::mirrored::{ADMITTED, Mirrored, PAUSED, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::Nth;
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 7,
    injected: "both members killed in sequence, the one that lacks writes started first",
    expected: "the volume pauses until the one that has all of them is back; no stale byte, no error",
    run,
};

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::start();
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        load.progress(500).await;
        mirrored.lose(Nth(1)).await;
        load.progress(500).await;
        let before = said(&mirrored.engine, PAUSED);
        mirrored.drives[0].kill();
        says_again(&mirrored.engine, PAUSED, before).await;
        let (stood, before) = (load.answered(), said(&mirrored.drives[1], ADMITTED));
        mirrored.drives[1] = mirrored.setup.start_nth(Nth(1), Role::Supervised);
        says_again(&mirrored.drives[1], ADMITTED, before).await;
        // What had been answered before the pause and was on its way to the host.
        let late = load.answered() - stood;
        ensure!(
            late <= load.depth(),
            "{late} requests answered by a member that lacks writes"
        );
        mirrored.bring_back(Nth(0)).await;
        load.progress(500).await;
        load.finish("paused, then gone on").await
    })
}
