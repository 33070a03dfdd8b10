//! When a mirror goes idle: the last changes were not followed by any that could carry the
//! checkpoint, so somebody has to say it (design section 5, Hot regions).

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::sleep;

/// See the module. Costs a change two looks at memory; nothing wakes up while nothing changes.
#[derive(Default)]
pub struct Idle {
    changes: AtomicU64,
    /// Changes of which the members were told that they are equal.
    told: AtomicU64,
    is_watched: AtomicBool,
    stirred: Notify,
}

impl Idle {
    /// A change has ended.
    pub fn stir(&self) {
        self.changes.fetch_add(1, SeqCst);
        if self.is_watched.load(SeqCst) {
            self.stirred.notify_one();
        }
    }

    /// Changes so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Ends when there were changes and for so long none; then it counts as told.
    pub async fn after(&self, quiet: Duration) {
        self.is_watched.store(true, SeqCst);
        loop {
            let seen = self.changes.load(SeqCst);
            if seen == self.told.load(SeqCst) {
                self.stirred.notified().await;
                continue;
            }
            self.is_watched.store(false, SeqCst);
            sleep(quiet).await;
            if self.changes.load(SeqCst) == seen {
                self.told.store(seen, SeqCst);
                return;
            }
            self.is_watched.store(true, SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, timeout};

    const QUIET: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_told_once_after_the_last_change_and_never_without_one() {
        let idle = Idle::default();
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, idle.after(QUIET)).await.is_err());
        let began = Instant::now();
        let changing = async {
            for _ in 0..10 {
                idle.stir();
                sleep(QUIET / 2).await;
            }
        };
        tokio::join!(idle.after(QUIET), changing);
        assert!(began.elapsed() >= QUIET * 5, "{:?}", began.elapsed());
        assert!(timeout(hour, idle.after(QUIET)).await.is_err());
    }
}
