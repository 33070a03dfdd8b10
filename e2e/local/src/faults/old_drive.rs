//! Row 32: a drive comes back as it was weeks ago.

use super::load::Load;
use super::mirrored::Mirrored;
use super::{Row, Seen};
use crate::namespace;
use crate::setup::{Nth, Setup};
use anyhow::Result;

pub const ROW: Row = Row {
    number: 32,
    injected: "a drive away for twenty configs, while other members are lost and come back",
    expected: "not served from before it is brought up to date; nothing that it missed is missing then",
    run,
};

/// Members lost and brought up to date: two configs each.
const ROUNDS: u16 = 10;
const OLD: Nth = Nth(1);

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::of(Setup::with(3, 2));
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        load.progress(500).await;
        mirrored.lose(OLD).await;
        for round in 0..ROUNDS {
            let nth = Nth(round % 2 * 2);
            mirrored.lose(nth).await;
            load.progress(200).await;
            mirrored.start_again(nth);
            mirrored.goes_on_without(&[OLD]).await;
            load.progress(200).await;
        }
        mirrored.bring_back(OLD).await;
        // Whatever it is asked for from now on is asked of it alone.
        for nth in [0, 2].map(Nth) {
            mirrored.kill(nth);
        }
        mirrored.goes_on_without(&[0, 2].map(Nth)).await;
        load.progress(500).await;
        load.finish("brought up to date, then alone").await
    })
}
