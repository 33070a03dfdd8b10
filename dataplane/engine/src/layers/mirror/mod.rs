//! The mirror: one disk over several that have the same bytes (design section 6, `replication.md`).
//!
//! It decides nothing about membership. It is told of which members it is made
//! ([`Mirror::compose`]), does exactly that, and tells what happened ([`Mirror::report`]).
//! It knows the `Disk` trait and nothing of what is behind it.
//!
//! | file | what | waits |
//! | --- | --- | --- |
//! | `composition.rs` | of which members it is made now | no |
//! | `gate.rs`, `report.rs` | what runs under which composition, what answers mean, what is told | for the next composition |
//! | `ranges.rs` | who has which bytes now | for a range |
//! | [`writes`](crate::writes) | changes in flight: what is held and sent again, the checkpoint | no |
//! | `change.rs`, `asked.rs`, `to_its_end.rs` | a change or a flush to every member, and again | for answers |
//! | `read.rs`, `pace.rs` | a read from one member, from another if it is late | for answers |
//! | `heal.rs` | makes members equal | for answers |
//! | `idle.rs` | when nobody carries the checkpoint any more | for silence |
//! | `target.rs` | gives a target alone what the others have | for answers |
//! | `span.rs` | ranges and sets of them | no |
//!
//! # What its user may rely on
//!
//! - A change is acknowledged when every in-sync member of one composition in force has it, sent
//!   under that composition's config (rule 1).
//! - When an in-sync member fails, nothing is acknowledged that it did not acknowledge before: new
//!   changes wait, those in flight end, [`Flow::Drained`] is told, and the next composition gets
//!   every unfinished change again with its own config (design 6.6, rules 1, 2 and 6).
//!   So that the drive's refusal of other configs meets no change in flight, *every* composition
//!   begins from `Drained`; [`Mirror::hold`] brings it about without a failure.
//! - Who fails last is waited for like any other: there is no error for a missing member (rule 17).
//! - After an answer [`ErrorKind::Fenced`](weft_block::ErrorKind) of any member there are no more
//!   answers at all (design 6.10).
//! - A target that fails harms nobody: it gets nothing more, and it is told.

mod asked;
mod change;
mod composition;
mod gate;
mod heal;
mod idle;
mod pace;
mod ranges;
mod read;
mod report;
mod span;
mod target;
mod to_its_end;

#[cfg(test)]
mod tests;

pub use composition::{ComposeError, Composition, Member};
pub use gate::Hold;
pub use heal::{CHUNK, runs};
pub use report::{Failed, Failure, Flow, Report, Role};
pub use span::{Span, Spans};
pub use target::{Contents, Kept};

use crate::writes::WriteNumber;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use change::Change;
use gate::Gate;
use idle::Idle;
use pace::Budget;
use ranges::Ranges;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use to_its_end::ToItsEnd;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_block::{Disk, DiskError, Stamp, Write};
use weft_spec::ids::SliceUid;

/// What requests share; it outlives the mirror as long as one of them has not ended.
struct Inner {
    gate: Arc<Gate>,
    ranges: Arc<Ranges>,
    /// Bytes where in-sync members may differ.
    unequal: Mutex<Spans>,
    /// Never shrinks: hosts have seen it.
    size: AtomicU64,
    /// There has been a composition: before that nobody knows how large it is.
    composed: CancellationToken,
    budget: Budget,
    /// Counts when room may have been made.
    room: watch::Sender<u64>,
    idle: Idle,
}

impl Inner {
    fn unequal(&self) -> MutexGuard<'_, Spans> {
        self.unequal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first part of a range where in-sync members may differ.
    fn differs(&self, span: Span) -> Option<Span> {
        self.unequal().first_in(span)
    }

    fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// So many bytes from `offset` on, once that can be judged.
    async fn span(&self, offset: u64, length: u64) -> Result<Span, DiskError> {
        self.composed.cancelled().await;
        Span::within(self.size(), offset, length)
    }
}

/// See the module.
pub struct Mirror(Arc<Inner>);

impl Mirror {
    /// A mirror of nobody: everything waits for the first composition. `fenced` is cancelled when a
    /// member says that a newer engine is in force.
    pub fn new(fenced: CancellationToken) -> Self {
        Self(Arc::new(Inner {
            gate: Arc::new(Gate::new(fenced)),
            ranges: Arc::default(),
            unequal: Mutex::default(),
            size: AtomicU64::new(0),
            composed: CancellationToken::new(),
            budget: Budget::default(),
            room: watch::Sender::new(0),
            idle: Idle::default(),
        }))
    }

    /// What has happened, told at each change. A later word contains the earlier ones of the same
    /// composition.
    pub fn report(&self) -> watch::Receiver<Report> {
        self.0.gate.report()
    }

    /// Puts a composition in force, whose record is: unfinished changes are sent again with its
    /// config, and new ones begin. In `unequal` its in-sync members may differ, beside where they
    /// may already: no read sees these bytes before they were made equal.
    ///
    /// # Errors
    ///
    /// [`ComposeError`]; nothing has changed then.
    pub fn compose(
        &self,
        next: Composition,
        unequal: impl IntoIterator<Item = Span>,
    ) -> Result<(), ComposeError> {
        let inner = &self.0;
        // Before any read is let in.
        let before = inner.unequal().clone();
        unequal
            .into_iter()
            .for_each(|span| inner.unequal().insert(span));
        match inner.gate.compose(next, inner.size()) {
            Ok(current) => {
                inner.size.fetch_max(current.size(), Ordering::AcqRel);
                inner.composed.cancel();
                Ok(())
            }
            Err(error) => {
                *inner.unequal() = before;
                Err(error)
            }
        }
    }

    /// Lets no new change begin, or nothing at all, until the next composition.
    pub fn hold(&self, what: Hold) {
        self.0.gate.hold(what);
    }

    /// Waits for a member no longer: it has failed, and what was sent to it has no answer. For a
    /// member that is silent; one whose disk says so itself has failed already.
    pub fn give_up(&self, slice: SliceUid) {
        self.0.gate.give_up(slice);
    }

    /// A drive has room again: changes that no member had room for are tried again.
    pub fn room(&self) {
        self.0.room();
    }

    /// In-sync members have grown: the mirror has what all of them have. Its size in bytes.
    pub fn measure(&self) -> u64 {
        if let Some(current) = self.0.gate.current() {
            self.0.size.fetch_max(current.size(), Ordering::AcqRel);
        }
        self.0.size()
    }

    /// Bytes where in-sync members may differ.
    pub fn unequal(&self) -> Spans {
        self.0.unequal().clone()
    }

    /// Makes the first of those bytes equal, at most a MiB of them; false if there are none left.
    pub async fn make_equal(&self) -> bool {
        let first = self.0.unequal().first();
        let Some(first) = first else { return false };
        ToItsEnd::new(self.0.clone().make_equal(first)).await;
        true
    }

    /// Every change up to this one is equal on all in-sync members and flushed there.
    pub fn checkpoint(&self) -> WriteNumber {
        self.0.gate.checkpoint()
    }

    /// Reads and changes that were asked for so far.
    pub fn requests(&self) -> u64 {
        self.0.budget.reads() + self.0.idle.changes()
    }

    /// Ends once after changes that nothing followed for so long: now is the time to flush and to
    /// say the checkpoint by itself.
    pub async fn gone_idle(&self, quiet: Duration) {
        self.0.idle.after(quiet).await;
    }

    fn change(&self, change: Change, span: Span) -> ToItsEnd<impl Future<Output = ()> + use<>> {
        ToItsEnd::new(self.0.clone().change(change, span))
    }
}

#[async_trait]
impl Disk for Mirror {
    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let span = self.0.span(offset, into.len() as u64).await?;
        self.0.read(span, into).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        let span = self.0.span(offset, data.len() as u64).await?;
        self.change(Change::Write(data, mode), span).await;
        Ok(())
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        ToItsEnd::new(self.0.clone().flush()).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        let span = self.0.span(offset, length).await?;
        self.change(Change::Zeroes, span).await;
        Ok(())
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.write_zeroes_stamped(offset, length, stamp).await
    }
}
