//! One piece of a rebuild: kept from source read to target flush, compared, and told to the target
//! (`replication.md` rules 19 and 20).

use super::run::{Rebuild, RebuildError};
use super::slice::{RangeHash, Region};
use crate::layers::mirror::{Kept, Span, Spans, runs};
use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt, iter};
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::{Instant, sleep};
use weft_block::DiskError;

/// How often a piece is copied before its target is given up: a second time for what went wrong on
/// the way.
const ATTEMPTS: u32 = 2;
/// Parts of a piece that are under way at once: together they are no more than the piece.
const PARTS: usize = 4;

/// A region of the target, and what of it is to be copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    pub region: Region,
    /// All of the region, as far as the volume goes.
    pub span: Span,
    pub todo: Spans,
}

impl Rebuild {
    /// Copies a piece, and stands back for as long as others need.
    pub(super) async fn copy(&self, piece: Piece) -> Result<Piece, RebuildError> {
        let (began, others) = (Instant::now(), self.mirror.requests());
        self.copy_now(&piece).await?;
        let others = self.mirror.requests().saturating_sub(others);
        let bytes = piece.todo.length();
        sleep(self.options.limits.rest(began.elapsed(), bytes, others)).await;
        Ok(piece)
    }

    async fn copy_now(&self, piece: &Piece) -> Result<(), RebuildError> {
        let kept = self.mirror.keep(piece.span).await;
        let mut differs = None;
        for _ in 0..ATTEMPTS {
            let parts = piece.todo.iter().map(|part| self.copy_part(&kept, part));
            let copied = iter(parts).buffered(PARTS);
            copied.try_collect::<()>().await?;
            let flushed = self.options.disk.flush().await;
            flushed.map_err(RebuildError::Target)?;
            differs = self.first_that_differs(&piece.todo).await?;
            if differs.is_none() {
                break;
            }
        }
        if let Some(part) = differs {
            return Err(RebuildError::Differs(part));
        }
        // With the range still kept: a write that only the target has would else be forgotten.
        let told = self.options.asked.equal(&[piece.region]).await;
        told.map_err(RebuildError::Target)
    }

    async fn copy_part(&self, kept: &Kept, part: Span) -> Result<(), RebuildError> {
        let contents = self.mirror.read_kept(kept, part).await;
        if !contents.missing.is_empty() {
            return Err(RebuildError::Unreadable(contents.missing));
        }
        for (run, is_zero) in runs(part, &contents.bytes) {
            let done = if is_zero {
                self.zero(kept, run).await
            } else {
                // Within a buffer in memory.
                let from = (run.start - part.start) as usize;
                let data = contents.bytes.slice(from..from + run.length() as usize);
                self.written.fetch_add(run.length(), Relaxed);
                self.give(kept, run, Some(data)).await
            };
            done.map_err(RebuildError::Target)?;
        }
        Ok(())
    }

    /// Makes a run read as zeros, and free where it is whole chunks. Its drive stamps what has no chunk
    /// too, so that whoever else is away learns of it from the target one day.
    async fn zero(&self, kept: &Kept, run: Span) -> Result<(), DiskError> {
        self.zeroed.fetch_add(run.length(), Relaxed);
        self.give(kept, run, None).await
    }

    async fn give(&self, kept: &Kept, part: Span, data: Option<Bytes>) -> Result<(), DiskError> {
        let target = self.options.target;
        self.mirror.copy_kept(kept, target, part, data).await
    }

    /// Compares what both drives read now.
    async fn first_that_differs(&self, spans: &Spans) -> Result<Option<Span>, RebuildError> {
        for part in spans.iter() {
            let (wanted, found) =
                tokio::join!(self.source_hash(part), self.options.asked.hash(part));
            if wanted? != found.map_err(RebuildError::Target)? {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }

    async fn source_hash(&self, part: Span) -> Result<RangeHash, RebuildError> {
        self.ask_source(|slice| slice.hash(part)).await
    }
}
