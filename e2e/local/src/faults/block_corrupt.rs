//! Row 18: one block is damaged on every drive that has it.

use super::load::Load;
use super::{Row, Seen};
use crate::namespace;
use crate::process::Role;
use crate::setup::{Nth, Setup};
use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use std::fs::File;
use std::os::unix::fs::FileExt;
use weft_block::{BLOCK, Disk, ErrorKind, Write};

pub const ROW: Row = Row {
    number: 18,
    injected: "a block damaged behind the drive's back, on all members",
    expected: "that block alone fails (0281h), the volume stays up, a write heals it",
    run,
};

/// Beyond what the load uses.
pub const FIRST: u64 = 40_000;
const MARK: &[u8; 16] = b"the damaged one.";

fn run() -> Result<Seen> {
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    namespace::runtime().block_on(async {
        let load = Load::start(&setup, 1).await;
        load.progress(100).await;
        // The host's own: it has one association.
        let disk = load.disk.clone();
        let data = three_blocks();
        disk.write(FIRST * BLOCK, data.clone(), Write::Durable)
            .await?;
        damage(&setup, Nth(0))?;
        let mut bytes = BytesMut::zeroed(BLOCK as usize);
        let error = disk.read((FIRST + 1) * BLOCK, &mut bytes).await;
        let error = error.err().context("the damaged block was served")?;
        ensure!(error.kind() == ErrorKind::MediaRead, "{error}");
        for (block, word) in [(0, 1), (2, 3)] {
            disk.read((FIRST + block) * BLOCK, &mut bytes).await?;
            ensure!(bytes.iter().all(|byte| *byte == word), "block {block}");
        }
        load.progress(100).await;
        disk.write(FIRST * BLOCK, data.clone(), Write::Durable)
            .await?;
        let mut all = BytesMut::zeroed(data.len());
        disk.read(FIRST * BLOCK, &mut all).await?;
        ensure!(all == data, "what was written over it is not there");
        load.finish("one error, healed").await
    })
}

/// Three blocks, of which the second can be found in a drive's file.
pub fn three_blocks() -> Bytes {
    let words = [[1; 16], *MARK, [3; 16]];
    Bytes::from(words.map(|word| word.repeat(BLOCK as usize / 16)).concat())
}

/// Where the second of the three blocks lies whole in the file of a drive.
pub fn find(setup: &Setup, nth: Nth) -> Result<Option<u64>> {
    let file = File::open(setup.medium(nth))?;
    let (length, whole) = (file.metadata()?.len(), MARK.repeat(BLOCK as usize / 16));
    let mut block = vec![0; BLOCK as usize];
    for at in (0..length).step_by(BLOCK as usize) {
        file.read_exact_at(&mut block, at)?;
        if block == whole {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Flips a bit of the second of the three blocks in the file of a drive.
pub fn damage(setup: &Setup, nth: Nth) -> Result<()> {
    let at = find(setup, nth)?.context("the block is not in the drive's file")?;
    let file = File::options().write(true).open(setup.medium(nth))?;
    file.write_all_at(&[MARK[0] ^ 8], at + 2000)?;
    file.sync_all()?;
    Ok(())
}
