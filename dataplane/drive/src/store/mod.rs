//! The slice store of one drive: which slices there are, which chunks they have, and their I/O.
//!
//! | file | what |
//! | --- | --- |
//! | `core.rs` | the state in memory; decides, does no I/O |
//! | `io.rs` | reads, writes and zeros: what waits |
//! | `commit.rs` | group commit of changes of the tables |
//! | `slices.rs` | allocation, deletion, records of slices |
//! | `tables.rs`, `backend.rs` | the tables in redb, and the region of the medium under it |
//! | `bitmap.rs` | free chunks |
//!
//! What holds after the death of the process or a power cut at any point:
//!
//! 1. A chunk new to a slice is written whole (the data, zeros around it) before the mapping is
//!    committed, and the commit flushes first. So no slice ever shows another's bytes.
//! 2. The write that needed the chunk is acknowledged after the commit.
//! 3. A chunk is free for others only after the commit that takes it away is durable and the
//!    last request that uses it has ended.

mod backend;
mod bitmap;
mod commit;
mod core;
mod io;
mod slices;
mod tables;
#[cfg(test)]
mod tests;

use crate::superblock::{CHUNK, Superblock, Superblocks};
use bitmap::FreeMap;
use commit::Queue;
use core::Core;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tables::{SliceNumber, Tables};
use tokio::sync::watch;
use weft_block::{DiskError, Medium};
use weft_spec::ids::{DocumentGeneration, SliceUid};

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

/// See the module.
pub struct Store {
    medium: Arc<dyn Medium>,
    superblocks: Arc<Superblocks>,
    tables: Arc<Tables>,
    data_start: u64,
    chunks: u64,
    core: Mutex<Core>,
    queue: Mutex<Queue>,
    directory: Mutex<Directory>,
    /// Held while slices are made, deleted or recorded: one at a time.
    administration: tokio::sync::Mutex<()>,
    /// Counts whatever a waiting request may wait for.
    progress: watch::Sender<u64>,
    /// Why nothing more can be recorded, once that is so: the process must start again.
    failure: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Directory {
    slices: BTreeMap<SliceUid, Arc<Slice>>,
    tombstones: HashSet<SliceUid>,
    next_number: u32,
}

impl Store {
    /// Opens the store of a medium that carries `superblock`; makes the tables of a new one.
    /// Blocks its caller.
    pub fn open(medium: Arc<dyn Medium>, superblock: Superblock) -> Result<Arc<Self>, StoreError> {
        let geometry = superblock.geometry;
        let superblocks = Arc::new(Superblocks::new(medium.clone(), superblock));
        let tables = Tables::open(backend::Region::new(medium.clone(), superblocks.clone()))?;
        let mut free = FreeMap::new(geometry.chunks as u32);
        let mut mapped: HashMap<SliceNumber, u32> = HashMap::new();
        let mut damage = None;
        let loaded = tables.load(|slice, index, chunk| {
            if !free.mark(chunk) {
                damage = Some(format!(
                    "{chunk:?}, of {slice:?} at {index:?}, is mapped twice or is none"
                ));
            }
            *mapped.entry(slice).or_default() += 1;
        })?;
        if let Some(damage) = damage {
            return Err(StoreError::Damaged(damage));
        }
        if let Some(orphan) = mapped
            .keys()
            .find(|number| !loaded.slices.iter().any(|row| row.number == **number))
        {
            return Err(StoreError::Damaged(format!(
                "{orphan:?} has chunks but is no slice"
            )));
        }
        let slices = loaded
            .slices
            .into_iter()
            .map(|row| (row.uid, Arc::new(Slice::new(row))))
            .collect();
        let directory = Directory {
            slices,
            tombstones: loaded.tombstones.into_iter().collect(),
            next_number: loaded.next_number,
        };
        Ok(Arc::new(Self {
            medium,
            superblocks,
            tables: Arc::new(tables),
            data_start: geometry.data_start,
            chunks: geometry.chunks,
            core: Mutex::new(Core::new(free, mapped)),
            queue: Mutex::new(Queue::default()),
            directory: Mutex::new(directory),
            administration: tokio::sync::Mutex::new(()),
            progress: watch::Sender::new(0),
            failure: watch::Sender::new(None),
        }))
    }

    /// Bytes that slices can use.
    pub fn capacity(&self) -> u64 {
        self.chunks * CHUNK
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
        io::blocking(move || {
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
    }
}
