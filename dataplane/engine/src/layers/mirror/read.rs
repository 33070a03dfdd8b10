//! Reads: from the member that is likely to answer first, from another one as well when that is
//! late, from every other one when its bytes are not what was written.

use super::Inner;
use super::asked::given_up;
use super::composition::{Current, Peer};
use super::pace;
use super::ranges::Access;
use super::span::Span;
use super::to_its_end::ToItsEnd;
use bytes::BytesMut;
use futures::future::{Either, select};
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use tokio::time::sleep;
use weft_block::{DiskError, ErrorKind};
use weft_spec::ids::SliceUid;

/// What a read at one or two members came to.
#[derive(Default)]
struct Outcome {
    bytes: Option<BytesMut>,
    errors: Vec<(Arc<Peer>, DiskError)>,
}

impl Outcome {
    fn take(&mut self, peer: &Arc<Peer>, (bytes, done): (BytesMut, Result<(), DiskError>)) {
        match done {
            Ok(()) => self.bytes = Some(bytes),
            Err(error) => self.errors.push((peer.clone(), error)),
        }
    }
}

/// In-sync members that may have the bytes.
fn readable<'a>(
    current: &'a Current,
    unfit: &'a [SliceUid],
) -> impl Iterator<Item = &'a Arc<Peer>> + Clone {
    let fits = |peer: &&Arc<Peer>| !peer.has_failed() && !unfit.contains(&peer.slice);
    current.in_sync().iter().filter(fits)
}

impl Inner {
    /// Fills `into` with what all members have at `span`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MediaRead`], as a member said it, if no in-sync member can give a block.
    pub(super) async fn read(
        self: &Arc<Self>,
        span: Span,
        into: &mut BytesMut,
    ) -> Result<(), DiskError> {
        let length = into.len();
        let mut unfit: Vec<SliceUid> = vec![];
        let mut unreadable = None;
        loop {
            let range = self.ranges.lock(span, Access::Shared).await;
            let turned = self.gate.turned();
            let current = self.gate.enter_read().await;
            if let Some(differs) = self.differs(span) {
                drop(range);
                ToItsEnd::new(self.clone().make_equal(differs)).await;
                continue;
            }
            let Some(peer) = self.choose(&current, &unfit) else {
                drop(range);
                let lost = |peer: &Arc<Peer>| peer.has_failed() && !unfit.contains(&peer.slice);
                match unreadable {
                    // Whoever was lost may come back, and have them.
                    Some(error) if !current.in_sync().iter().any(lost) => {
                        return self.read_by_blocks(span, into, error).await;
                    }
                    _ => turned.await,
                }
                continue;
            };
            let buffer = std::mem::take(into);
            let outcome = self.read_hedged(&current, peer, &unfit, span, buffer).await;
            drop(range);
            for (peer, error) in outcome.errors {
                if error.kind() == ErrorKind::MediaRead {
                    unfit.push(peer.slice);
                    unreadable = Some(error);
                } else {
                    self.gate.fail(&peer, &error);
                }
            }
            if let Some(bytes) = outcome.bytes {
                *into = bytes;
                if !unfit.is_empty() && self.gate.is_open() {
                    ToItsEnd::new(self.clone().repair(span)).await;
                }
                return self.gate.answer(Ok(())).await;
            }
            *into = BytesMut::zeroed(length);
        }
    }

    /// No member has all of the bytes; together they may.
    async fn read_by_blocks(
        self: &Arc<Self>,
        span: Span,
        into: &mut BytesMut,
        error: DiskError,
    ) -> Result<(), DiskError> {
        let answer = match ToItsEnd::new(self.clone().repair(span)).await {
            Some(bytes) => {
                into.copy_from_slice(&bytes);
                Ok(())
            }
            None => Err(error),
        };
        self.gate.answer(answer).await
    }

    /// The in-sync member to ask.
    fn choose<'a>(&self, current: &'a Current, unfit: &'a [SliceUid]) -> Option<&'a Arc<Peer>> {
        let readable = readable(current, unfit);
        let best = readable.clone().min_by_key(|peer| peer.expected());
        match pace::probe(self.budget.read()) {
            // Which of them makes no difference, as long as it is not always the same.
            Some(turn) => readable.clone().nth(turn % readable.count().max(1)),
            None => best,
        }
    }

    /// Asks one member, and another as well if it is late. The first good answer counts.
    async fn read_hedged(
        &self,
        current: &Current,
        first: &Arc<Peer>,
        unfit: &[SliceUid],
        span: Span,
        buffer: BytesMut,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let length = buffer.len();
        let others = readable(current, unfit).filter(|peer| !Arc::ptr_eq(peer, first));
        let other = others.min_by_key(|peer| peer.expected());
        let mut asked = pin!(self.ask_one(first, span, buffer));
        let hedge = tokio::select! {
            biased;
            answer = &mut asked => {
                outcome.take(first, answer);
                return outcome;
            }
            hedge = self.late(first, other) => hedge,
        };
        let spare = pin!(self.ask_one(hedge, span, BytesMut::zeroed(length)));
        let (winner, answer, loser, rest) = match select(asked, spare).await {
            Either::Left((answer, rest)) => (first, answer, hedge, rest),
            Either::Right((answer, rest)) => (hedge, answer, first, rest),
        };
        outcome.take(winner, answer);
        if outcome.bytes.is_none() {
            outcome.take(loser, rest.await);
        }
        outcome
    }

    /// Ends when the answer of `first` is late and a second read may be begun at `other`.
    async fn late<'a>(&self, first: &Peer, other: Option<&'a Arc<Peer>>) -> &'a Arc<Peer> {
        let Some(other) = other else {
            return pending().await;
        };
        sleep(first.pace.late().min(other.pace.late())).await;
        if !self.budget.take() {
            return pending().await;
        }
        other
    }

    /// Reads from one member, unless it is given up.
    pub(super) async fn ask_one(
        &self,
        peer: &Arc<Peer>,
        span: Span,
        mut into: BytesMut,
    ) -> (BytesMut, Result<(), DiskError>) {
        let _reading = peer.begin_read();
        let mut turned = pin!(self.gate.turned());
        let mut read = peer.disk.read(span.start, &mut into);
        let done = loop {
            tokio::select! {
                biased;
                done = &mut read => break done,
                () = &mut turned => {
                    if peer.is_given_up() {
                        break Err(given_up());
                    }
                    turned.set(self.gate.turned());
                }
            }
        };
        drop(read);
        (into, done)
    }
}
