//! Row 17: a block is damaged on one of two drives.

use super::block_corrupt::{self, damage};
use super::load::Load;
use super::mirrored::Mirrored;
use super::{Row, Seen};
use crate::namespace;
use crate::setup::{Nth, Setup};
use anyhow::{Result, ensure};
use bytes::BytesMut;
use weft_block::{BLOCK, Disk, Write};

pub const ROW: Row = Row {
    number: 17,
    injected: "a block damaged behind the back of one of two drives",
    expected: "served from the other member, and repaired in place",
    run,
};

fn run() -> Result<Seen> {
    let Mirrored {
        setup,
        drives: _drives,
        engine: _engine,
    } = Mirrored::start();
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(100).await;
        let (first, data) = (block_corrupt::FIRST, block_corrupt::three_blocks());
        load.disk
            .write(first * BLOCK, data.clone(), Write::Durable)
            .await?;
        let mut served = 0;
        // One after the other: a repair that did nothing would leave no good copy.
        for nth in [0, 1, 0] {
            damage(&setup, Nth(nth))?;
            // Reads go to either member: until each has been asked, and is whole again.
            while is_damaged(&setup, Nth(nth))? {
                let mut all = BytesMut::zeroed(data.len());
                load.disk.read(first * BLOCK, &mut all).await?;
                ensure!(all == data, "a wrong byte");
                served += 1;
            }
        }
        load.progress(100).await;
        load.finish(&format!(
            "three repairs, {served} reads of the block meanwhile"
        ))
        .await
    })
}

fn is_damaged(setup: &Setup, nth: Nth) -> Result<bool> {
    Ok(block_corrupt::find(setup, nth)?.is_none())
}
