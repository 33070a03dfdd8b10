//! Group commit: what waits while a record is written goes into the next one together. One task
//! writes the log and folds it, so that neither meets the other in the middle.

use super::core::{LeafKey, Piece};
use super::hot::{Mark, RegionKey};
use super::io::blocking;
use super::log::Entry;
use super::sums::Sums;
use super::tables::{ChunkNumber, Fold, SliceNumber};
use super::{Store, StoreError, chain};
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::Config;

/// More regions newly hot than this are a reason to fold: bounds memory, and the work after a power cut.
const MOST_HOT: usize = 256;

/// What shall be in the log.
#[derive(Debug)]
pub enum Wanted {
    /// These regions are about to be written. Durable when answered.
    Heat(Vec<RegionKey>, Mark),
    /// These chunks are the slice's, written with these sums.
    Allocate(SliceNumber, Vec<(Piece, ChunkNumber, Sums)>),
    /// The slice gives these chunks up.
    Unmap(SliceNumber, Vec<(Piece, ChunkNumber)>, Config),
    /// What has no chunk in this leaf was made zeros.
    Void(LeafKey, Config),
    /// What was found not to be what was written. Durable when answered.
    Suspects,
    /// Everything acknowledged. Durable when answered.
    Flush,
    /// The same, in pages and tables.
    Fold,
}

/// What waits for the next record.
#[derive(Default)]
pub struct Queue {
    waiting: Vec<Waiting>,
    running: bool,
}

struct Waiting {
    wanted: Wanted,
    done: oneshot::Sender<Result<(), DiskError>>,
}

impl Wanted {
    fn entries(&self) -> Vec<Entry> {
        match self {
            Self::Heat(keys, mark) => keys.iter().map(|key| Entry::Heat(*key, *mark)).collect(),
            Self::Allocate(slice, fresh) => fresh
                .iter()
                .map(|(piece, chunk, _)| Entry::Allocate(*slice, piece.index, *chunk))
                .collect(),
            Self::Unmap(slice, whole, stamp) => whole
                .iter()
                .map(|(piece, chunk)| Entry::Unmap(*slice, piece.index, *chunk, *stamp))
                .collect(),
            Self::Void(leaf, stamp) => vec![Entry::Void(*leaf, *stamp)],
            Self::Suspects | Self::Flush | Self::Fold => vec![],
        }
    }
}

impl Store {
    /// Brings it into the log and takes it in. Goes on to its end also when the caller is gone.
    pub(super) async fn log(self: &Arc<Self>, wanted: Wanted) -> Result<(), DiskError> {
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Waiting { wanted, done });
            if !std::mem::replace(&mut queue.running, true) {
                tokio::spawn(self.clone().run_log());
            }
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends when nothing waits, so that an idle drive has no task.
    async fn run_log(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            let store = self.clone();
            let done = blocking(&*self.medium, move || {
                let result = store.log_batch(&batch);
                if let Err(error) = &result {
                    store.fail(error);
                }
                let result = result.map_err(|error| chain(&error));
                store.advance();
                for waiting in batch {
                    // A caller that is gone needs no answer.
                    let _ = waiting
                        .done
                        .send(result.clone().map_err(|reason| failed(&reason)));
                }
                if result.is_ok()
                    && let Err(error) = store.fold_if_worthwhile()
                {
                    store.fail(&error);
                }
                Ok(())
            })
            .await;
            if let Err(error) = done {
                self.fail(&error);
            }
        }
    }

    /// Nothing more can be recorded: the process must start again.
    pub(super) fn fail(&self, error: &DiskError) {
        let reason = chain(error);
        tracing::error!(
            reason,
            "the log cannot be written; nothing more is accepted"
        );
        // What was acknowledged and not flushed may be gone: this session proves nothing any
        // more. A medium that does not take even this will not be opened in this session either.
        let _ = self
            .superblocks
            .update(|now| now.session = uuid::Uuid::nil());
        self.failure.send_if_modified(|failure| {
            let first = failure.is_none();
            failure.get_or_insert(reason);
            first
        });
        self.unlocked.notify_waiters();
        self.advance();
    }

    /// Why nothing can be recorded any more.
    pub(super) fn broken(&self) -> Result<(), DiskError> {
        match &*self.failure.borrow() {
            Some(reason) => Err(failed(reason)),
            None => Ok(()),
        }
    }

    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let most = self.batch_bytes();
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = 0;
        let count = queue.waiting.iter().take_while(|waiting| {
            let first = bytes == 0;
            bytes += 1 + waiting.wanted.entries().len() * 33;
            first || bytes <= most
        });
        let count = count.count();
        queue.running = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }

    /// Bytes of entries, apart from sums, that one record may have.
    fn batch_bytes(&self) -> usize {
        (self.geometry.log_size / 8) as usize
    }

    /// Chunks whose sums may wait for a flush: their record takes at most a quarter of the log.
    pub(super) fn most_unlogged(&self) -> usize {
        (self.geometry.log_size as usize / 4 / Entry::MOST).min(4096)
    }

    fn log_batch(&self, batch: &[Waiting]) -> Result<(), DiskError> {
        self.broken()?;
        let wanted = || batch.iter().map(|waiting| &waiting.wanted);
        let entries = wanted().flat_map(Wanted::entries).collect();
        let flush = wanted().any(|wanted| matches!(wanted, Wanted::Flush | Wanted::Fold));
        let durable = wanted().any(|wanted| matches!(wanted, Wanted::Heat(..) | Wanted::Suspects));
        self.write_record(entries, flush, durable)?;
        let mut core = self.core();
        wanted().for_each(|wanted| core.take_in(wanted));
        drop(core);
        if wanted().any(|wanted| matches!(wanted, Wanted::Fold)) {
            self.fold()?;
        }
        Ok(())
    }

    fn write_record(
        &self,
        mut entries: Vec<Entry>,
        flush: bool,
        durable: bool,
    ) -> Result<(), DiskError> {
        // Before the sums of a flush, which may be of what was written over them.
        entries.splice(0..0, self.core().pending.new_suspects());
        let mut freed = vec![];
        let mut durable = durable;
        if flush {
            let flushing = {
                let mut core = self.core();
                core.hot.snapshot();
                // With nothing pending, everything acknowledged is durable.
                let voids =
                    core.pending.has_new_voids() && !self.breakage.is(Broken::VoidsUnflushed);
                let idle = core.pending.is_flushed() && !voids;
                (!idle).then(|| core.pending.begin_flush())
            };
            if let Some(flushing) = flushing {
                durable = true;
                if flushing.settles && !self.breakage.is(Broken::NoDataFlush) {
                    self.medium.flush()?;
                }
                entries.extend(flushing.entries);
                freed = flushing.freed;
            }
        }
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if !entries.is_empty() {
            log.append(&entries)?;
        }
        drop(log);
        if durable && !self.breakage.is(Broken::NoFlush) {
            self.medium.flush()?;
        }
        self.core().freed(&freed);
        Ok(())
    }

    fn fold_if_worthwhile(&self) -> Result<(), DiskError> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let half = log.is_half_full();
        drop(log);
        if half || self.core().hot.grown() > MOST_HOT {
            return self.fold();
        }
        Ok(())
    }

    /// Takes everything in the log into pages and tables, and empties the log.
    pub(super) fn fold(&self) -> Result<(), DiskError> {
        self.write_record(vec![], true, false)?;
        let (pending, hot) = {
            let mut core = self.core();
            (core.pending.begin_fold(), core.hot.cool())
        };
        let next = {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            log.next()
        };
        if self.breakage.is(Broken::FreeFirst) {
            self.superblocks.update(|now| now.log = next)?;
        }
        self.area.put(&pending.sums)?;
        let fold = Fold {
            pending: &pending,
            hot: &hot,
            log: next,
            cursor: self.cursor(),
        };
        self.tables.fold(&fold).map_err(tables_failed)?;
        self.superblocks.update(|now| now.log = next)?;
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.folded();
        drop(log);
        self.core().pending.end_fold();
        self.advance();
        Ok(())
    }
}

impl super::core::Core {
    /// Takes in what is in the log.
    fn take_in(&mut self, wanted: &Wanted) {
        match wanted {
            Wanted::Heat(keys, mark) => self.hot.recorded(keys, *mark),
            Wanted::Allocate(slice, fresh) => {
                for (piece, chunk, sums) in fresh {
                    self.pending.allocated((*slice, piece.index), *chunk, *sums);
                    self.allocated(*slice, piece.index, *chunk);
                }
            }
            Wanted::Unmap(slice, whole, stamp) => {
                for (piece, chunk) in whole {
                    self.pending.unmapped((*slice, piece.index), *chunk, *stamp);
                    self.unmapped(*slice, piece.index);
                }
            }
            Wanted::Void(leaf, stamp) => self.pending.void(*leaf, *stamp),
            Wanted::Suspects | Wanted::Flush | Wanted::Fold => {}
        }
    }
}

/// A step of the order of writes that is left out, so that tests see the crash recorder find it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// No flush of the medium at all.
    NoFlush,
    /// No flush of new chunks before the record that settles them.
    NoDataFlush,
    /// Regions are written without being recorded as hot.
    NoHeat,
    /// An allocation is logged after its write was acknowledged.
    LateAllocation,
    /// The log is freed before it is folded.
    FreeFirst,
    /// The tables are opened with a commit in one phase.
    OnePhase,
    /// What is found unreadable is not recorded.
    NoSuspects,
    /// What has no chunk is not stamped when it is made zeros.
    NoVoids,
    /// Such a stamp alone is nothing that a flush has to make durable.
    VoidsUnflushed,
    /// A write over such a block is acknowledged before the log knows of it.
    LateSums,
}

/// Nothing is left out but in tests.
#[derive(Clone, Copy, Default, Debug)]
pub struct Breakage(pub(super) Option<Broken>);

impl Breakage {
    /// Nothing is left out.
    pub const NONE: Self = Self(None);

    pub(super) fn is(self, broken: Broken) -> bool {
        self.0 == Some(broken)
    }
}

/// The tables could not be read or written.
pub(super) fn tables_failed(error: redb::Error) -> DiskError {
    DiskError::new(ErrorKind::MediaWrite, "the metadata").caused_by(StoreError::from(error))
}

fn failed(reason: &str) -> DiskError {
    DiskError::new(
        ErrorKind::MediaWrite,
        format!("nothing can be recorded: {reason}"),
    )
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "the store is closed")
}
