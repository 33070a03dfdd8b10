//! A pod that writes without end: sixteen files over and over, each synced and summed. It counts files
//! and errors, and tells the longest time between two of them.

use crate::kubectl::wait;
use crate::pods;
use crate::progress::say;
use anyhow::{Result, ensure};
use std::time::Duration;

/// A round beyond this many others has surely seen what was done between.
const ROUNDS: u64 = 20;
const WITHIN: Duration = Duration::from_secs(120);

/// `/proc/uptime` in hundredths of a second is the one clock that the shell has at that grain.
const SCRIPT: &str = "rm -f /tmp/stop /tmp/stopped; mkfifo /tmp/stopped; (i=0; e=0; g=0; l=0; \
    while [ ! -e /tmp/stop ]; do i=$((i+1)); f=/data/f$((i%16)); \
    dd if=/dev/urandom of=$f bs=64k count=4 conv=fsync 2>/dev/null || e=$((e+1)); \
    sha256sum $f > $f.sum || e=$((e+1)); read n x < /proc/uptime; n=${n%.*}${n#*.}; \
    [ -e /tmp/reset ] && rm /tmp/reset && g=0; \
    [ $l -gt 0 ] && [ $((n-l)) -gt $g ] && g=$((n-l)); l=$n; \
    echo $i $e $g > /tmp/progress.new; mv /tmp/progress.new /tmp/progress; done; \
    echo > /tmp/stopped) >/dev/null 2>&1 &";

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Files written.
    pub rounds: u64,
    /// Files that could not be written or read.
    pub errors: u64,
    /// Between two files.
    pub longest_gap: Duration,
}

/// The writer in one pod.
pub struct Writer {
    pod: String,
}

impl Writer {
    /// Begins in a pod with `/data`.
    pub fn start(pod: &str) -> Result<Self> {
        pods::shell(pod, SCRIPT)?;
        let writer = Self {
            pod: pod.to_owned(),
        };
        writer.goes_on(Progress::default())?;
        Ok(writer)
    }

    /// How far it is; nothing before the first file.
    pub fn progress(&self) -> Result<Progress> {
        let text = pods::shell(&self.pod, "cat /tmp/progress 2>/dev/null; true")?;
        let mut numbers = text.split_whitespace().map(str::parse::<u64>);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        Ok(Progress {
            rounds: next(),
            errors: next(),
            longest_gap: Duration::from_millis(next() * 10),
        })
    }

    /// Counts the longest gap from now on.
    pub fn reset_gap(&self) -> Result<()> {
        let file = "touch /tmp/reset; while [ -e /tmp/reset ]; do sleep 0.05; done";
        pods::shell(&self.pod, file).map(drop)
    }

    /// Waits until it has written well beyond `before`.
    pub fn goes_on(&self, before: Progress) -> Result<()> {
        wait(&format!("pod {} writes", self.pod), WITHIN, || {
            let now = self.progress()?;
            Ok(if now.rounds > before.rounds + ROUNDS {
                Ok(())
            } else {
                Err(format!("{before:?} {now:?}"))
            })
        })
    }

    /// Ends it, tells how far it came, and checks that nothing failed and every sum is right.
    pub fn finish(self) -> Result<()> {
        pods::shell(&self.pod, "touch /tmp/stop; timeout 60 cat /tmp/stopped")?;
        let done = self.progress()?;
        say(&format!(
            "    {} files written, {} errors, longest gap {:.1} s",
            done.rounds,
            done.errors,
            done.longest_gap.as_secs_f64()
        ));
        ensure!(done.rounds > 0, "nothing was written");
        ensure!(done.errors == 0, "{} I/O errors", done.errors);
        pods::shell(
            &self.pod,
            "for s in /data/*.sum; do sha256sum -c -s $s || exit 1; done",
        )
        .map(drop)
    }
}
