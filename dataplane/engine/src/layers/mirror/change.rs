//! Writes, zeroes and flushes: to every member, again under the next composition if one failed.

use super::Inner;
use super::asked::{Answered, ask_all};
use super::composition::Peer;
use super::gate::Verdict;
use super::ranges::Access;
use super::report::{Failure, Role};
use super::span::Span;
use bytes::Bytes;
use std::future::pending;
use std::sync::Arc;
use weft_block::{Answer, DiskError, ErrorKind, Stamp, Write};
use weft_spec::ids::SliceUid;

/// A change of a range. All members get it from this one buffer.
#[derive(Clone, Debug)]
pub enum Change {
    /// These bytes.
    Write(Bytes, Write),
    /// Zeros. A discard is one too: a member may keep discarded bytes, another not, and then they
    /// differ (`replication.md` rule 22).
    Zeroes,
}

impl Change {
    pub fn send<'a>(&self, peer: &'a Peer, span: Span, stamp: Stamp) -> Answer<'a> {
        let stamp = match peer.role {
            Role::InSync => stamp,
            // What a checkpoint says does not hold of a member that is being rebuilt.
            Role::Target => Stamp {
                checkpoint: 0,
                ..stamp
            },
        };
        match self {
            // What a target has is durable by the flush before it becomes in-sync.
            Self::Write(data, mode) => {
                let mode = match peer.role {
                    Role::InSync => *mode,
                    Role::Target => Write::Cached,
                };
                let data = data.clone();
                peer.disk.write_stamped(span.start, data, mode, stamp)
            }
            Self::Zeroes => peer
                .disk
                .write_zeroes_stamped(span.start, span.length(), stamp),
        }
    }
}

impl Inner {
    /// A change that waits for its range.
    pub(super) async fn change(self: Arc<Self>, change: Change, span: Span) {
        let _range = self.ranges.lock(span, Access::Exclusive).await;
        self.apply(&change, span).await;
    }

    /// A change of a range that the caller holds. Ends when all members have it: however many
    /// compositions that takes, the change keeps its number, so that no checkpoint passes it.
    pub(super) async fn apply(&self, change: &Change, span: Span) {
        let mut number = None;
        loop {
            let (entry, begun) = self.gate.enter(number).await;
            number = Some(begun.number);
            let stamp = Stamp {
                config: begun.config.0,
                number: begun.number.0,
                checkpoint: self.gate.checkpoint().0,
            };
            let asked = entry.current.peers.iter();
            let asked = asked.filter(|peer| peer.role == Role::InSync || !peer.has_failed());
            let answers = ask_all(&self.gate, asked, |peer| change.send(peer, span, stamp)).await;
            match entry.judge(&answers) {
                Verdict::Done => break,
                Verdict::Again => {}
                Verdict::Full => {
                    drop(entry);
                    self.until_room().await;
                }
                Verdict::Fenced => pending().await,
            }
        }
        if matches!(change, Change::Zeroes) {
            self.room();
        }
        self.idle.stir();
    }

    /// Waits until somebody frees something, or there is another composition.
    async fn until_room(&self) {
        let turned = self.gate.turned();
        let mut room = self.room.subscribe();
        self.gate.count_full(1);
        tokio::select! {
            biased;
            // The sender lives as long as this.
            _ = room.changed() => {}
            () = turned => {}
        }
        self.gate.count_full(-1);
    }

    /// Room may have been made: changes that nobody had room for are tried again.
    pub(super) fn room(&self) {
        if self.room.receiver_count() > 0 {
            self.room
                .send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Ends when every in-sync member has made durable what was acknowledged before.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::MediaWrite`] if the medium of a member has failed to, and the membership keeps
    /// that member all the same: a failed flush is never made a success by another
    /// (`replication.md` rule 10).
    pub(super) async fn flush(self: Arc<Self>) -> Result<(), DiskError> {
        let mut mark = None;
        let mut done: Vec<SliceUid> = vec![];
        let mut failed: Vec<SliceUid> = vec![];
        loop {
            let entry = self.gate.enter_beside().await;
            let mark = *mark.get_or_insert_with(|| self.gate.complete());
            let in_sync = entry.current.in_sync();
            if let Some(kept) = in_sync.iter().find(|peer| failed.contains(&peer.slice)) {
                return Err(DiskError::new(
                    ErrorKind::MediaWrite,
                    format!("slice {} has failed to make writes durable", kept.slice),
                ));
            }
            let stamp = Stamp {
                checkpoint: self.gate.checkpoint().0,
                ..Stamp::default()
            };
            let left = in_sync.iter().filter(|peer| !done.contains(&peer.slice));
            let answers = ask_all(&self.gate, left, |peer| peer.disk.flush_stamped(stamp)).await;
            match self.gate.judge(&answers) {
                Verdict::Done => {
                    self.gate.flushed(mark);
                    return Ok(());
                }
                Verdict::Again => sort(&answers, &mut done, &mut failed),
                // A flush needs no room: whoever says so is broken, and all of them are.
                Verdict::Full => {
                    for (peer, answer) in &answers {
                        if let Err(error) = answer {
                            self.gate.fail(peer, error);
                        }
                    }
                }
                Verdict::Fenced => pending().await,
            }
        }
    }
}

/// Remembers who has flushed and whose medium has failed to. Of a member whose path was lost
/// nothing is known: it is asked again if it is still in-sync.
fn sort(answers: &[Answered], done: &mut Vec<SliceUid>, failed: &mut Vec<SliceUid>) {
    for (peer, answer) in answers {
        match answer {
            Ok(()) if !peer.has_failed() => done.push(peer.slice),
            Ok(()) => {}
            Err(error) => {
                let of_path = Failure::of(error).is_some_and(Failure::is_of_path);
                if !of_path {
                    failed.push(peer.slice);
                }
            }
        }
    }
}
