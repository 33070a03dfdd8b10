//! Row 5: a drive's pod is killed whole, for each of two members in turn; the other goes on, and the
//! one that returns is brought up to date before it counts.

use super::load::Load;
use super::mirrored::{ALL, FEWER, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::{Nth, Setup};
use anyhow::Result;

pub const ROW: Row = Row {
    number: 5,
    injected: "a drive's pod killed whole, one member after the other, three times",
    expected: "recorded before the next answer; writes go on with one member; brought up to date on return",
    run,
};

fn run() -> Result<Seen> {
    let setup = Setup::mirrored();
    let mut drives = setup.start_drives(Role::Supervised);
    let engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        for nth in [1, 0, 1] {
            load.progress(500).await;
            let before = said(&engine, FEWER);
            drives[usize::from(nth)].kill();
            says_again(&engine, FEWER, before).await;
            load.progress(500).await;
            let before = said(&engine, ALL);
            drives[usize::from(nth)] = setup.start_nth(Nth(nth), Role::Supervised);
            says_again(&engine, ALL, before).await;
        }
        load.progress(500).await;
        load.finish("three members lost and brought up to date")
            .await
    })
}
