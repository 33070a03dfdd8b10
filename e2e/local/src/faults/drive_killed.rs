//! Row 5: a drive's pod is killed whole, for each of two members in turn; the other goes on, and the
//! one that returns is brought up to date before it counts.

use super::load::Load;
use super::mirrored::Mirrored;
use super::{Row, Seen};
use crate::namespace;
use crate::setup::Nth;
use anyhow::Result;

pub const ROW: Row = Row {
    number: 5,
    injected: "a drive's pod killed whole, one member after the other, three times",
    expected: "recorded before the next answer; writes go on with one member; brought up to date on return",
    run,
};

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::start();
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for nth in [1, 0, 1].map(Nth) {
            load.progress(500).await;
            mirrored.lose(nth).await;
            load.progress(500).await;
            mirrored.bring_back(nth).await;
        }
        load.progress(500).await;
        load.finish("three members lost and brought up to date")
            .await
    })
}
