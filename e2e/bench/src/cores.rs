//! Who runs where, and for how long it ran.

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::time::Duration;

/// Where the measured target runs.
pub const TARGET: usize = 0;
/// Where the load comes from.
pub const LOAD: usize = 1;

/// Binds the calling thread, and what it starts from now on, to one core.
pub fn pin(core: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("core {core}: the bench needs two cores"))
}

/// Starts something on the target's core.
pub fn on_target<T>(start: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    pin(TARGET)?;
    let started = start();
    pin(LOAD)?;
    started
}

/// Time that all threads of a process have run.
pub fn run_time(pid: Pid) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero()));
    let nanos = threads
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|thread| {
            // sched(7), schedstat: nanoseconds on a core first. A thread that has just ended has none.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            text.split_whitespace().next()?.parse::<u64>().ok()
        });
    Duration::from_nanos(nanos.sum())
}
