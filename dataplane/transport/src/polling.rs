//! Adaptive polling: a process that is busy does not let its thread sleep.
//!
//! On a virtual machine the wake-up of a sleeping thread is most of a round trip. After
//! [`set`], bytes that come on any connection keep the runtime's thread asking the kernel for
//! more, without sleeping, for a bounded time; when nothing comes for so long it sleeps as ever.
//! Without it, the default, nothing here runs: a process is event-driven, and silent when idle.
//!
//! It is the runtime that is kept awake, not a connection: while one waits, all others are served,
//! also those to the next hop.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

static SPINNER: LazyLock<Spinner> = LazyLock::new(|| Spinner {
    since: Instant::now(),
    patience: AtomicU64::new(0),
    last: AtomicU64::new(0),
    running: AtomicBool::new(false),
    asleep: AtomicBool::new(false),
    wake: Notify::new(),
});

/// Orderings are relaxed: nothing but time is told through these, and all of it on one thread.
struct Spinner {
    since: Instant,
    /// Nanoseconds; 0: never spins.
    patience: AtomicU64,
    /// Nanoseconds after `since` at which something came last.
    last: AtomicU64,
    /// There is a task that spins.
    running: AtomicBool,
    asleep: AtomicBool,
    wake: Notify,
}

/// From now on this process spins for up to `patience` after bytes came; with zero it never does.
/// For a process with one runtime of one thread, and to be called on it.
pub fn set(patience: Duration) {
    SPINNER.patience.store(nanos(patience), Ordering::Relaxed);
    SPINNER.wake.notify_one();
    if !patience.is_zero() && !SPINNER.running.swap(true, Ordering::Relaxed) {
        tokio::spawn(SPINNER.run());
    }
}

/// Bytes came.
pub(crate) fn busy() {
    let spinner = &*SPINNER;
    if spinner.patience.load(Ordering::Relaxed) == 0 {
        return;
    }
    spinner
        .last
        .store(nanos(spinner.since.elapsed()), Ordering::Relaxed);
    if spinner.asleep.swap(false, Ordering::Relaxed) {
        spinner.wake.notify_one();
    }
}

impl Spinner {
    async fn run(&self) {
        loop {
            let patience = self.patience.load(Ordering::Relaxed);
            let now = nanos(self.since.elapsed());
            let idle = now.saturating_sub(self.last.load(Ordering::Relaxed));
            if patience == 0 {
                self.running.store(false, Ordering::Relaxed);
                return;
            }
            if idle < patience {
                // The runtime asks the kernel, without sleeping, before it comes back here.
                tokio::task::yield_now().await;
            } else {
                self.asleep.store(true, Ordering::Relaxed);
                self.wake.notified().await;
            }
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
