//! Reads, writes and zeros of a slice.
//!
//! A request brings a *permit*, dropped when nothing of it can touch the medium any more, which
//! may be later than its future: what runs on a thread or changes tables goes on to its end when
//! the caller leaves.

use super::core::{Extent, LEAF, Missing, Piece, WriteRound, extend, pieces};
use super::tables::{Change, ChunkNumber};
use super::{Slice, Store};
use crate::superblock::CHUNK;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{AlignedBuf, BLOCK, DiskError, ErrorKind, Write};

/// Most chunks looked at in one step of a long discard, and freed in one transaction.
const ZERO_STEP: u64 = LEAF as u64 * CHUNK;

/// Runs what blocks on a thread for such work.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => {
            Err(DiskError::new(ErrorKind::Gone, "the I/O thread is gone").caused_by(error))
        }
    }
}

/// Chunks that a request uses; they are not given to others meanwhile.
struct Pins {
    store: Arc<Store>,
    chunks: Vec<ChunkNumber>,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let freed = self.store.core().unpin(&self.chunks);
        if freed {
            self.store.advance();
        }
    }
}

impl Store {
    /// Fills `into` from `offset`.
    pub async fn read(
        self: &Arc<Self>,
        slice: &Slice,
        offset: u64,
        into: &mut BytesMut,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        let length = into.len() as u64;
        slice.check("read", offset, length)?;
        let (extents, chunks) = loop {
            let plan = self.core().plan_read(slice.number(), offset, length);
            match plan {
                Ok(plan) => break plan,
                Err(missing) => self.load(missing).await?,
            }
        };
        if extents.is_empty() {
            into.fill(0);
            return Ok(());
        }
        let pins = Pins {
            store: self.clone(),
            chunks,
        };
        let mut buffer = std::mem::take(into);
        let (buffer, done) = blocking(move || {
            let done = pins.store.read_extents(&extents, &mut buffer);
            drop((pins, permit));
            Ok((buffer, done))
        })
        .await?;
        *into = buffer;
        done
    }

    /// Writes `data` at `offset`. With [`Write::Durable`] it is kept through a power cut.
    pub async fn write(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        data: Bytes,
        mode: Write,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        slice.check("write", offset, data.len() as u64)?;
        let plan = loop {
            let plan = self
                .core()
                .plan_overwrite(slice.number(), offset, data.len() as u64);
            match plan {
                Ok(plan) => break plan,
                Err(missing) => self.load(missing).await?,
            }
        };
        let (store, slice) = (self.clone(), slice.clone());
        match plan {
            Some((extents, chunks)) => {
                let pins = Pins { store, chunks };
                blocking(move || {
                    let done = pins.store.write_extents(&extents, &data, mode);
                    drop((pins, permit));
                    done
                })
                .await
            }
            None => {
                self.to_its_end(async move {
                    let done = store.write_allocating(&slice, offset, data, mode).await;
                    drop(permit);
                    done
                })
                .await
            }
        }
    }

    /// Makes every acknowledged write durable.
    pub async fn flush(self: &Arc<Self>, permit: impl Send + 'static) -> Result<(), DiskError> {
        let medium = self.medium.clone();
        blocking(move || {
            let done = medium.flush();
            drop(permit);
            done
        })
        .await
    }

    /// Makes the range read as zeros; whole chunks of it are freed.
    pub async fn zero(
        self: &Arc<Self>,
        slice: &Arc<Slice>,
        offset: u64,
        length: u64,
        permit: impl Send + 'static,
    ) -> Result<(), DiskError> {
        slice.check("write zeroes", offset, length)?;
        if self.core().is_blank(slice.number()) {
            return Ok(());
        }
        let (store, slice) = (self.clone(), slice.clone());
        self.to_its_end(async move {
            let done = store.zero_steps(&slice, offset, length).await;
            drop(permit);
            done
        })
        .await
    }

    /// Runs a request as a task of its own: it changes the map in several steps, and none may
    /// be the last because a connection was closed.
    async fn to_its_end(
        &self,
        request: impl Future<Output = Result<(), DiskError>> + Send + 'static,
    ) -> Result<(), DiskError> {
        match tokio::spawn(request).await {
            Ok(done) => done,
            Err(error) => {
                Err(DiskError::new(ErrorKind::Gone, "the request was cut off").caused_by(error))
            }
        }
    }

    async fn write_allocating(
        self: &Arc<Self>,
        slice: &Slice,
        offset: u64,
        data: Bytes,
        mode: Write,
    ) -> Result<(), DiskError> {
        let number = slice.number();
        let mut todo: Vec<Piece> = pieces(offset, data.len() as u64).collect();
        while !todo.is_empty() {
            let mut progress = self.progress.subscribe();
            let round = self.core().plan_write(number, &todo);
            let round = match round {
                Ok(round) => round,
                Err(missing) => {
                    self.load(missing).await?;
                    continue;
                }
            };
            let chunks = round.mapped.iter().map(|(_, chunk)| *chunk).collect();
            let pins = Pins {
                store: self.clone(),
                chunks,
            };
            if round.full {
                self.forget(slice, &round.fresh);
                return Err(DiskError::new(
                    ErrorKind::NoSpace,
                    "the drive has no free chunk",
                ));
            }
            if round.mapped.is_empty() && round.fresh.is_empty() {
                // The sender lives as long as this store.
                let _ = progress.changed().await;
                continue;
            }
            let bytes = data.clone();
            let (round, written) = blocking(move || {
                let written = pins.store.write_round(&round, &bytes, mode);
                drop(pins);
                Ok((round, written))
            })
            .await?;
            if let Err(error) = written {
                self.forget(slice, &round.fresh);
                return Err(error);
            }
            let fresh = round.fresh.iter();
            self.commit(
                fresh
                    .map(|(piece, chunk)| Change::Map(number, piece.index, *chunk))
                    .collect(),
            )
            .await?;
            todo = round.blocked;
        }
        Ok(())
    }

    fn forget(&self, slice: &Slice, fresh: &[(Piece, ChunkNumber)]) {
        self.core().forget(slice.number(), fresh);
        self.advance();
    }

    async fn zero_steps(
        self: &Arc<Self>,
        slice: &Slice,
        offset: u64,
        length: u64,
    ) -> Result<(), DiskError> {
        let mut done = 0;
        while done < length {
            let step = (length - done).min(ZERO_STEP - (offset + done) % ZERO_STEP);
            self.zero_step(slice, offset + done, step).await?;
            done += step;
        }
        Ok(())
    }

    async fn zero_step(
        self: &Arc<Self>,
        slice: &Slice,
        offset: u64,
        length: u64,
    ) -> Result<(), DiskError> {
        let mut todo: Vec<Piece> = pieces(offset, length).collect();
        while !todo.is_empty() {
            let mut progress = self.progress.subscribe();
            let round = self.core().plan_zero(slice.number(), &todo);
            let round = match round {
                Ok(round) => round,
                Err(missing) => {
                    self.load(missing).await?;
                    continue;
                }
            };
            let idle = round.changes.is_empty() && round.parts.is_empty();
            let zeroed = self.zero_parts(round.parts).await;
            // The map has changed in memory: it must change on the medium whatever happened.
            self.commit(round.changes).await?;
            zeroed?;
            todo = round.blocked;
            if idle && !todo.is_empty() {
                let _ = progress.changed().await;
            }
        }
        Ok(())
    }

    async fn zero_parts(
        self: &Arc<Self>,
        parts: Vec<(Piece, ChunkNumber)>,
    ) -> Result<(), DiskError> {
        let chunks: Vec<_> = parts.iter().map(|(_, chunk)| *chunk).collect();
        let pins = Pins {
            store: self.clone(),
            chunks,
        };
        if parts.is_empty() {
            return Ok(());
        }
        blocking(move || {
            let store = &pins.store;
            let zeros = AlignedBuf::zeroed(CHUNK as usize);
            let done = parts.iter().try_for_each(|(piece, chunk)| {
                let at = store.data_start + u64::from(chunk.0) * CHUNK + piece.within;
                store
                    .medium
                    .write_at(at, &zeros[..piece.length as usize], Write::Cached)
            });
            drop(pins);
            done
        })
        .await
    }

    /// Brings a leaf of the chunk map into memory, or waits until another request has.
    async fn load(self: &Arc<Self>, missing: Missing) -> Result<(), DiskError> {
        let Missing(key) = missing;
        let mut progress = self.progress.subscribe();
        let mine = self.core().begin_load(key);
        if !mine {
            if self.core().is_loading(key) {
                let _ = progress.changed().await;
            }
            return Ok(());
        }
        let store = self.clone();
        self.to_its_end(async move {
            let tables = store.tables.clone();
            let (slice, leaf) = key;
            let found = blocking(move || {
                let range = leaf * LEAF..=leaf * LEAF + (LEAF - 1);
                tables.mapped(slice, range).map_err(|error| {
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

    fn read_extents(&self, extents: &[Extent], buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut zeroed = 0;
        for extent in extents {
            let (start, end) = (extent.buffer.start, extent.buffer.end);
            buffer[zeroed..start].fill(0);
            self.medium
                .read_at(self.data_start + extent.offset, &mut buffer[start..end])?;
            zeroed = end;
        }
        buffer[zeroed..].fill(0);
        Ok(())
    }

    fn write_extents(&self, extents: &[Extent], data: &[u8], mode: Write) -> Result<(), DiskError> {
        extents.iter().try_for_each(|extent| {
            self.medium.write_at(
                self.data_start + extent.offset,
                &data[extent.buffer.clone()],
                mode,
            )
        })
    }

    /// Writes what a round decided. Chunks that are new are written whole, and need not be
    /// durable here: their commit flushes.
    fn write_round(&self, round: &WriteRound, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let mut mapped = Vec::new();
        round
            .mapped
            .iter()
            .for_each(|(piece, chunk)| extend(&mut mapped, *chunk, piece));
        self.write_extents(&mapped, data, mode)?;
        let mut whole = Vec::new();
        for (piece, chunk) in &round.fresh {
            if piece.is_whole() {
                extend(&mut whole, *chunk, piece);
                continue;
            }
            let mut image = AlignedBuf::zeroed(CHUNK as usize);
            let (within, length) = (piece.within as usize, piece.length as usize);
            image[within..within + length].copy_from_slice(&data[piece.at..piece.at + length]);
            self.medium.write_at(
                self.data_start + u64::from(chunk.0) * CHUNK,
                &image,
                Write::Cached,
            )?;
        }
        self.write_extents(&whole, data, Write::Cached)
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
}
