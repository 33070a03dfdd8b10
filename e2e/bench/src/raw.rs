//! The file itself, without a network: what durable writes of 4 KiB cost there.

use crate::figures::Sample;
use anyhow::Context;
use rustix::fs::{Mode, OFlags, fdatasync, open};
use rustix::io::{ReadWriteFlags, pwritev2};
use std::io::IoSlice;
use std::path::Path;
use std::time::{Duration, Instant};
use weft_block::AlignedBuf;

/// How a write is made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// By itself (RWF_DSYNC).
    Dsync,
    /// By fdatasync after it.
    Fdatasync,
}

/// Measures writes of 4 KiB anywhere in a file that is there, one at a time, with O_DIRECT.
pub fn measure(path: &Path, durability: Durability, time: Duration) -> anyhow::Result<Sample> {
    let file = open(
        path,
        OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .with_context(|| path.display().to_string())?;
    let places = std::fs::metadata(path)?.len() / 4096;
    let data = AlignedBuf::copy_of(&[0x5a; 4096]);
    let flags = match durability {
        Durability::Dsync => ReadWriteFlags::DSYNC,
        Durability::Fdatasync => ReadWriteFlags::empty(),
    };
    let (mut latencies, mut number) = (vec![], 0x9e37_79b9_7f4a_7c15_u64);
    let began = Instant::now();
    loop {
        let begun = Instant::now();
        if begun - began >= time {
            return Ok(Sample::of(latencies, begun - began, Duration::ZERO));
        }
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        pwritev2(&file, &[IoSlice::new(&data)], number % places * 4096, flags)?;
        if durability == Durability::Fdatasync {
            fdatasync(&file)?;
        }
        latencies.push(begun.elapsed());
    }
}
