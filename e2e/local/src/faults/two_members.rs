//! Row 8: two of three members are lost in the same second.

use super::load::Load;
use super::mirrored::{Mirrored, PAUSED, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::setup::{Nth, Setup};
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 8,
    injected: "two of three members killed together, with two witnesses",
    expected: "both recorded before the next answer; writes go on with one member; both brought up to date",
    run,
};

/// Without witnesses the one that is left cannot record anything.
pub const ALONE: Row = Row {
    number: 8,
    injected: "two of three members killed together, without a witness",
    expected: "the volume pauses, records nothing, and goes on when one of them is back",
    run: run_alone,
};

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::of(Setup::with(3, 2));
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for (one, other) in [(1, 2), (0, 1)] {
            load.progress(500).await;
            for nth in [one, other] {
                mirrored.kill(Nth(nth));
            }
            mirrored.goes_on_without(&[Nth(one), Nth(other)]).await;
            load.progress(500).await;
            mirrored.start_again(Nth(other));
            mirrored.bring_back(Nth(one)).await;
        }
        load.progress(500).await;
        load.finish("twice gone on with one member").await
    })
}

fn run_alone() -> Result<Seen> {
    let mut mirrored = Mirrored::of(Setup::with(3, 0));
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for (one, other) in [(1, 2), (0, 1)] {
            load.progress(500).await;
            let before = said(&mirrored.engine, PAUSED);
            for nth in [one, other] {
                mirrored.kill(Nth(nth));
            }
            says_again(&mirrored.engine, PAUSED, before).await;
            ensure!(mirrored.out().is_empty(), "recorded by a minority");
            mirrored.start_again(Nth(other));
            mirrored.goes_on_without(&[Nth(one)]).await;
            load.progress(500).await;
            mirrored.bring_back(Nth(one)).await;
        }
        load.progress(500).await;
        load.finish("twice paused, then gone on").await
    })
}
