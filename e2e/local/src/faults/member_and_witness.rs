//! Row 8 with two copies: a member and the witness are lost in the same second. What is left has
//! every write, and may not say so.

use super::load::Load;
use super::mirrored::{Mirrored, PAUSED, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::setup::Nth;
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 8,
    injected: "one of two members and the witness killed together, either back first",
    expected: "the volume pauses, records nothing, and goes on when one of them is back",
    run,
};

const MEMBER: Nth = Nth(1);
const WITNESS: Nth = Nth(2);

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::start();
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for first in [WITNESS, MEMBER] {
            load.progress(500).await;
            let before = said(&mirrored.engine, PAUSED);
            for nth in [MEMBER, WITNESS] {
                mirrored.kill(nth);
            }
            says_again(&mirrored.engine, PAUSED, before).await;
            ensure!(mirrored.out().is_empty(), "recorded by a minority");
            mirrored.start_again(first);
            if first == WITNESS {
                mirrored.goes_on_without(&[MEMBER]).await;
                load.progress(500).await;
                mirrored.bring_back(MEMBER).await;
            } else {
                load.progress(500).await;
                mirrored.start_again(WITNESS);
            }
        }
        load.progress(500).await;
        load.finish("twice paused, then gone on").await
    })
}
