//! A host whose every answer the oracle judges, and the longest time that it had none.

use super::Seen;
use crate::host::attach;
use crate::setup::Setup;
use crate::wait::{until_async, within};
use anyhow::{Result, ensure};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use weft_transport::initiator::ReconnectingDisk;
use weft_verify::block::Writer;
use weft_verify::history::Beginning;
use weft_verify::{History, Report, VolumeMark, Workload};

/// Blocks in use: few, so that each is written and read again and again.
const BLOCKS: u64 = 2048;

/// See the module.
pub struct Load {
    /// The host's disk.
    pub disk: Arc<ReconnectingDisk>,
    history: Arc<Mutex<History>>,
    workload: Workload,
    meter: Arc<Meter>,
    requests: JoinHandle<Report>,
}

#[derive(Default)]
struct Meter {
    answered: AtomicU64,
    /// Microseconds.
    longest: AtomicU64,
    enough: AtomicBool,
}

impl Load {
    /// Attaches to the engine of a term and begins.
    pub async fn start(setup: &Setup, term: u64) -> Self {
        Self::over(setup, term, BLOCKS).await
    }

    /// The same with so many blocks in use.
    pub async fn over(setup: &Setup, term: u64, blocks: u64) -> Self {
        let history = History::new(VolumeMark(setup.volume.0), Beginning::Zeros);
        let workload = Workload::new(1, blocks, u64::MAX);
        Self::judged_by(Arc::new(Mutex::new(history)), setup, term, workload).await
    }

    /// Another host that uses the same blocks at the engine of another term, judged by the same
    /// history.
    pub async fn beside(&self, setup: &Setup, term: u64) -> Self {
        let workload = Workload {
            seed: 2,
            writer: Writer(2),
            ..self.workload
        };
        Self::judged_by(self.history.clone(), setup, term, workload).await
    }

    async fn judged_by(
        history: Arc<Mutex<History>>,
        setup: &Setup,
        term: u64,
        workload: Workload,
    ) -> Self {
        let disk = attach(setup.host_options(term)).await;
        let meter = Arc::new(Meter::default());
        let requests = {
            let (disk, history, meter) = (disk.clone(), history.clone(), meter.clone());
            tokio::spawn(async move {
                let mut last = Instant::now();
                let answered = |report: &Report| {
                    let gap = last.elapsed();
                    last = Instant::now();
                    meter.note(report.done, gap)
                };
                workload.run(&*disk, &history, answered).await
            })
        };
        Self {
            disk,
            history,
            workload,
            meter,
            requests,
        }
    }

    /// Requests answered so far.
    pub fn answered(&self) -> u64 {
        self.meter.answered.load(Ordering::Relaxed)
    }

    /// Requests under way at once, at most.
    pub fn depth(&self) -> u64 {
        self.workload.depth.try_into().unwrap_or(u64::MAX)
    }

    /// Waits for so many more answers.
    pub async fn progress(&self, requests: u64) {
        let goal = self.answered() + requests;
        until_async("answers", || (self.answered() >= goal).then_some(())).await;
    }

    /// Ends the load and reads everything once more. An error is a request that failed, or what
    /// the oracle has found.
    pub async fn finish(self, what: &str) -> Result<Seen> {
        self.meter.enough.store(true, Ordering::Relaxed);
        let report = within("the end of the load", self.requests).await?;
        let look = self.workload.look(&*self.disk, &self.history);
        let look = within("a look at everything", look).await;
        self.disk.stop().await;
        for (when, report) in [("under load", &report), ("afterwards", &look)] {
            ensure!(
                report.violations.is_empty(),
                "{when}: {:?}",
                report.violations
            );
            ensure!(
                report.failed == 0,
                "{when}: {} requests failed",
                report.failed
            );
        }
        Ok(Seen {
            what: format!("{what}; {} requests, none failed, none wrong", report.done),
            longest_gap: Duration::from_micros(self.meter.longest.load(Ordering::Relaxed)),
        })
    }
}

impl Meter {
    /// Whether that is enough.
    fn note(&self, answered: u64, gap: Duration) -> bool {
        self.answered.store(answered, Ordering::Relaxed);
        let gap = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX);
        self.longest.fetch_max(gap, Ordering::Relaxed);
        self.enough.load(Ordering::Relaxed)
    }
}
