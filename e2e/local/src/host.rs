//! A host that knows what each of its blocks must contain.
//!
//! Each of its tasks owns a few blocks and writes and reads them one request at a time, again and
//! again. So the right content of a block is always exactly known, and a write that was sent
//! twice and arrives late, after a newer one, is seen at once.

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use weft_block::{BLOCK, Disk, Write};
use weft_transport::initiator::{ConnectOptions, ReconnectingDisk};

/// Tasks, and so requests in flight.
const TASKS: u64 = 16;
/// Pieces of each task.
const PIECES: u64 = 8;
/// Bytes of a piece: larger than one chunk of a drive, so that it can tear.
const PIECE: u64 = 24 * BLOCK;

/// Connects, however often that takes.
///
/// # Panics
/// When nobody has admitted it within the deadline of every wait.
pub async fn attach(options: ConnectOptions) -> Arc<ReconnectingDisk> {
    let disk = ReconnectingDisk::start(options, None);
    let mut state = disk.state();
    let connected = state.wait_for(|state| state.connected);
    let seen = crate::wait::within("an association", connected).await;
    drop(seen.expect("the disk lives"));
    disk
}

/// A host under load.
pub struct Host {
    /// Its disk.
    pub disk: Arc<ReconnectingDisk>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<anyhow::Result<Owned>>>,
}

/// Blocks of one task, with the number of the last write of each.
struct Owned {
    task: u64,
    writes: [u64; PIECES as usize],
}

impl Host {
    /// Connects and begins; within a runtime.
    pub fn start(options: ConnectOptions) -> Self {
        Self::load(ReconnectingDisk::start(options, None))
    }

    /// Begins on a disk.
    pub fn load(disk: Arc<ReconnectingDisk>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let done = Arc::new(AtomicU64::new(0));
        let tasks = (0..TASKS)
            .map(|task| {
                let (disk, stop, done) = (disk.clone(), stop.clone(), done.clone());
                tokio::spawn(async move { Owned::new(task).work(&*disk, &stop, &done).await })
            })
            .collect();
        Self {
            disk,
            stop,
            done,
            tasks,
        }
    }

    /// Requests answered so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits until so many more requests were answered.
    pub async fn progress(&self, requests: u64) {
        let goal = self.done() + requests;
        crate::wait::until_async("progress of the host", || {
            let failed = self.tasks.iter().any(tokio::task::JoinHandle::is_finished);
            (failed || self.done() >= goal).then_some(())
        })
        .await;
    }

    /// Ends the load and reads every block once more. An error is a request that failed, or a
    /// block that is not what was last written.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let owned = crate::wait::within("the end of the load", task).await??;
            owned.verify(&*self.disk).await?;
        }
        self.disk.stop().await;
        Ok(())
    }
}

impl Owned {
    fn new(task: u64) -> Self {
        Self {
            task,
            writes: [0; PIECES as usize],
        }
    }

    async fn work(
        mut self,
        disk: &dyn Disk,
        stop: &AtomicBool,
        done: &AtomicU64,
    ) -> anyhow::Result<Self> {
        let mut round = 0u64;
        while !stop.load(Ordering::Relaxed) {
            round += 1;
            let piece = round % PIECES;
            self.write(disk, piece, round).await?;
            match round % 7 {
                0 => disk.flush().await.context("flush")?,
                1 | 2 => self.read(disk, round.wrapping_mul(5) % PIECES).await?,
                _ => {}
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self)
    }

    async fn verify(&self, disk: &dyn Disk) -> anyhow::Result<()> {
        for piece in 0..PIECES {
            self.read(disk, piece).await?;
        }
        Ok(())
    }

    fn offset(&self, piece: u64) -> u64 {
        (piece * TASKS + self.task) * PIECE
    }

    fn content(&self, piece: u64) -> Bytes {
        let write = self.writes.get(piece as usize).copied().unwrap_or_default();
        let mut content = BytesMut::with_capacity(PIECE as usize);
        for block in 0..PIECE / BLOCK {
            let stamp = [write, self.offset(piece) + block * BLOCK]
                .map(u64::to_le_bytes)
                .concat();
            let end = content.len() + BLOCK as usize;
            if write > 0 {
                content.extend_from_slice(&stamp);
                content.resize(end, (write % 251) as u8);
            } else {
                content.resize(end, 0);
            }
        }
        content.freeze()
    }

    async fn write(&mut self, disk: &dyn Disk, piece: u64, number: u64) -> anyhow::Result<()> {
        if let Some(last) = self.writes.get_mut(piece as usize) {
            *last = number;
        }
        let mode = if number.is_multiple_of(5) {
            Write::Durable
        } else {
            Write::Cached
        };
        disk.write(self.offset(piece), self.content(piece), mode)
            .await
            .context("write")
    }

    async fn read(&self, disk: &dyn Disk, piece: u64) -> anyhow::Result<()> {
        let mut back = BytesMut::zeroed(PIECE as usize);
        disk.read(self.offset(piece), &mut back)
            .await
            .context("read")?;
        let expected = self.content(piece);
        let wrong = back
            .chunks(BLOCK as usize)
            .zip(expected.chunks(BLOCK as usize))
            .position(|(a, b)| a != b);
        ensure!(
            wrong.is_none(),
            "task {} piece {piece}: block {wrong:?} of {} is not that of write {:?}",
            self.task,
            self.offset(piece),
            self.writes.get(piece as usize),
        );
        Ok(())
    }
}
