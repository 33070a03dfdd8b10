//! Reads, writes and zeros of a slice.
//!
//! A request brings a *permit*, dropped when nothing of it can touch the medium any more, which
//! may be later than its future: what runs on a thread or changes the map goes on to its end when
//! the caller leaves.

use super::commit::{Broken, Wanted};
use super::core::{Core, LEAF, LeafKey, NotYet, Piece, Placed, in_leaf, pieces};
use super::held::{Heated, Held, Verified};
use super::hot::{Entered, Mark, regions};
use super::sums::Sums;
use super::tables::ChunkNumber;
use super::{Slice, Store};
use crate::superblock::CHUNK;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{BLOCK, DiskError, ErrorKind, Medium, Write};
use weft_spec::drive::Config;

/// Most chunks looked at in one step of a long discard, and freed in one record.
const ZERO_STEP: u64 = LEAF as u64 * CHUNK;

/// Does what blocks, where the medium wants it. Goes on to its end also when the caller is gone.
pub async fn blocking<T: Send + 'static>(
    medium: &dyn Medium,
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    let working = match medium.at_once() {
        None => tokio::task::spawn_blocking(work),
        Some(turn) => tokio::spawn(async move {
            turn.await;
            work()
        }),
    };
    match working.await {
        Ok(result) => result,
        Err(error) => {
            Err(DiskError::new(ErrorKind::Gone, "the I/O thread is gone").caused_by(error))
        }
    }
}

/// What a write says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Carried {
    /// In-sync set that it was sent under; 0 from an engine without one.
    pub config: Config,
    /// The engine and its number.
    pub mark: Mark,
}

impl Carried {
    fn mark(&self) -> Mark {
        self.mark.under(self.config)
    }
}

impl Store {
    /// Fills `into` from `offset`. A block that is not what was written is never given.
    pub async fn read(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        into: &mut BytesMut,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        let length = into.len() as u64;
        slice.check("read", offset, length)?;
        self.used();
        self.read_quietly(slice, offset, into, permit).await
    }

    /// A read that does not count as use of the drive.
    pub(super) async fn read_quietly(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        into: &mut BytesMut,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        let length = into.len() as u64;
        let mut permit = Some(permit);
        for certain in [false, true] {
            let held = self
                .hold(slice, certain, |core| {
                    core.plan_read(slice.number(), offset, length, certain)
                })
                .await?;
            if held.placed.is_empty() {
                into.fill(0);
                return Ok(());
            }
            let mut buffer = std::mem::take(into);
            let kept = permit.take();
            let (buffer, kept, verified, is_news) = blocking(&*self.medium, move || {
                let verified = held.read_verified(&mut buffer);
                let is_news = match &verified {
                    Ok(Verified::Differ(_, blocks)) if certain => held.suspect(blocks),
                    _ => false,
                };
                drop(held);
                Ok((buffer, kept, verified, is_news))
            })
            .await?;
            (*into, permit) = (buffer, kept);
            if is_news {
                // A log that cannot be written says so itself.
                let _ = self.log(Wanted::Suspects).await;
            }
            match verified? {
                Verified::Good => return Ok(()),
                // It may have been written just now: look again while nobody writes.
                Verified::Differ(..) if !certain => {}
                Verified::Differ(first, blocks) => return Err(self.corrupt(slice, first, &blocks)),
            }
        }
        Ok(())
    }

    /// Plans with what the plan needs in memory and unlocked.
    async fn hold(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        locked: bool,
        plan: impl FnMut(&mut Core) -> Result<Placed, NotYet>,
    ) -> Result<Held, DiskError> {
        let placed = self.planned(plan).await?;
        Ok(self.held(slice, placed, locked))
    }

    fn held(self: &Arc<Self>, slice: &Arc<Slice>, placed: Placed, locked: bool) -> Held {
        Held {
            store: self.clone(),
            slice: slice.clone(),
            placed,
            locked,
        }
    }

    /// Plans once what the plan needs is in memory and unlocked.
    async fn planned<T>(
        self: &Arc<Self>,
        mut plan: impl FnMut(&mut Core) -> Result<T, NotYet>,
    ) -> Result<T, DiskError> {
        loop {
            let mut unlocked = std::pin::pin!(self.unlocked.notified());
            unlocked.as_mut().enable();
            let planned = plan(&mut self.core());
            match planned {
                Ok(planned) => return Ok(planned),
                Err(NotYet::Missing(key)) => self.load(key).await?,
                Err(NotYet::Locked) => unlocked.await,
            }
        }
    }

    /// Writes `data` at `offset`. With [`Write::Durable`] it is kept through a power cut.
    pub async fn write(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        data: Bytes,
        mode: Write,
        carried: Carried,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        let length = data.len() as u64;
        slice.check("write", offset, length)?;
        slice.check_config(carried.config)?;
        let heated = self.heat(slice, offset, length, carried.mark()).await?;
        let mut mapped = true;
        let held = self
            .hold(slice, true, |core| {
                let plan = core.plan_overwrite(slice.number(), offset, length)?;
                mapped = plan.is_some();
                Ok(plan.unwrap_or_default())
            })
            .await?;
        let written = if mapped {
            blocking(&*self.medium, move || {
                let done = held.overwrite(&data, carried.config);
                drop((held, heated, permit));
                done
            })
            .await
        } else {
            drop(held);
            let (store, slice) = (self.clone(), slice.clone());
            self.to_its_end(async move {
                let done = store.write_allocating(&slice, offset, data, carried).await;
                drop((heated, permit));
                done
            })
            .await
        };
        let was_suspect = self.told(written).await?;
        match mode {
            Write::Cached if !was_suspect || self.breakage.is(Broken::LateSums) => Ok(()),
            _ => self.log(Wanted::Flush).await,
        }
    }

    /// Records what a write that failed has left in doubt, before anyone is told.
    async fn told<T>(self: &Arc<Self>, written: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &written
            && error.kind() != ErrorKind::NoSpace
        {
            // A log that cannot be written says so itself.
            let _ = self.log(Wanted::Suspects).await;
        }
        written
    }

    /// Makes every acknowledged write durable.
    pub async fn flush(self: &Arc<Self>, permit: impl Send + 'static) -> Result<(), DiskError> {
        let done = self.log(Wanted::Flush).await;
        drop(permit);
        done
    }

    /// Makes the range read as zeros; whole chunks of it are freed.
    pub async fn zero(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        length: u64,
        carried: Carried,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        slice.check("write zeroes", offset, length)?;
        slice.check_config(carried.config)?;
        let missed = slice.is_missed(carried.config) && !self.breakage.is(Broken::NoVoids);
        if !missed && self.core().is_blank(slice.number()) {
            return Ok(());
        }
        let (store, slice) = (self.clone(), slice.clone());
        self.to_its_end(async move {
            let mut done = 0;
            let mut result = Ok(());
            while done < length && result.is_ok() {
                let step = (length - done).min(ZERO_STEP - (offset + done) % ZERO_STEP);
                result = store.zero_step(&slice, offset + done, step, carried).await;
                done += step;
            }
            drop(permit);
            result
        })
        .await
    }

    /// Runs a request as a task of its own: it changes the map in several steps, and none may
    /// be the last because a connection was closed.
    async fn to_its_end<T: Send + 'static>(
        &self,
        request: impl Future<Output = Result<T, DiskError>> + Send + 'static,
    ) -> Result<T, DiskError> {
        match tokio::spawn(request).await {
            Ok(done) => done,
            Err(error) => {
                Err(DiskError::new(ErrorKind::Gone, "the request was cut off").caused_by(error))
            }
        }
    }

    /// Makes the regions of a write hot, durably, before it is begun.
    async fn heat(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        length: u64,
        mark: Mark,
    ) -> Result<Heated, DiskError> {
        self.broken()?;
        self.used();
        if self.core().pending.unlogged() >= self.most_unlogged() {
            self.log(Wanted::Flush).await?;
        }
        loop {
            let keys = regions(slice.number(), offset, length);
            let entered = self.core().hot.enter(keys, mark);
            let Entered::Cold(cold) = entered else {
                return Ok(Heated {
                    store: self.clone(),
                    slice: slice.clone(),
                    offset,
                    length,
                });
            };
            if self.breakage.is(Broken::NoHeat) {
                self.core().hot.recorded(&cold, mark);
                continue;
            }
            self.log(Wanted::Heat(cold, mark)).await?;
        }
    }

    async fn write_allocating(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        data: Bytes,
        carried: Carried,
    ) -> Result<bool, DiskError> {
        let number = slice.number();
        let mut was_suspect = false;
        let mut todo: Vec<Piece> = pieces(offset, data.len() as u64).collect();
        while !todo.is_empty() {
            let mut unlocked = std::pin::pin!(self.unlocked.notified());
            unlocked.as_mut().enable();
            let mut advanced = std::pin::pin!(self.advanced.notified());
            advanced.as_mut().enable();
            let round = self.planned(|core| core.plan_write(number, &todo)).await?;
            let held = self.held(slice, round.mapped.clone(), true);
            if round.full {
                self.forget(slice, &round.fresh);
                return Err(DiskError::new(
                    ErrorKind::NoSpace,
                    "the drive has no free chunk",
                ));
            }
            if round.mapped.is_empty() && round.fresh.is_empty() {
                drop(held);
                self.broken()?;
                if self.core().is_freeing() {
                    self.log(Wanted::Flush).await?;
                }
                tokio::select! {
                    biased;
                    () = unlocked => {}
                    () = advanced => {}
                }
                continue;
            }
            let bytes = data.clone();
            let (round, written) = blocking(&*self.medium, move || {
                let written = held.overwrite(&bytes, carried.config).and_then(|suspect| {
                    let fresh = held.write_fresh(&round, &bytes, carried.config)?;
                    Ok((fresh, suspect))
                });
                drop(held);
                Ok((round, written))
            })
            .await?;
            let fresh = match written {
                Ok((fresh, suspect)) => {
                    was_suspect |= suspect;
                    fresh
                }
                Err(error) => {
                    self.forget(slice, &round.fresh);
                    return Err(error);
                }
            };
            self.record_fresh(slice, fresh).await?;
            todo = round.blocked;
        }
        Ok(was_suspect)
    }

    async fn record_fresh(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        fresh: Vec<(Piece, ChunkNumber, Sums)>,
    ) -> Result<(), DiskError> {
        if fresh.is_empty() {
            return Ok(());
        }
        if self.breakage.is(Broken::LateAllocation) {
            let mut core = self.core();
            for (piece, chunk, sums) in &fresh {
                core.allocated(slice.number(), piece.index, *chunk);
                core.pending
                    .wrote((slice.number(), piece.index), *chunk, sums);
            }
            return Ok(());
        }
        self.log(Wanted::Allocate(slice.number(), fresh)).await
    }

    fn forget(&self, slice: &Slice, fresh: &[(Piece, ChunkNumber)]) {
        self.core().forget(slice.number(), fresh);
        self.unlocked.notify_waiters();
        self.advance();
    }

    async fn zero_step(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        length: u64,
        carried: Carried,
    ) -> Result<(), DiskError> {
        let _heated = self.heat(slice, offset, length, carried.mark()).await?;
        let mut todo: Vec<Piece> = pieces(offset, length).collect();
        while !todo.is_empty() {
            let mut unlocked = std::pin::pin!(self.unlocked.notified());
            unlocked.as_mut().enable();
            let mut advanced = std::pin::pin!(self.advanced.notified());
            advanced.as_mut().enable();
            let round = self
                .planned(|core| core.plan_zero(slice.number(), &todo))
                .await?;
            let idle = round.whole.is_empty() && round.parts.is_empty();
            let whole = self.held(slice, round.whole, true);
            let parts = self.held(slice, round.parts, true);
            if round.bare {
                self.stamp_void(slice, offset, carried.config).await?;
            }
            if !parts.placed.is_empty() {
                let zeroed = blocking(&*self.medium, move || parts.zero(carried.config)).await;
                if self.told(zeroed).await? {
                    self.log(Wanted::Flush).await?;
                }
            }
            if !whole.placed.is_empty() {
                let placed = whole.placed.clone();
                let gone: Vec<_> = placed.iter().map(|(piece, _)| piece.blocks()).collect();
                self.log(Wanted::Unmap(slice.number(), placed, carried.config))
                    .await?;
                self.mended(slice, &gone);
            }
            drop(whole);
            todo = round.blocked;
            if idle && !todo.is_empty() {
                self.broken()?;
                tokio::select! {
                    biased;
                    () = unlocked => {}
                    () = advanced => {}
                }
            }
        }
        Ok(())
    }

    /// Says in the log that something without a chunk, in the leaf of this byte, was made zeros.
    async fn stamp_void(
        self: &Arc<Self>,
        slice: &Slice,
        offset: u64,
        stamp: Config,
    ) -> Result<(), DiskError> {
        if !slice.is_missed(stamp) || self.breakage.is(Broken::NoVoids) {
            return Ok(());
        }
        // A slice has at most 2^48 bytes.
        let leaf = (slice.number(), (offset / ZERO_STEP) as u32);
        if self.core().pending.void_of(leaf) >= Some(stamp) {
            return Ok(());
        }
        self.log(Wanted::Void(leaf, stamp)).await
    }

    /// Brings a leaf of the chunk map into memory, or waits until another request has.
    async fn load(self: &Arc<Self>, key: LeafKey) -> Result<(), DiskError> {
        let mut advanced = std::pin::pin!(self.advanced.notified());
        advanced.as_mut().enable();
        let mine = self.core().begin_load(key);
        if !mine {
            if self.core().is_loading(key) {
                advanced.await;
            }
            return Ok(());
        }
        let store = self.clone();
        self.to_its_end(async move {
            let tables = store.tables.clone();
            let (slice, leaf) = key;
            let found = blocking(&*store.medium, move || {
                tables.mapped(slice, in_leaf(leaf)).map_err(|error| {
                    DiskError::new(ErrorKind::MediaRead, "read of the chunk map").caused_by(error)
                })
            })
            .await;
            store.core().end_load(key, found.as_deref().ok());
            store.advance();
            found.map(drop)
        })
        .await
    }

    /// First byte of a chunk on the medium.
    pub(super) fn place(&self, chunk: ChunkNumber) -> u64 {
        self.geometry.data_start + u64::from(chunk.0) * CHUNK
    }

    /// Newest checksums of a chunk, every block known.
    pub(super) fn sums(&self, chunk: ChunkNumber) -> Result<Sums, DiskError> {
        loop {
            let (newest, folds) = {
                let core = self.core();
                (core.pending.sums(chunk), core.pending.folds())
            };
            if newest.mask == u16::MAX {
                return Ok(newest);
            }
            let mut sums = self.area.get(chunk)?;
            let core = self.core();
            sums.overlay(&core.pending.sums(chunk));
            // A fold between the two looks moved what was pending into the page.
            if core.pending.folds() == folds {
                return Ok(sums);
            }
        }
    }
}

impl Slice {
    fn check(&self, what: &str, offset: u64, length: u64) -> Result<(), DiskError> {
        let whole = offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK);
        if whole
            && offset
                .checked_add(length)
                .is_some_and(|end| end <= self.size())
        {
            return Ok(());
        }
        let slice = self.uid();
        Err(DiskError::new(
            ErrorKind::OutOfRange,
            format!(
                "{what} of {length} bytes at {offset} of slice {slice} of {} bytes",
                self.size()
            ),
        ))
    }

    /// Refuses a write of another config than that of the record.
    fn check_config(&self, carried: Config) -> Result<(), DiskError> {
        match self.config() {
            Some(config) if config != carried => Err(DiskError::new(
                ErrorKind::WrongConfig,
                format!("a write of config {carried:?} to a slice of config {config:?}"),
            )),
            _ => Ok(()),
        }
    }
}
