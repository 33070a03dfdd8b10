//! The medium of a simulated drive: blocks in memory that forget what was not flushed when the power
//! goes, fail, and end with the process that has them open.

use crate::world::World;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use weft_block::{BLOCK, DiskError, ErrorKind, Medium, Write};

pub const PAGE: usize = BLOCK as usize;
const SECTOR: usize = 512;

/// Nothing for zeros.
type Page = Option<Arc<[u8; PAGE]>>;

/// What lies on the medium, whoever has it open.
#[derive(Clone, Default)]
pub struct Platter {
    newest: Vec<Page>,
    /// Versions since the last flush, the durable one first.
    cached: BTreeMap<usize, Vec<Page>>,
    /// Cannot be read until they are written.
    bad: BTreeSet<usize>,
}

impl Platter {
    pub fn new(size: u64) -> Self {
        let newest = vec![None; (size / BLOCK) as usize];
        Self {
            newest,
            ..Self::default()
        }
    }

    fn write(&mut self, at: usize, page: Page, mode: Write) {
        let before = std::mem::replace(&mut self.newest[at], page.clone());
        self.bad.remove(&at);
        match mode {
            Write::Cached => {
                let versions = self.cached.entry(at).or_insert_with(|| vec![before]);
                versions.push(page);
            }
            Write::Durable => drop(self.cached.remove(&at)),
        }
    }

    /// The power goes: of each block written since the last flush any version is left, torn now and
    /// then if the medium tears. True if anything is gone.
    pub fn lose_power(&mut self, tears: bool, below: &mut impl FnMut(u64) -> u64) -> bool {
        let bias = below(4);
        let mut lost = false;
        for (at, versions) in std::mem::take(&mut self.cached) {
            let newest = versions.len() - 1;
            let kept = match bias {
                0 => newest,
                1 => 0,
                _ => below(versions.len() as u64) as usize,
            };
            let mut page = versions[kept].clone();
            if tears && kept > 0 && below(8) == 0 {
                let whole = |page: &Page| page.as_deref().copied().unwrap_or([0; PAGE]);
                let (mut torn, older) = (whole(&page), whole(&versions[kept - 1]));
                let sector = below((PAGE / SECTOR) as u64) as usize * SECTOR;
                torn[sector..].copy_from_slice(&older[sector..]);
                page = Some(Arc::new(torn));
                lost = true;
            }
            lost |= kept != newest;
            self.newest[at] = page;
        }
        lost
    }

    /// A block at or after `from` that is in use stops being readable until it is written.
    pub fn spoil(&mut self, from: u64, below: &mut impl FnMut(u64) -> u64) -> Option<usize> {
        let first = (from / BLOCK) as usize;
        let used = |at: &usize| self.newest[*at].is_some() && !self.cached.contains_key(at);
        let used: Vec<_> = (first..self.newest.len()).filter(used).collect();
        let at = *used.get(below(used.len() as u64) as usize)?;
        self.bad.insert(at);
        Some(at)
    }
}

/// A platter as one process has it open.
pub struct Open {
    platter: Arc<Mutex<Platter>>,
    world: Arc<World>,
    /// Of the process, whoever has brought it about.
    death: CancellationToken,
    /// Requests until the process dies in the middle.
    fuse: AtomicU64,
    /// First byte that holds data of slices: only these are spoiled.
    pub data: u64,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Open")
    }
}

impl Open {
    pub fn new(
        platter: Arc<Mutex<Platter>>,
        world: Arc<World>,
        death: CancellationToken,
        data: u64,
    ) -> Self {
        Self {
            platter,
            world,
            death,
            fuse: AtomicU64::new(u64::MAX),
            data,
        }
    }

    /// The process is gone: nothing of it touches the medium any more.
    pub fn die(&self) {
        self.death.cancel();
    }

    /// It is gone after so many requests.
    pub fn die_after(&self, requests: u64) {
        self.fuse.store(requests, Relaxed);
    }

    fn state(&self, kind: ErrorKind) -> Result<MutexGuard<'_, Platter>, DiskError> {
        let left = self.fuse.load(Relaxed);
        if left == 0 {
            self.die();
        } else if left != u64::MAX {
            self.fuse.store(left - 1, Relaxed);
        }
        if self.death.is_cancelled() {
            return Err(DiskError::new(kind, "the process is gone"));
        }
        Ok(self.platter.lock().unwrap())
    }

    fn change(&self, offset: u64, pages: Vec<Page>, mode: Write) -> Result<(), DiskError> {
        let mut platter = self.state(ErrorKind::MediaWrite)?;
        let fails = self.world.medium_fails(Request::Write);
        for (number, page) in pages.into_iter().enumerate() {
            if fails && self.world.below(2) == 0 {
                break;
            }
            platter.write((offset / BLOCK) as usize + number, page, mode);
        }
        match fails {
            true => Err(DiskError::new(ErrorKind::MediaWrite, "simulated EIO")),
            false => Ok(()),
        }
    }
}

/// What may fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Read,
    Write,
    Flush,
}

impl Medium for Open {
    fn size(&self) -> u64 {
        self.platter.lock().unwrap().newest.len() as u64 * BLOCK
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let platter = self.state(ErrorKind::MediaRead)?;
        let fails = offset >= self.data && self.world.medium_fails(Request::Read);
        let first = (offset / BLOCK) as usize;
        let is_bad = platter.bad.range(first..first + into.len() / PAGE).next();
        if fails || is_bad.is_some() {
            return Err(DiskError::new(ErrorKind::MediaRead, "simulated EIO"));
        }
        for (number, block) in into.chunks_exact_mut(PAGE).enumerate() {
            match &platter.newest[first + number] {
                Some(page) => block.copy_from_slice(&page[..]),
                None => block.fill(0),
            }
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let pages = data.chunks_exact(PAGE).map(|block| {
            let block: [u8; PAGE] = block.try_into().unwrap();
            Some(Arc::new(block))
        });
        self.change(offset, pages.collect(), mode)
    }

    fn flush(&self) -> Result<(), DiskError> {
        let mut platter = self.state(ErrorKind::MediaWrite)?;
        if self.world.medium_fails(Request::Flush) {
            return Err(DiskError::new(ErrorKind::MediaWrite, "simulated EIO"));
        }
        platter.cached.clear();
        Ok(())
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let pages = vec![None; (length / BLOCK) as usize];
        self.change(offset, pages, Write::Cached)
    }

    fn discard_at(&self, _offset: u64, _length: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn at_once(&self) -> Option<BoxFuture<'static, ()>> {
        let latency = Duration::from_millis(self.world.below(3));
        Some(Box::pin(async move {
            match latency {
                Duration::ZERO => tokio::task::yield_now().await,
                latency => tokio::time::sleep(latency).await,
            }
        }))
    }
}
