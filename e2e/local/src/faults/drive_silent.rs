//! Row 6, above the limit: a drive that does not move and keeps its connections open.

use super::load::Load;
use super::mirrored::Mirrored;
use super::{Row, Seen};
use crate::namespace;
use crate::setup::Nth;
use anyhow::Result;

pub const ROW: Row = Row {
    number: 6,
    injected: "one of two drives stopped (SIGSTOP) until the volume goes on without it, then continued",
    expected: "as row 5; what the stopped drive had in its queues does no harm",
    run,
};

fn run() -> Result<Seen> {
    let mirrored = Mirrored::start();
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        load.progress(500).await;
        mirrored.silence(Nth(1)).await;
        load.progress(500).await;
        mirrored.wake(Nth(1)).await;
        load.progress(500).await;
        load.finish("gone on without, and brought up to date").await
    })
}
