//! What a process costs, from /proc.

use anyhow::Context;
use rustix::process::Pid;
use std::collections::BTreeMap;
use std::ffi::OsString;

/// Memory now, and context switches since the process began.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Resident, KiB.
    pub rss: u64,
    /// Resident, shared pages counted in parts, KiB.
    pub pss: u64,
    /// By thread, since a thread that ends takes its numbers with it.
    switches: BTreeMap<OsString, Switches>,
}

/// Context switches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Switches {
    /// Times that a thread went to sleep by itself.
    pub voluntary: u64,
    /// Times that a thread was put aside.
    pub involuntary: u64,
}

impl Usage {
    /// Heads the table of [`Usage::row`].
    pub const HEADER: &str = "process                      state                     RSS KiB  PSS KiB  voluntary/s  involuntary/s";

    /// Of all threads of a process.
    pub fn of(pid: Pid) -> anyhow::Result<Self> {
        let process = format!("/proc/{}", pid.as_raw_nonzero());
        let mut switches = BTreeMap::new();
        for thread in std::fs::read_dir(format!("{process}/task"))? {
            let thread = thread?;
            let status = thread.path().join("status").display().to_string();
            let of_thread = Switches {
                voluntary: number(&status, "voluntary_ctxt_switches:")?,
                involuntary: number(&status, "nonvoluntary_ctxt_switches:")?,
            };
            switches.insert(thread.file_name(), of_thread);
        }
        Ok(Self {
            rss: number(&format!("{process}/status"), "VmRSS:")?,
            pss: number(&format!("{process}/smaps_rollup"), "Pss:")?,
            switches,
        })
    }

    /// Switches of the threads that live now, since `before`.
    pub fn since(&self, before: &Self) -> Switches {
        let mut since = Switches::default();
        for (thread, now) in &self.switches {
            let then = before.switches.get(thread).copied().unwrap_or_default();
            since.voluntary += now.voluntary.saturating_sub(then.voluntary);
            since.involuntary += now.involuntary.saturating_sub(then.involuntary);
        }
        since
    }

    /// A line: memory now, switches per second since `before`.
    pub fn row(&self, name: &str, state: &str, before: &Self, seconds: u64) -> String {
        let rate = |switches: u64| switches as f64 / seconds.max(1) as f64;
        let since = self.since(before);
        format!(
            "{name:<28} {state:<24} {:>8} {:>8} {:>12.2} {:>14.2}",
            self.rss,
            self.pss,
            rate(since.voluntary),
            rate(since.involuntary),
        )
    }
}

/// Bytes that a process has had written to media so far.
pub fn written(pid: Pid) -> anyhow::Result<u64> {
    number(
        &format!("/proc/{}/io", pid.as_raw_nonzero()),
        "write_bytes:",
    )
}

fn number(path: &str, key: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .and_then(|word| word.parse().ok());
    number.with_context(|| format!("{path} has no {key}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_slept() {
        let before = Usage::of(rustix::process::getpid()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1));
        let after = Usage::of(rustix::process::getpid()).unwrap();
        assert!(after.rss > 100 && after.pss > 0);
        assert!(after.since(&before).voluntary > 0);
        assert!(after.row("x", "y", &before, 1).starts_with("x "));
    }
}
