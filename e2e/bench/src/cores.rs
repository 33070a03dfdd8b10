//! Who runs where, and for how long it ran.

use anyhow::Context;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use std::collections::HashMap;
use std::ffi::OsString;
use std::time::Duration;

/// Where the measured target runs.
pub const TARGET: usize = 0;
/// Where the load comes from.
pub const LOAD: usize = 1;
/// Before everything that was not asked to be less nice.
const NICE: i32 = -15;

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

/// Keeps this program and what it starts before whatever else runs on this machine.
pub struct First {
    /// Of the session, before.
    nice: Option<i32>,
}

/// Where the session's share is told (sched(7), autogroup): a nice value counts only inside of it.
const SESSION: &str = "/proc/self/autogroup";

/// Puts whatever else runs on this machine behind this program and what it starts, as long as the
/// answer lives. Where that is not allowed, the figures spread more.
pub fn come_first() -> First {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        eprintln!("other work on this machine disturbs the figures: nice {NICE}: {error}");
    }
    let said = std::fs::read_to_string(SESSION).unwrap_or_default();
    let before = said.rsplit(' ').next().and_then(|n| n.trim().parse().ok());
    let set = std::fs::write(SESSION, NICE.to_string());
    First {
        nice: before.filter(|_| set.is_ok()),
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if let Some(nice) = self.nice {
            // What is left is a session that comes first.
            let _ = std::fs::write(SESSION, nice.to_string());
        }
    }
}

/// Time that all threads of a process have run, also those that have ended, in units of 10 ms.
pub fn whole_run_time(pid: Pid) -> Duration {
    let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // proc(5): the name may hold spaces; utime and stime are the 12th and 13th word after it.
    let words = text.rsplit(") ").next().unwrap_or_default();
    let ticks = words.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|word| word.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// How long each thread of a process has run, at one moment.
pub struct Ran {
    pid: Pid,
    /// Nanoseconds, by the thread's number.
    threads: HashMap<OsString, u64>,
}

impl Ran {
    /// Now.
    pub fn now(pid: Pid) -> Self {
        let path = format!("/proc/{}/task", pid.as_raw_nonzero());
        let threads = std::fs::read_dir(path).into_iter().flatten().flatten();
        let threads = threads.filter_map(|thread| {
            // sched(7), schedstat: nanoseconds on a core first. A thread that has just ended has none.
            let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
            Some((
                thread.file_name(),
                text.split_whitespace().next()?.parse().ok()?,
            ))
        });
        Self {
            pid,
            threads: threads.collect(),
        }
    }

    /// How long they have run since. What threads ran that have ended in between is not known.
    pub fn since(&self) -> Duration {
        let now = Self::now(self.pid).threads;
        let ran = now.iter().map(|(thread, nanos)| {
            let before = self.threads.get(thread).copied().unwrap_or(0);
            nanos.saturating_sub(before)
        });
        Duration::from_nanos(ran.sum())
    }
}
