//! Row 24: a flush of one drive's medium fails once, what was not flushed is gone, and the next
//! flush succeeds.

use super::load::Load;
use super::mirrored::{ALL, FEWER, Mirrored, said, says_again};
use super::{Row, Seen};
use crate::forgetful::ForgetfulDisk;
use crate::fuse::DiskFile;
use crate::namespace;
use crate::setup::{DRIVE_SIZE, Nth, Setup};
use anyhow::{Result, ensure};
use std::sync::Arc;

pub const ROW: Row = Row {
    number: 24,
    injected: "EIO on one fsync of a member's medium, which loses what was not flushed, then OK; three times",
    expected: "no second try makes it good: recorded as lacking writes, brought up to date, serves",
    run,
};

const ROUNDS: u64 = 3;
const MEMBER: Nth = Nth(1);
/// Of a drive, once its medium has failed.
const BROKEN: &str = "nothing more is accepted";

fn run() -> Result<Seen> {
    let disk = Arc::new(ForgetfulDisk::new(DRIVE_SIZE));
    let file = DiskFile::mount(disk.clone());
    let mirrored = Mirrored::of(Setup::mirrored().kept_in(MEMBER, file.path()));
    let drive = &mirrored.drives[usize::from(MEMBER.0)];
    namespace::runtime().block_on(async {
        let load = Load::start(&mirrored.setup, 1).await;
        for round in 1..=ROUNDS {
            load.progress(500).await;
            let [fewer, all] = [FEWER, ALL].map(|words| said(&mirrored.engine, words));
            disk.fail_once();
            says_again(&mirrored.engine, FEWER, fewer).await;
            ensure!(disk.failures() == round, "lost without an error");
            ensure!(said(drive, BROKEN) as u64 >= round, "not by its medium");
            says_again(&mirrored.engine, ALL, all).await;
        }
        load.progress(500).await;
        ensure!(disk.failures() == ROUNDS, "failed again");
        load.finish("lost each time, and brought up to date").await
    })
}
