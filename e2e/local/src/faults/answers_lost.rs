//! Row 11: what the engine sends arrives at a drive, what the drive answers is lost.

use super::load::Load;
use super::mirrored::{ALL, FEWER, Mirrored, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::nodes;
use crate::setup::{Nth, Setup};
use anyhow::{Context, Result, ensure};

pub const ROW: Row = Row {
    number: 11,
    injected: "one-way partition of each of two drives in turn: requests arrive, answers are lost",
    expected: "as row 5; what arrived without an answer does no harm",
    run,
};

fn run() -> Result<Seen> {
    let mirrored = Mirrored::of(Setup::mirrored().on_nodes());
    let engine = mirrored.setup.engine_node(1).context("on nodes")?;
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for nth in [1, 0].map(Nth) {
            load.progress(500).await;
            let drive = mirrored.setup.node(nth).context("on nodes")?;
            let [fewer, all] = [FEWER, ALL].map(|words| said(&mirrored.engine, words));
            nodes::cut(drive.address(), engine.address());
            says_again(&mirrored.engine, FEWER, fewer).await;
            load.progress(500).await;
            ensure!(nodes::heal() > 0, "no answer was lost");
            says_again(&mirrored.engine, ALL, all).await;
        }
        load.progress(500).await;
        load.finish("two members lost one way and brought up to date")
            .await
    })
}
