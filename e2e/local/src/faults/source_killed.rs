//! Row 9: the member that another one is being brought up to date from is lost.

use super::load::Load;
use super::mirrored::{ADMITTED, Mirrored, PAUSED, said, says_again};
use super::{Row, Seen};
use crate::namespace;
use crate::process::Process;
use crate::setup::{Nth, Setup};
use crate::usage::written;
use crate::wait::until_async;
use anyhow::{Result, ensure};

pub const ROW: Row = Row {
    number: 9,
    injected: "the only source of a rebuild killed when the target has a tenth, then half of it",
    expected: "the volume pauses, the half-built member is not served from; goes on when the source is back",
    run,
};

/// With three copies there is another source.
pub const ANOTHER: Row = Row {
    number: 9,
    injected: "one of two sources of a rebuild killed when the target has a tenth, then half of it",
    expected: "writes go on; the rebuild ends from the other source, and not before",
    run: run_another,
};

/// Blocks in use: most of their chunks are written while a member is away.
const BLOCKS: u64 = 32 * 1024;
/// Requests that do that.
const MISSED: u64 = 4000;
/// Bytes at the target when its source is killed.
const PARTS: [u64; 2] = [10 << 20, 50 << 20];

/// Waits until a drive that was started has written so much.
async fn has_written(drive: &Process, bytes: u64) {
    let what = format!("the target has {bytes} bytes");
    let enough = || (written(drive.worker()?).ok()? >= bytes).then_some(());
    until_async(&what, enough).await;
}

fn run() -> Result<Seen> {
    let mut mirrored = Mirrored::start();
    let [source, target] = [0, 1].map(Nth);
    namespace::runtime().block_on(async {
        let load = Load::over(&mirrored.setup, 1, BLOCKS).await;
        for part in PARTS {
            mirrored.lose(target).await;
            load.progress(MISSED).await;
            let before = said(&mirrored.engine, PAUSED);
            mirrored.start_again(target);
            has_written(&mirrored.drives[usize::from(target.0)], part).await;
            mirrored.kill(source);
            ensure!(mirrored.out() == [target], "the rebuild was over too soon");
            says_again(&mirrored.engine, PAUSED, before).await;
            let half_built = &mirrored.drives[usize::from(target.0)];
            let (stood, before) = (load.answered(), said(half_built, ADMITTED));
            half_built.kill_worker();
            says_again(half_built, ADMITTED, before).await;
            // What had been answered before and was on its way to the host.
            let late = load.answered() - stood;
            ensure!(late <= load.depth(), "{late} answers of a half-built one");
            ensure!(mirrored.out() == [target], "a half-built one is a member");
            mirrored.bring_back(source).await;
            load.progress(500).await;
        }
        load.finish("twice paused, then gone on").await
    })
}

fn run_another() -> Result<Seen> {
    let mut mirrored = Mirrored::of(Setup::with(3, 2));
    let [source, target] = [0, 2].map(Nth);
    namespace::runtime().block_on(async {
        let load = Load::over(&mirrored.setup, 1, BLOCKS).await;
        for part in PARTS {
            mirrored.lose(target).await;
            load.progress(MISSED).await;
            mirrored.start_again(target);
            has_written(&mirrored.drives[usize::from(target.0)], part).await;
            mirrored.kill(source);
            ensure!(mirrored.out() == [target], "the rebuild was over too soon");
            mirrored.goes_on_without(&[source, target]).await;
            load.progress(500).await;
            mirrored.goes_on_without(&[source]).await;
            mirrored.bring_back(source).await;
            load.progress(500).await;
        }
        load.finish("twice brought up to date from the other").await
    })
}
