//! The rebuild as a whole: one stage after the other, piece by piece.

use super::copy::Piece;
use super::frontier::Frontier;
use super::pace::{Limits, Progress, Stage, left};
use super::slice::{Changes, ChunkIndex, Region, Slice, Source, hot_set};
use crate::layers::mirror::{CHUNK, Mirror, Span, Spans};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::iter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_block::{Disk, DiskError, ErrorKind};
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Bytes emptied at a time: no more of the volume is kept from changes.
const EMPTIED: u64 = 16 << 20;

/// Who is rebuilt from whom.
#[derive(Clone)]
pub struct Options {
    /// The target's name in the mirror.
    pub target: SliceUid,
    /// Its disk, the same that the mirror has.
    pub disk: Arc<dyn Disk>,
    /// How to ask it.
    pub asked: Arc<dyn Slice>,
    /// In-sync members, in the order in which they are asked.
    pub sources: Vec<Source>,
    /// What it may take.
    pub limits: Limits,
}

/// Why a rebuild has ended without being done. The volume is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The target, or the way to it; or it is not a target of the mirror any more.
    #[error("the target cannot go on")]
    Target(#[source] DiskError),
    /// No in-sync member answers a question.
    #[error("no source answers")]
    Source(#[source] DiskError),
    /// Blocks that no in-sync member can give. Once they are written the rebuild can be done.
    #[error("no source has {} bytes of the volume, first at {:?}", .0.length(), .0.first())]
    Unreadable(Spans),
    /// It was copied more than once, and still both drives do not read the same.
    #[error("target and source differ at {0:?} after it was copied")]
    Differs(Span),
}

/// See the module. Kept by its owner while it runs, so that what is done outlives an interruption.
pub struct Rebuild {
    pub(super) mirror: Arc<Mirror>,
    pub(super) options: Options,
    frontier: Mutex<Frontier>,
    progress: watch::Sender<Progress>,
    pub(super) written: AtomicU64,
    pub(super) zeroed: AtomicU64,
}

impl Rebuild {
    /// Of what `frontier` says is to be copied.
    pub fn new(mirror: Arc<Mirror>, options: Options, frontier: Frontier) -> Self {
        Self {
            mirror,
            options,
            frontier: Mutex::new(frontier),
            progress: watch::Sender::default(),
            written: AtomicU64::new(0),
            zeroed: AtomicU64::new(0),
        }
    }

    /// What is still to be copied, if it is interrupted now.
    pub fn frontier(&self) -> Frontier {
        self.locked().clone()
    }

    /// How far it has come, told as it changes.
    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    fn locked(&self) -> MutexGuard<'_, Frontier> {
        self.frontier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies until the target has everything, durable and verified.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]: the volume goes on without the target, and [`Rebuild::frontier`] says what
    /// is left.
    pub async fn run(&self) -> Result<(), RebuildError> {
        let joined = self.mirror.config();
        self.tell(Stage::Equalizing, 0, None);
        while self.mirror.make_equal().await {}
        if self.locked().is_full() {
            self.empty().await?;
        }
        let whole = self.copy_hot_regions().await?;
        self.copy_changes(joined, &whole).await?;
        self.tell_equal().await?;
        self.tell(Stage::Done, self.mirror.size(), None);
        Ok(())
    }

    /// Takes what a full copy must not leave there.
    async fn empty(&self) -> Result<(), RebuildError> {
        for part in self.whole().into_iter().flat_map(|all| all.parts(EMPTIED)) {
            self.tell(Stage::Emptying, part.start, None);
            let kept = self.mirror.keep(part).await;
            let target = self.options.target;
            let emptied = self.mirror.copy_kept(&kept, target, part, None).await;
            emptied.map_err(RebuildError::Target)?;
        }
        let flushed = self.options.disk.flush().await;
        flushed.map_err(RebuildError::Target)?;
        self.locked().emptied();
        Ok(())
    }

    /// Gives what was copied: the target gets every change there from now on.
    async fn copy_hot_regions(&self) -> Result<Spans, RebuildError> {
        if self.locked().hot().is_none() {
            let found = self.hot_set().await?;
            let found = Spans::from_iter(found.into_iter().map(|(span, _)| span));
            self.locked().found_hot(found);
        }
        let hot = self.locked().hot().cloned().unwrap_or_default();
        let size = self.options.asked.region_size();
        let regions = hot.iter().flat_map(|span| span.parts(size));
        let pieces = regions.map(|span| Piece {
            region: self.region_of(span.start),
            span,
            todo: Spans::from_iter([span]),
        });
        self.copy_all(pieces.collect(), |piece| {
            self.locked().hot_done(piece.span);
            self.tell(Stage::HotRegions, piece.span.end, None);
        })
        .await?;
        Ok(hot)
    }

    /// Tells the target that its regions are equal now. With each kept for the moment: a change that
    /// only the target has would else be forgotten.
    async fn tell_equal(&self) -> Result<(), RebuildError> {
        for (span, region) in self.hot_set().await? {
            let _kept = self.mirror.keep(span).await;
            let told = self.options.asked.equal(&[region]).await;
            told.map_err(RebuildError::Target)?;
        }
        Ok(())
    }

    /// Every region that is hot at the target, in order.
    async fn hot_set(&self) -> Result<Vec<(Span, Region)>, RebuildError> {
        let hot = hot_set(&*self.options.asked).await;
        let hot = hot.map_err(RebuildError::Target)?.into_iter();
        let named = hot.filter_map(|region| Some((self.region(region)?, region)));
        Ok(named.collect())
    }

    /// Copies what was changed, but for what was copied `whole` already.
    async fn copy_changes(&self, joined: Config, whole: &Spans) -> Result<(), RebuildError> {
        let began = Instant::now();
        let mut from = ChunkIndex(0);
        loop {
            let (since, end) = self.locked().at(from);
            let changes = self.ask_source(|slice| slice.changes(since, from)).await?;
            let (mut pieces, next) = self.pieces(from, changes, end);
            pieces.retain(|piece| whole.first_in(piece.span) != Some(piece.span));
            self.copy_all(pieces, |piece| {
                self.locked().done(chunk(piece.span.end), joined);
                let left = left(began.elapsed(), piece.span.end, self.mirror.size());
                self.tell(Stage::Changes, piece.span.end, left);
            })
            .await?;
            let Some(next) = next else { return Ok(()) };
            self.locked().done(next, joined);
            from = next;
        }
    }

    /// Copies some pieces at a time; they end in their order.
    async fn copy_all(
        &self,
        pieces: Vec<Piece>,
        mut ended: impl FnMut(&Piece),
    ) -> Result<(), RebuildError> {
        let copies = pieces.into_iter().map(|piece| self.copy(piece));
        let mut copies = iter(copies).buffered(self.options.limits.pieces.max(1));
        while let Some(copied) = copies.next().await {
            ended(&copied?);
        }
        Ok(())
    }

    /// Changes by region, up to where another config or another question begins, and that place. A
    /// region is not cut: only one that was copied as a whole can be told to be equal.
    fn pieces(
        &self,
        from: ChunkIndex,
        changes: Changes,
        end: Option<ChunkIndex>,
    ) -> (Vec<Piece>, Option<ChunkIndex>) {
        let size = self.options.asked.region_size();
        // A region has at most some thousand chunks.
        let chunks = u32::try_from(size / CHUNK).unwrap_or(u32::MAX).max(1);
        let whole = |chunk: ChunkIndex| ChunkIndex(chunk.0 / chunks * chunks);
        let next = match (changes.next, end) {
            (Some(next), Some(end)) => Some(next.min(end)),
            (next, end) => next.or(end),
        };
        // The next question begins with the region in which this answer ends; unless that is the
        // first, then there is nothing else to do than to go on.
        let next = next.map(|next| {
            if whole(next) > from {
                whole(next)
            } else {
                next
            }
        });
        let mut regions = BTreeMap::<Region, Spans>::new();
        let changed = changes.changed.into_iter().chain(changes.holes);
        for chunk in changed.filter(|chunk| next.is_none_or(|next| *chunk < next)) {
            let Some(span) = self.clipped(u64::from(chunk.0) * CHUNK, CHUNK) else {
                continue;
            };
            let region = Region(chunk.0 / chunks);
            regions.entry(region).or_default().insert(span);
        }
        let pieces = regions.into_iter().filter_map(|(region, todo)| {
            let span = self.region(region)?;
            Some(Piece { region, span, todo })
        });
        let is_inside = |next: &ChunkIndex| u64::from(next.0) * CHUNK < self.mirror.size();
        (pieces.collect(), next.filter(is_inside))
    }

    fn region(&self, region: Region) -> Option<Span> {
        let size = self.options.asked.region_size();
        self.clipped(u64::from(region.0) * size, size)
    }

    fn region_of(&self, byte: u64) -> Region {
        // A slice has at most 2^48 bytes.
        let region = byte / self.options.asked.region_size().max(1);
        Region(u32::try_from(region).unwrap_or(u32::MAX))
    }

    fn whole(&self) -> Option<Span> {
        self.clipped(0, u64::MAX)
    }

    /// So many bytes, as far as they are in the volume.
    fn clipped(&self, start: u64, length: u64) -> Option<Span> {
        let end = start.saturating_add(length).min(self.mirror.size());
        (start < end).then_some(Span { start, end })
    }

    /// The answer of the first source that gives one.
    pub(super) async fn ask_source<'a, T>(
        &'a self,
        ask: impl Fn(&'a dyn Slice) -> BoxFuture<'a, Result<T, DiskError>>,
    ) -> Result<T, RebuildError> {
        let mut error = None;
        for source in &self.options.sources {
            match ask(&*source.asked).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => error = Some(failed),
            }
        }
        let nobody = || DiskError::new(ErrorKind::Gone, "there is no source");
        Err(RebuildError::Source(error.unwrap_or_else(nobody)))
    }

    fn tell(&self, stage: Stage, passed: u64, left: Option<Duration>) {
        self.progress.send_replace(Progress {
            stage,
            passed,
            size: self.mirror.size(),
            written: self.written.load(Relaxed),
            zeroed: self.zeroed.load(Relaxed),
            left,
        });
    }
}

/// The chunk that begins at a byte, or that it is in.
fn chunk(byte: u64) -> ChunkIndex {
    // A slice has at most 2^48 bytes.
    ChunkIndex(u32::try_from(byte / CHUNK).unwrap_or(u32::MAX))
}
