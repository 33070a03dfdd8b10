//! Requests chosen by seed, many at a time and overlapping, judged as they end.

use crate::block::{BlockNumber, Writer};
use crate::history::{History, Violation};
use crate::random::Random;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::{FuturesUnordered, iter};
use std::sync::{Mutex, MutexGuard, PoisonError};
use weft_block::{BLOCK, Disk, Write};

/// Blocks read at a time by the last look at everything.
const STEP: u64 = 64;

/// What is asked of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Chooses the requests.
    pub seed: u64,
    /// Requests at a time.
    pub depth: usize,
    /// Blocks that are used, from the first on. Few make requests overlap.
    pub blocks: u64,
    /// Most blocks of one request.
    pub longest: u64,
    /// Requests.
    pub requests: u64,
    /// Goes into each block.
    pub writer: Writer,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answered.
    pub done: u64,
    /// Refused or lost.
    pub failed: u64,
    /// What may not be, as it was found.
    pub violations: Vec<Violation>,
}

#[derive(Clone, Copy)]
enum Kind {
    Read,
    Write(Write),
    Zeroes,
    Discard,
    Flush,
}

#[derive(Clone, Copy)]
struct Request {
    kind: Kind,
    first: BlockNumber,
    count: u64,
}

impl Workload {
    /// A mixed one: half reads, the rest mostly writes.
    pub fn new(seed: u64, blocks: u64, requests: u64) -> Self {
        Self {
            seed,
            depth: 16,
            blocks: blocks.max(1),
            longest: 16,
            requests,
            writer: Writer(1),
        }
    }

    fn choose(&self, random: &mut Random) -> Request {
        let count = 1 + random.below(self.longest.min(self.blocks));
        let first = BlockNumber(random.below(self.blocks - count + 1));
        let kind = match random.below(100) {
            0..50 => Kind::Read,
            50..80 => Kind::Write(Write::Cached),
            80..90 => Kind::Write(Write::Durable),
            90..93 => Kind::Zeroes,
            93..95 => Kind::Discard,
            _ => Kind::Flush,
        };
        Request { kind, first, count }
    }

    /// Sends all of them. Stops early if `enough` says so after an answer.
    pub async fn run(
        &self,
        disk: &dyn Disk,
        history: &Mutex<History>,
        mut enough: impl FnMut(&Report) -> bool,
    ) -> Report {
        let mut random = Random::new(self.seed);
        let mut report = Report::default();
        let mut left = self.requests;
        let mut running = FuturesUnordered::new();
        loop {
            while left > 0 && running.len() < self.depth.max(1) {
                left -= 1;
                running.push(one(disk, history, self.choose(&mut random), self.writer));
            }
            let Some(outcome) = running.next().await else {
                return report;
            };
            match outcome {
                Some(violations) => {
                    report.done += 1;
                    report.violations.extend(violations);
                }
                None => report.failed += 1,
            }
            if enough(&report) {
                left = 0;
            }
        }
    }

    /// Reads everything once.
    pub async fn look(&self, disk: &dyn Disk, history: &Mutex<History>) -> Report {
        let mut report = Report::default();
        let reads = (0..self.blocks.div_ceil(STEP)).map(|step| {
            let request = Request {
                kind: Kind::Read,
                first: BlockNumber(step * STEP),
                count: STEP.min(self.blocks - step * STEP),
            };
            one(disk, history, request, self.writer)
        });
        let mut reads = iter(reads).buffer_unordered(self.depth.max(1));
        while let Some(outcome) = reads.next().await {
            match outcome {
                Some(violations) => {
                    report.done += 1;
                    report.violations.extend(violations);
                }
                None => report.failed += 1,
            }
        }
        report
    }
}

/// What was found, or `None` if it failed.
async fn one(
    disk: &dyn Disk,
    history: &Mutex<History>,
    request: Request,
    writer: Writer,
) -> Option<Vec<Violation>> {
    let Request { kind, first, count } = request;
    let (offset, length) = (first.0 * BLOCK, count * BLOCK);
    let (writing, mode, done) = match kind {
        Kind::Read => {
            let reading = lock(history).begin_read(first);
            let mut bytes = BytesMut::zeroed(usize::try_from(length).unwrap_or_default());
            let done = disk.read(offset, &mut bytes).await;
            let mut history = lock(history);
            return match done {
                Ok(()) => Some(history.judge(&reading, &bytes)),
                Err(_) => {
                    history.failed(&reading);
                    None
                }
            };
        }
        Kind::Flush => {
            let flushing = lock(history).begin_flush();
            disk.flush().await.ok()?;
            lock(history).flushed(&flushing);
            return Some(vec![]);
        }
        Kind::Write(mode) => {
            let (writing, bytes) = lock(history).begin_write(writer, first, count);
            let done = disk.write(offset, Bytes::from(bytes), mode).await;
            (writing, mode, done)
        }
        Kind::Zeroes => {
            let writing = lock(history).begin_zeroes(first, count);
            (
                writing,
                Write::Cached,
                disk.write_zeroes(offset, length).await,
            )
        }
        Kind::Discard => {
            let writing = lock(history).begin_discard(first, count);
            (writing, Write::Cached, disk.discard(offset, length).await)
        }
    };
    let mut history = lock(history);
    match done {
        Ok(()) => {
            history.acknowledge(&writing, mode == Write::Durable);
            Some(vec![])
        }
        Err(_) => {
            history.lose(writing);
            None
        }
    }
}

fn lock(history: &Mutex<History>) -> MutexGuard<'_, History> {
    history.lock().unwrap_or_else(PoisonError::into_inner)
}
