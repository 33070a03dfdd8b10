//! Row 10: the engine and one drive do not reach each other, and both live.

use super::load::Load;
use super::mirrored::{ALL, FEWER, Mirrored, said, says_again};
use super::{Row, Seen};
use crate::nodes::{self, Node};
use crate::setup::{Nth, Setup};
use crate::wire::{Wire, icreq};
use crate::{namespace, wire};
use anyhow::{Context, Result, ensure};

pub const ROW: Row = Row {
    number: 10,
    injected: "engine and one drive cut off from each other, both alive: packets dropped, then no route",
    expected: "recorded before the next answer; the drive answers others; brought up to date once, no flapping",
    run,
};

const LOST: Nth = Nth(1);

/// A way to cut them off, and how to undo it.
struct Way {
    cut: fn(&Node, &Node),
    heal: fn(&Node, &Node),
}

const WAYS: [Way; 2] = [
    Way {
        cut: |engine, drive| {
            nodes::cut(engine.address(), drive.address());
            nodes::cut(drive.address(), engine.address());
        },
        heal: |_, _| assert!(nodes::heal() > 0, "nothing was lost"),
    },
    Way {
        cut: |engine, drive| {
            engine.ip(&["route", "add", "blackhole", &drive.address().to_string()]);
            drive.ip(&["route", "add", "blackhole", &engine.address().to_string()]);
        },
        heal: |engine, drive| {
            engine.ip(&["route", "del", "blackhole", &drive.address().to_string()]);
            drive.ip(&["route", "del", "blackhole", &engine.address().to_string()]);
        },
    },
];

fn run() -> Result<Seen> {
    let mirrored = Mirrored::of(Setup::mirrored().on_nodes());
    let engine = mirrored.setup.engine_node(1).context("on nodes")?;
    let drive = mirrored.setup.node(LOST).context("on nodes")?;
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        load.progress(500).await;
        let so_far = |words| said(&mirrored.engine, words);
        for way in &WAYS {
            let [fewer, all] = [FEWER, ALL].map(so_far);
            (way.cut)(engine, drive);
            says_again(&mirrored.engine, FEWER, fewer).await;
            load.progress(500).await;
            answers_others(&mirrored.setup)?;
            (way.heal)(engine, drive);
            says_again(&mirrored.engine, ALL, all).await;
            load.progress(3000).await;
            let records = (so_far(FEWER) - fewer, so_far(ALL) - all);
            ensure!(records == (1, 1), "it flaps: {records:?} records");
        }
        load.finish("gone on without twice, each time brought up to date once")
            .await
    })
}

/// The drive that was cut off initializes a connection of somebody else.
fn answers_others(setup: &Setup) -> Result<()> {
    let mut connection = Wire::connect(setup.address_of(LOST))?;
    connection.send(&icreq());
    let answer = connection.read(wire::ICRESP.into())?;
    ensure!(answer.first() == Some(&1), "no ICResp: {answer:?}");
    Ok(())
}
