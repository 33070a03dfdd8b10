//! The slice store of one drive: which slices there are, which chunks they have, and their I/O.
//!
//! | file | what |
//! | --- | --- |
//! | `core.rs`, `pending.rs`, `hot.rs` | the state in memory; decides, does no I/O |
//! | `io.rs`, `held.rs` | reads, writes and zeros: what waits, and what is done at the medium |
//! | `commit.rs` | the one task that writes the log and folds it |
//! | `recover.rs` | what is found at the start |
//! | `voids.rs` | stamps of what has no chunk |
//! | `suspect.rs` | blocks known not to be what was written |
//! | `scrub.rs` | the check of everything stored |
//! | `slices.rs` | allocation, growth, deletion, records of slices |
//! | `tables.rs`, `backend.rs` | the tables in redb, and the region of the medium under it |
//! | `log.rs`, `sums.rs` | the log, the checksum area |
//! | `ask.rs` | what changed since a config, the hot set, hashes |
//! | `bitmap.rs` | free chunks |
//! | `fuzz.rs` | what decodes bytes of the medium, as fuzz targets |
//!
//! What holds after the death of the process or a power cut at any point
//! (`docs/decisions/013-on-disk-format-1.md`):
//!
//! 1. A chunk new to a slice is written whole (the data, zeros around it), and is the slice's
//!    after a power cut only if that is durable. So no slice ever shows another's bytes.
//! 2. The write that needed the chunk is acknowledged after the log has it.
//! 3. A chunk is free for others only after it is durable that it was taken away, and the last
//!    request that uses it has ended.
//! 4. A block is served only if it matches its checksum; which one that is survives both.
//! 5. A block that was found not to match stays so until it is written and the log knows.

mod ask;
mod backend;
mod bitmap;
mod commit;
mod core;
pub(crate) mod fuzz;
mod held;
mod hot;
mod io;
pub mod log;
mod pending;
mod recover;
mod scrub;
mod slices;
mod sums;
mod suspect;
mod tables;
mod voids;

#[cfg(test)]
mod tests;

use crate::superblock::{CHUNK, Geometry, Superblock, Superblocks};
use commit::{Queue, Wanted};
use core::Core;
use log::Log;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use sums::{Area, BLOCKS};
use tables::Tables;
use tokio::sync::{Notify, watch};
use uuid::Uuid;
use weft_block::{DiskError, ErrorKind, Medium};
use weft_spec::drive::{CorruptBlock, ScrubProgress};
use weft_spec::ids::{DocumentGeneration, SliceUid};

pub use ask::Changes;
pub use commit::{Breakage, Broken};
pub use hot::{Mark, REGION};
pub use io::Carried;
pub use slices::{AllocateError, Slice};
pub use tables::SliceRow;

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The tables.
    #[error("the metadata of the drive cannot be opened")]
    Tables(#[from] redb::Error),
    /// The medium.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// They contradict themselves.
    #[error("the chunk map is damaged: {0}")]
    Damaged(String),
}

/// Most corrupt blocks told.
const TOLD: usize = 64;
/// Most corrupt blocks remembered, so that none is reported twice: 24 bytes each.
const REMEMBERED: usize = 1 << 16;

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// The kernel's boot and the device: while it is the same, no power was lost and no device
    /// came back with less than was written to it. Nil proves nothing.
    pub session: Uuid,
    /// The medium never keeps half of a block of 4096 bytes.
    pub atomic: bool,
    /// For tests of the tests.
    pub breakage: Breakage,
}

/// See the module.
pub struct Store {
    medium: Arc<dyn Medium>,
    superblocks: Arc<Superblocks>,
    tables: Arc<Tables>,
    geometry: Geometry,
    area: Area,
    log: Mutex<Log>,
    core: Mutex<Core>,
    queue: Mutex<Queue>,
    directory: Mutex<Directory>,
    /// Held while slices are made, deleted or recorded: one at a time.
    administration: tokio::sync::Mutex<()>,
    /// Counts whatever a status would show.
    progress: watch::Sender<u64>,
    /// The same for waiting requests, woken in the order in which they came.
    advanced: Notify,
    /// Told whenever blocks are not in use any more.
    unlocked: Notify,
    /// Why nothing more can be recorded, once that is so: the process must start again.
    failure: watch::Sender<Option<String>>,
    /// Blocks that do not read as they were written.
    corrupt: Mutex<BTreeSet<CorruptBlock>>,
    breakage: Breakage,
    /// Told of each request.
    in_use: Notify,
    scrubbed: Mutex<Option<ScrubProgress>>,
    /// Where the check of everything stored goes on.
    cursor: Mutex<scrub::Cursor>,
}

#[derive(Default)]
struct Directory {
    slices: BTreeMap<SliceUid, Arc<Slice>>,
    tombstones: HashSet<SliceUid>,
    next_number: u32,
}

impl Store {
    /// Opens the store of a medium that carries `superblock`; makes the tables of a new one, and
    /// recovers what an unclean end left. Blocks its caller.
    pub fn open(
        medium: Arc<dyn Medium>,
        superblock: Superblock,
        opening: Opening,
    ) -> Result<Arc<Self>, StoreError> {
        let geometry = superblock.geometry;
        let area = Area::new(medium.clone(), &geometry, superblock.drive);
        let superblocks = Arc::new(Superblocks::new(medium.clone(), superblock));
        let tables = Tables::open(
            backend::Region::new(medium.clone(), superblocks.clone()),
            opening.breakage,
        )?;
        let found = recover::recover(&medium, &superblocks, &tables, &area, opening)?;
        Ok(Arc::new(Self {
            medium,
            superblocks,
            tables: Arc::new(tables),
            geometry,
            area,
            log: Mutex::new(found.log),
            core: Mutex::new(found.core),
            queue: Mutex::new(Queue::default()),
            directory: Mutex::new(found.directory),
            administration: tokio::sync::Mutex::new(()),
            progress: watch::Sender::new(0),
            advanced: Notify::new(),
            unlocked: Notify::new(),
            failure: watch::Sender::new(None),
            corrupt: Mutex::default(),
            breakage: opening.breakage,
            in_use: Notify::new(),
            scrubbed: Mutex::default(),
            cursor: Mutex::new(found.cursor),
        }))
    }

    /// Makes everything durable and says on the medium that it is. The caller has ended all I/O.
    pub async fn close(self: &Arc<Self>) -> Result<(), DiskError> {
        self.log(Wanted::Fold).await?;
        let superblocks = self.superblocks.clone();
        io::blocking(&*self.medium, move || {
            superblocks.update(|now| now.clean = true)
        })
        .await
    }

    /// Blocks that do not read as they were written, and were not written since; the first 64.
    pub fn corrupt_blocks(&self) -> Vec<CorruptBlock> {
        self.corrupted().iter().copied().take(TOLD).collect()
    }

    /// Reports each of these blocks once, and gives what their reader gets.
    fn corrupt(&self, slice: &Slice, first: u64, blocks: &[u64]) -> DiskError {
        let uid = slice.uid();
        for block in blocks.iter().copied() {
            let found = CorruptBlock { slice: uid, block };
            let mut corrupt = self.corrupted();
            if corrupt.len() < REMEMBERED && corrupt.insert(found) {
                tracing::error!(slice = %uid, block, "the block is not what was written");
                self.advance();
            }
        }
        DiskError::new(
            ErrorKind::MediaRead,
            format!("block {first} of slice {uid} is not what was written"),
        )
    }

    /// Nothing of this slice is there any more.
    fn forget_corrupt(&self, slice: SliceUid) {
        self.corrupted().retain(|found| found.slice != slice);
    }

    /// Blocks from the first of a chunk were written or freed: what was wrong there is gone.
    fn mended(&self, slice: &Slice, written: &[(u64, u16)]) {
        let mut corrupt = self.corrupted();
        if corrupt.is_empty() {
            return;
        }
        let before = corrupt.len();
        corrupt.retain(|found| {
            let hit = |(first, mask): &(u64, u16)| {
                let at = found.block.wrapping_sub(*first);
                at < BLOCKS as u64 && mask & 1 << at != 0
            };
            found.slice != slice.uid() || !written.iter().any(hit)
        });
        if corrupt.len() != before {
            self.advance();
        }
    }

    fn corrupted(&self) -> MutexGuard<'_, BTreeSet<CorruptBlock>> {
        self.corrupt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the check of everything stored has come.
    pub fn scrub_progress(&self) -> Option<ScrubProgress> {
        *self.scrubbed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self) {
        self.in_use.notify_one();
    }

    /// Bytes that slices can use.
    pub fn capacity(&self) -> u64 {
        self.geometry.chunks * CHUNK
    }

    /// Bytes not in any chunk of a slice.
    pub fn free(&self) -> u64 {
        self.core().free() * CHUNK
    }

    /// Bytes in chunks of this slice.
    pub fn allocated(&self, slice: &Slice) -> u64 {
        self.core().mapped(slice.number()) * CHUNK
    }

    /// Changes whenever space was given or freed.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    /// Why nothing more can be recorded, once that is so.
    pub fn failure(&self) -> watch::Receiver<Option<String>> {
        self.failure.subscribe()
    }

    /// What the superblock says.
    pub fn superblock(&self) -> Superblock {
        self.superblocks.now()
    }

    /// Records an accepted document; durable when this returns. Never lowers.
    pub async fn accept_document(&self, generation: DocumentGeneration) -> Result<(), DiskError> {
        let superblocks = self.superblocks.clone();
        io::blocking(&*self.medium, move || {
            if superblocks.now().document_generation >= generation {
                return Ok(());
            }
            superblocks.update(|now| now.document_generation = generation)
        })
        .await
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn directory(&self) -> MutexGuard<'_, Directory> {
        self.directory
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn advance(&self) {
        self.progress
            .send_modify(|count| *count = count.wrapping_add(1));
        self.advanced.notify_waiters();
    }
}

/// An error with its causes in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
