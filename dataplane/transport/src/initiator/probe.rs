//! Whether a target still answers while something is asked of it.
//!
//! A target that is stopped or cut off keeps its connections, and only the keep-alive tells: that
//! is meant for idle associations and is slow. So while commands are under way and nothing was
//! heard for a while, a Keep Alive is sent out of turn. A target whose disk is slow answers it; one
//! that does not answer it either is lost. While nothing is asked, nothing is sent and nobody wakes.

use super::queue::Queue;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::time::{Duration, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_nvme::command::AdminCommand;

/// How long a target may be silent. Both bound a pause of who asks, never what is safe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Probe {
    /// So long while commands are under way, then it is asked whether it is there; found after twice
    /// that at most.
    pub quiet: Duration,
    /// So long after that.
    pub answer: Duration,
}

/// Parts of the time for an answer, each waited for by itself: of a time in which this process did
/// not run itself, one of them takes everything.
const PARTS: u32 = 4;

/// What the queues of an association tell of themselves.
#[derive(Default)]
pub(super) struct Asked {
    /// Commands under way.
    count: AtomicUsize,
    /// Nobody looks, so that whoever asks next has to say so.
    is_parked: AtomicBool,
    begun: Notify,
    /// Something came from the target since the last look.
    heard: AtomicBool,
    /// The association was ended because of its silence.
    fell_silent: AtomicBool,
}

/// A command under way.
pub(super) struct Asking<'a>(&'a Asked);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Asked {
    /// A command is sent.
    pub fn begin(&self) -> Asking<'_> {
        // Either this sees that nobody looks, or who is about to park sees the command.
        let first = self.count.fetch_add(1, Ordering::SeqCst) == 0;
        if first && self.is_parked.load(Ordering::SeqCst) {
            self.begun.notify_one();
        }
        Asking(self)
    }

    /// Something came.
    pub fn hear(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether that was why the association ended.
    pub fn fell_silent(&self) -> bool {
        self.fell_silent.load(Ordering::SeqCst)
    }

    fn has_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    async fn something(&self) {
        self.is_parked.store(true, Ordering::SeqCst);
        while self.count.load(Ordering::SeqCst) == 0 {
            self.begun.notified().await;
        }
        self.is_parked.store(false, Ordering::SeqCst);
    }

    /// Looks after an association until it ends, and ends it if the target falls silent.
    pub async fn watch(
        self: Arc<Self>,
        admin: Arc<Queue>,
        probe: Probe,
        closed: CancellationToken,
    ) {
        let keep_alive = || admin.leave(AdminCommand::KeepAlive.to_sqe());
        tokio::select! {
            () = closed.cancelled() => return,
            () = self.until_silent(probe, keep_alive) => {}
        }
        self.fell_silent.store(true, Ordering::SeqCst);
        tracing::warn!(
            ?probe,
            "the target does not answer while something is asked of it"
        );
        closed.cancel();
    }

    async fn until_silent<F: Future>(&self, probe: Probe, keep_alive: impl Fn() -> F) {
        loop {
            self.something().await;
            self.has_heard();
            loop {
                sleep(probe.quiet).await;
                if self.count.load(Ordering::SeqCst) == 0 {
                    break;
                }
                if !self.has_heard() && !self.answers(keep_alive(), probe.answer).await {
                    return;
                }
            }
        }
    }

    async fn answers(&self, answer: impl Future, within: Duration) -> bool {
        let mut answer = pin!(answer);
        for _ in 0..PARTS {
            match timeout(within / PARTS, answer.as_mut()).await {
                // Nothing: the association has ended otherwise, and who watches with it.
                Ok(_) => return true,
                // Its answer to something else will do.
                Err(_) if self.has_heard() => return true,
                Err(_) => {}
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use tokio::time::{Instant, advance};

    const PROBE: Probe = Probe {
        quiet: Duration::from_millis(400),
        answer: Duration::from_millis(1000),
    };
    const HOUR: Duration = Duration::from_secs(3600);

    /// How long it takes until the target counts as silent, within an hour.
    async fn silent_after<F: Future>(
        asked: &Asked,
        keep_alive: impl Fn() -> F,
    ) -> Option<Duration> {
        let began = Instant::now();
        let silent = timeout(HOUR, asked.until_silent(PROBE, keep_alive)).await;
        silent.ok().map(|()| began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn while_nothing_is_asked_nothing_is_sent_and_nobody_wakes() {
        let asked = Asked::default();
        drop(asked.begin());
        let sent = AtomicUsize::new(0);
        let keep_alive = || {
            sent.fetch_add(1, Ordering::SeqCst);
            ready(())
        };
        let mut looking = tokio_test::task::spawn(asked.until_silent(PROBE, keep_alive));
        assert!(looking.poll().is_pending());
        advance(HOUR).await;
        assert!(!looking.is_woken());
        let asking = asked.begin();
        assert!(looking.is_woken() && looking.poll().is_pending());
        drop(asking);
        advance(PROBE.quiet).await;
        assert!(looking.is_woken() && looking.poll().is_pending());
        advance(HOUR).await;
        assert!(!looking.is_woken(), "parked again");
        assert_eq!(sent.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_answers_nothing_is_found_in_less_than_two_seconds() {
        let asked = Asked::default();
        let _asking = asked.begin();
        let found = silent_after(&asked, pending::<()>).await.unwrap();
        assert!(found < Duration::from_secs(2), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_answers_the_keep_alive_alone_is_waited_for() {
        let asked = Asked::default();
        let _asking = asked.begin();
        let late = || sleep(PROBE.answer - Duration::from_millis(1));
        assert_eq!(silent_after(&asked, late).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_answers_something_else_is_not_asked_or_waited_for() {
        let asked = Asked::default();
        let _asking = asked.begin();
        let answers = async {
            loop {
                sleep(PROBE.answer / 2).await;
                asked.hear();
            }
        };
        tokio::select! {
            silent = silent_after(&asked, pending::<()>) => assert_eq!(silent, None),
            () = answers => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_time_in_which_this_process_was_stopped_is_no_silence_of_the_target() {
        let asked = Asked::default();
        let _asking = asked.begin();
        let mut looking = tokio_test::task::spawn(asked.until_silent(PROBE, pending::<()>));
        assert!(looking.poll().is_pending());
        advance(PROBE.quiet).await;
        assert!(looking.poll().is_pending(), "asks");
        // Stopped, and what came meanwhile is read a little after it goes on.
        advance(HOUR).await;
        assert!(looking.poll().is_pending());
        asked.hear();
        advance(PROBE.answer / PARTS).await;
        assert!(looking.poll().is_pending());
        advance(PROBE.quiet).await;
        assert!(looking.poll().is_pending(), "asks once more, and waits");
    }
}
