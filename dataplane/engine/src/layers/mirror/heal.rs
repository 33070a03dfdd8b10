//! Makes members equal: where one of them does not have what was written (`replication.md` rule
//! 13), and where they may differ since an engine died (design 6.5).
//!
//! Both happen with the range held, over bytes read again under it, and are changes like any other:
//! every member gets them, with a number and the config of now. So what one member alone had is
//! stamped anew, and a member that is away at the time gets it when it returns.

use super::Inner;
use super::change::Change;
use super::composition::Peer;
use super::ranges::Access;
use super::span::{Span, Spans};
use super::target::Contents;
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{BLOCK, ErrorKind, Write};

/// Bytes made equal at a time: what a change waits for at most.
const STEP: u64 = 1 << 20;
/// What a drive frees as a whole: zeros of this size are not written, so that sparse stays sparse.
pub const CHUNK: u64 = 64 << 10;

/// What members have of a range.
struct Gathered {
    bytes: BytesMut,
    span: Span,
    /// Blocks that none of those asked has.
    missing: Spans,
    /// Blocks that at least one of them does not have.
    wanting: Spans,
}

impl Gathered {
    fn take(&mut self, span: Span, bytes: &[u8]) {
        while let Some(part) = self.missing.first_in(span) {
            let (from, to) = (place(part, span), place(part, self.span));
            self.bytes[to].copy_from_slice(&bytes[from]);
            self.missing.remove(part);
        }
    }
}

/// Where the bytes of `part` are in a buffer of `whole`.
fn place(part: Span, whole: Span) -> std::ops::Range<usize> {
    // A buffer is in memory, so its length is a usize.
    (part.start - whole.start) as usize..(part.end - whole.start) as usize
}

/// Who is asked for bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ask {
    /// One after the other, until all are there.
    UntilWhole,
    /// All of them.
    Everyone,
}

impl Inner {
    /// Writes what any in-sync member has to those that do not have it. The bytes, if there is one
    /// for each of them.
    pub(super) async fn repair(self: Arc<Self>, span: Span) -> Option<Bytes> {
        let _range = self.ranges.lock(span, Access::Exclusive).await;
        let found = self.gather(span, Ask::Everyone).await;
        let bytes = found.bytes.freeze();
        let mut mendable = found.wanting;
        found.missing.iter().for_each(|part| mendable.remove(part));
        for part in mendable.iter() {
            let data = bytes.slice(place(part, span));
            self.apply(&Change::Write(data, Write::Cached), part).await;
        }
        found.missing.is_empty().then_some(bytes)
    }

    /// Gives every member what the leader has of the first bytes of `span`, where they may differ.
    pub(super) async fn make_equal(self: Arc<Self>, span: Span) {
        let Some(step) = span.parts(STEP).next() else {
            return;
        };
        let _range = self.ranges.lock(step, Access::Exclusive).await;
        loop {
            // Somebody else may have done it meanwhile.
            let Some(part) = self.differs(step) else {
                return;
            };
            let found = self.gather(part, Ask::UntilWhole).await;
            let bytes = found.bytes.freeze();
            // What no member has is the same on all: unreadable, until it is written.
            let mut present = Spans::from_iter([part]);
            found.missing.iter().for_each(|gone| present.remove(gone));
            for whole in present.iter() {
                let data = bytes.slice(place(whole, part));
                for (run, is_zero) in runs(whole, &data) {
                    let change = if is_zero {
                        Change::Zeroes
                    } else {
                        Change::Write(data.slice(place(run, whole)), Write::Cached)
                    };
                    self.apply(&change, run).await;
                }
            }
            self.unequal().remove(part);
        }
    }

    /// What in-sync members have of a range that the caller holds.
    pub(super) async fn contents(&self, span: Span) -> Contents {
        let found = self.gather(span, Ask::UntilWhole).await;
        Contents {
            bytes: found.bytes.freeze(),
            missing: found.missing,
        }
    }

    /// Reads a range that the caller holds from the in-sync members, the leader first.
    async fn gather(&self, span: Span, ask: Ask) -> Gathered {
        loop {
            let turned = self.gate.turned();
            let current = self.gate.enter_read().await;
            let alive = current.leader_first().filter(|peer| !peer.has_failed());
            let alive: Vec<_> = alive.cloned().collect();
            if alive.is_empty() {
                turned.await;
            } else if let Some(found) = self.gather_from(&alive, span, ask).await {
                return found;
            }
        }
    }

    /// `None` if a member has failed: those that are left are to be asked anew.
    async fn gather_from(&self, peers: &[Arc<Peer>], span: Span, ask: Ask) -> Option<Gathered> {
        let mut found = Gathered {
            bytes: BytesMut::zeroed(place(span, span).len()),
            span,
            missing: Spans::from_iter([span]),
            wanting: Spans::default(),
        };
        for peer in peers {
            if ask == Ask::UntilWhole && found.missing.is_empty() {
                break;
            }
            match self.read_or_lack(peer, span).await? {
                Some(bytes) => found.take(span, &bytes),
                None => {
                    for block in span.parts(BLOCK) {
                        match self.read_or_lack(peer, block).await? {
                            Some(bytes) => found.take(block, &bytes),
                            None => found.wanting.insert(block),
                        }
                    }
                }
            }
        }
        Some(found)
    }

    /// What a member has there: nothing if it is not what was written. `None` if it has failed.
    async fn read_or_lack(&self, peer: &Arc<Peer>, span: Span) -> Option<Option<BytesMut>> {
        let buffer = BytesMut::zeroed(place(span, span).len());
        match self.ask_one(peer, span, buffer).await {
            (bytes, Ok(())) => Some(Some(bytes)),
            (_, Err(error)) if error.kind() == ErrorKind::MediaRead => Some(None),
            (_, Err(error)) => {
                self.gate.fail(peer, &error);
                None
            }
        }
    }
}

/// Parts of a range, in order, and whether they are zeros; they change at multiples of [`CHUNK`].
pub fn runs(span: Span, bytes: &[u8]) -> Vec<(Span, bool)> {
    let mut runs: Vec<(Span, bool)> = vec![];
    for part in span.parts(CHUNK) {
        let is_zero = bytes[place(part, span)].iter().all(|byte| *byte == 0);
        match runs.last_mut() {
            Some((last, kind)) if *kind == is_zero => last.end = part.end,
            _ => runs.push((part, is_zero)),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_cover_the_range_and_say_what_is_zero(
            start in 0u64..40, blocks in prop::collection::vec(any::<bool>(), 1..80)
        ) {
            let span = Span {
                start: start * BLOCK,
                end: (start + blocks.len() as u64) * BLOCK,
            };
            let bytes: Vec<u8> = blocks
                .iter()
                .flat_map(|full| vec![u8::from(*full); BLOCK as usize])
                .collect();
            let mut at = span.start;
            for (run, is_zero) in runs(span, &bytes) {
                prop_assert_eq!(run.start, at);
                at = run.end;
                let zeros = bytes[place(run, span)].iter().all(|byte| *byte == 0);
                prop_assert!(!is_zero || zeros);
                prop_assert!(is_zero || !zeros);
            }
            prop_assert_eq!(at, span.end);
        }
    }
}
