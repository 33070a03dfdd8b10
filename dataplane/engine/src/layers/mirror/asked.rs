//! One request to several members at once.

use super::composition::Peer;
use super::gate::Gate;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use weft_block::{Answer, DiskError, ErrorKind};

/// A member and what it answered.
pub type Answered = (Arc<Peer>, Result<(), DiskError>);

/// What a member gets that is not waited for any more.
pub fn given_up() -> DiskError {
    DiskError::new(ErrorKind::Gone, "not waited for any more")
}

enum Asking<'a> {
    Waiting(Answer<'a>),
    Ended(Result<(), DiskError>),
}

/// Sends to each of these members and waits until every one has answered or is given up. A failure
/// is noted as it comes, not when the slowest has answered: a fence must stop what others are about
/// to acknowledge. Only what a lack of room means depends on the others ([`Gate::judge`]).
pub async fn ask_all<'a>(
    gate: &Gate,
    peers: impl Iterator<Item = &'a Arc<Peer>>,
    send: impl Fn(&'a Peer) -> Answer<'a>,
) -> Vec<Answered> {
    let mut turned = pin!(gate.turned());
    let mut asked: Vec<_> = peers
        .map(|peer| (peer, Asking::Waiting(send(peer))))
        .collect();
    poll_fn(|cx| {
        loop {
            let mut waiting = false;
            for (peer, asking) in &mut asked {
                waiting |= poll_one(gate, peer, asking, cx).is_pending();
            }
            if !waiting {
                return Poll::Ready(());
            }
            if turned.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            turned.set(gate.turned());
        }
    })
    .await;
    let ended = asked.into_iter().map(|(peer, asking)| match asking {
        Asking::Ended(done) => (peer.clone(), done),
        Asking::Waiting(_) => (peer.clone(), Err(given_up())),
    });
    ended.collect()
}

fn poll_one(gate: &Gate, peer: &Peer, asking: &mut Asking<'_>, cx: &mut Context<'_>) -> Poll<()> {
    let Asking::Waiting(answer) = asking else {
        return Poll::Ready(());
    };
    let done = match answer.as_mut().poll(cx) {
        Poll::Ready(done) => done,
        Poll::Pending if peer.is_given_up() => Err(given_up()),
        Poll::Pending => return Poll::Pending,
    };
    if let Err(error) = &done
        && error.kind() != ErrorKind::NoSpace
    {
        gate.fail(peer, error);
    }
    *asking = Asking::Ended(done);
    Poll::Ready(())
}
