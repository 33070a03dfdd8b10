//! Adaptive polling: a process that is busy does not let its thread sleep.
//!
//! On a virtual machine the wake-up of a sleeping thread is most of a round trip. After
//! [`set`], bytes that come on any connection keep the thread from sleeping for a bounded time; when
//! nothing comes for so long it sleeps as ever. Without it, the default, nothing here runs: a
//! process is event-driven, and silent when idle.
//!
//! A connection on which bytes have just come asks its own socket again and again, which is the
//! shortest way to the next ones. The runtime asks for all others in between. While one connection
//! waits all others are served, also those to the next hop.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// Connections that ask their own sockets at a time. With more, one question for all is cheaper.
const ASKING: usize = 4;

/// How often all connections together ask before others may run: about a microsecond.
const TRIES: u32 = 8;

static SPINNER: LazyLock<Spinner> = LazyLock::new(|| Spinner {
    since: Instant::now(),
    patience: AtomicU64::new(0),
    last: AtomicU64::new(0),
    running: AtomicBool::new(false),
    asleep: AtomicBool::new(false),
    asking: AtomicUsize::new(0),
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
    /// Connections that ask their own sockets.
    asking: AtomicUsize,
    wake: Notify,
}

/// From now on this process spins for up to `patience` after bytes came; with zero it never does.
/// For a process with one runtime of one thread, and to be called on it.
pub fn set(patience: Duration) {
    if !patience.is_zero() {
        tracing::info!(
            ?patience,
            "adaptive polling: a busy process stays awake for so long"
        );
    }
    SPINNER.patience.store(nanos(patience), Ordering::Relaxed);
    SPINNER.wake.notify_one();
    if !patience.is_zero() && !SPINNER.running.swap(true, Ordering::Relaxed) {
        tokio::spawn(SPINNER.run());
    }
}

/// One connection: when bytes came on it last.
#[derive(Debug, Default)]
pub(crate) struct Busy {
    /// Nanoseconds after the spinner's `since`.
    last: u64,
    asking: bool,
    /// It has come back since.
    asked: bool,
}

impl Busy {
    /// Bytes came.
    pub fn heard(&mut self) {
        let spinner = &*SPINNER;
        if spinner.patience.load(Ordering::Relaxed) == 0 {
            return;
        }
        self.asked = false;
        self.last = nanos(spinner.since.elapsed());
        spinner.last.store(self.last, Ordering::Relaxed);
        if !self.asking {
            self.asking = spinner.asking.fetch_add(1, Ordering::Relaxed) < ASKING;
            if !self.asking {
                spinner.asking.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if spinner.asleep.swap(false, Ordering::Relaxed) {
            spinner.wake.notify_one();
        }
    }

    /// How often the connection should ask its socket now, and come back then rather than wait to
    /// be told: first not at all, so that those whom the last bytes were for come first.
    pub fn ask(&mut self) -> Option<u32> {
        if !self.asking {
            return None;
        }
        let spinner = &*SPINNER;
        let patience = spinner.patience.load(Ordering::Relaxed);
        let waited = nanos(spinner.since.elapsed()).saturating_sub(self.last);
        if waited >= patience {
            self.rest();
            return None;
        }
        if !std::mem::replace(&mut self.asked, true) {
            return Some(0);
        }
        let asking = u32::try_from(spinner.asking.load(Ordering::Relaxed)).unwrap_or(1);
        Some(TRIES / asking.clamp(1, TRIES))
    }

    fn rest(&mut self) {
        if std::mem::take(&mut self.asking) {
            SPINNER.asking.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.rest();
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
