//! What a rebuild does past the other members: with a range kept, it reads what they have and gives it
//! to a target alone.

use super::asked::ask_all;
use super::change::Change;
use super::gate::Verdict;
use super::ranges::{Access, RangeGuard};
use super::report::Role;
use super::span::{Span, Spans};
use super::to_its_end::ToItsEnd;
use super::{Inner, Mirror};
use bytes::Bytes;
use std::future::pending;
use std::sync::Arc;
use weft_block::{DiskError, ErrorKind, Stamp, Write};
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// A range that no change comes into.
#[must_use = "changes go on when this is dropped"]
pub struct Kept {
    span: Span,
    range: Arc<RangeGuard>,
}

impl Kept {
    /// Which range.
    pub fn span(&self) -> Span {
        self.span
    }
}

/// What in-sync members have.
#[derive(Clone, Debug)]
pub struct Contents {
    /// The bytes; zeros where they are missing.
    pub bytes: Bytes,
    /// Blocks that no in-sync member can give.
    pub missing: Spans,
}

impl Mirror {
    /// Keeps changes of a range away until this is dropped; reads go on. Waits for the changes in
    /// flight there, which may themselves wait for the next composition.
    pub async fn keep(&self, span: Span) -> Kept {
        Kept {
            span,
            range: Arc::new(self.0.ranges.lock(span, Access::Shared).await),
        }
    }

    /// What the in-sync members have of a part of a kept range, the leader first.
    pub async fn read_kept(&self, kept: &Kept, part: Span) -> Contents {
        debug_assert!(kept.span.intersection(&part) == Some(part));
        self.0.contents(part).await
    }

    /// Gives a target the bytes of a part of a kept range, and nobody else. `None` for zeros. It
    /// bears the config of now and a number of its own, which counts as acknowledged: the others
    /// have these bytes. Goes to its end, with the range kept, when nobody waits for it any more:
    /// else it could come after a change that is newer.
    ///
    /// # Errors
    ///
    /// What the target answered, which has failed then; [`ErrorKind::Gone`] if it is no target now.
    pub async fn copy_kept(
        &self,
        kept: &Kept,
        target: SliceUid,
        part: Span,
        data: Option<Bytes>,
    ) -> Result<(), DiskError> {
        debug_assert!(kept.span.intersection(&part) == Some(part));
        let change = match data {
            Some(data) => Change::Write(data, Write::Cached),
            None => Change::Zeroes,
        };
        let (inner, range) = (self.0.clone(), kept.range.clone());
        ToItsEnd::new(async move {
            let done = inner.copy(&change, target, part).await;
            drop(range);
            done
        })
        .await
    }

    /// Of the composition in force; 0 before the first.
    pub fn config(&self) -> Config {
        let current = self.0.gate.current();
        current.map_or(Config(0), |current| current.config)
    }
}

impl Inner {
    async fn copy(&self, change: &Change, target: SliceUid, part: Span) -> Result<(), DiskError> {
        let entry = self.gate.enter_beside().await;
        let peer = entry.current.peer(target);
        let peer = peer.filter(|peer| peer.role == Role::Target && !peer.has_failed());
        let Some(peer) = peer else {
            let context = format!("slice {target} is no target of the mirror");
            return Err(DiskError::new(ErrorKind::Gone, context));
        };
        let stamp = Stamp {
            config: entry.current.config.0,
            number: self.gate.number().0,
            checkpoint: 0,
        };
        let asked = std::iter::once(peer);
        let send = ask_all(&self.gate, asked, |peer| change.send(peer, part, stamp));
        let mut answers = send.await;
        if self.gate.judge(&answers) == Verdict::Fenced {
            pending::<()>().await;
        }
        answers.pop().map_or(Ok(()), |(_, done)| done)
    }
}
