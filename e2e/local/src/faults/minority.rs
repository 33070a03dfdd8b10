//! Row 12: an engine, its host and one drive on one side, everything else on the other, where the
//! next term's engine starts.

use super::load::Load;
use super::mirrored::{Mirrored, PAUSED, said, says_again};
use super::two_engines::is_parked;
use super::{Row, Seen};
use crate::process::Role;
use crate::setup::{Nth, Setup};
use crate::wait::until_async;
use crate::{namespace, nodes};
use anyhow::{Context, Result, ensure};

pub const ROW: Row = Row {
    number: 12,
    injected: "engine, host and one member cut off from the other member and the witness; a second engine of the next term there",
    expected: "the minority pauses and acknowledges nothing; the majority takes over; nothing of the minority is left after the heal",
    run,
};

const MINORITY: Nth = Nth(0);
const MAJORITY: Nth = Nth(1);
const WITNESS: Nth = Nth(2);

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::of(Setup::mirrored().on_nodes());
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        load.progress(500).await;
        let before = said(&mirrored.engine, PAUSED);
        cut(&mirrored.setup).context("on nodes")?;
        let next = mirrored.setup.start_engine(2, Role::Supervised);
        let older = std::mem::replace(&mut mirrored.engine, next);
        says_again(&older, PAUSED, before).await;
        let stood = load.answered();
        mirrored.goes_on_without(&[MINORITY]).await;
        // Not before the older one has paused: until then it may answer reads.
        let other = load.beside(&mirrored.setup, 2).await;
        other.progress(1000).await;
        let late = load.answered() - stood;
        ensure!(late <= load.depth(), "{late} answers of a minority");
        nodes::heal();
        until_async("the older engine parks", || is_parked(&older)).await;
        mirrored.goes_on_without(&[]).await;
        // Whatever is asked for from now on is asked of the one that was cut off.
        mirrored.lose(MAJORITY).await;
        other.progress(500).await;
        let there = other.finish("the majority's host").await?.what;
        load.disk.set_address(mirrored.setup.engine_address(2));
        load.progress(500).await;
        load.finish(&format!("taken over; {there}; the minority's host"))
            .await
    })
}

/// Lets the sides not reach each other. That engine and host do not change sides is up to who
/// tells them where to go.
fn cut(setup: &Setup) -> Option<()> {
    let minority = [setup.engine_node(1)?, setup.node(MINORITY)?];
    let majority = [
        setup.engine_node(2)?,
        setup.node(MAJORITY)?,
        setup.node(WITNESS)?,
    ];
    for (one, other) in minority
        .iter()
        .flat_map(|one| majority.map(|other| (one, other)))
    {
        nodes::cut(one.address(), other.address());
        nodes::cut(other.address(), one.address());
    }
    Some(())
}
