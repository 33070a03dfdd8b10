//! A mirror and its witnesses, and what its engine says of them.

use crate::process::{Process, Role};
use crate::setup::{Nth, Setup};
use crate::wait::until_async;
use rustix::process::Signal;

/// Of a record in force with members out.
pub const FEWER: &str = "goes on without";
/// Of one with all of them.
pub const ALL: &str = "all members are in-sync";
/// Of a volume without a member that has the data.
pub const PAUSED: &str = "state=Paused";

/// Of an engine, by a drive.
pub const ADMITTED: &str = "engine admitted";

/// How often a process has said this.
pub fn said(process: &Process, words: &str) -> usize {
    process.log().matches(words).count()
}

/// How many records in force an engine has told.
pub fn records(engine: &Process) -> usize {
    said(engine, FEWER) + said(engine, ALL)
}

/// Waits until it has said it once more than so often.
pub async fn says_again(process: &Process, words: &str, before: usize) {
    let again = || (said(process, words) > before).then_some(());
    until_async(&format!("{} says: {words}", process.name()), again).await;
}

/// Its processes.
pub struct Mirrored {
    /// The members and the witness.
    pub drives: Vec<Process>,
    /// Of term 1.
    pub engine: Process,
    /// Their documents. Last: what processes said is there for as long as they are.
    pub setup: Setup,
}

impl Mirrored {
    /// Starts all of them.
    pub fn start() -> Self {
        Self::of(Setup::mirrored())
    }

    /// Starts those of a volume.
    pub fn of(setup: Setup) -> Self {
        Self {
            drives: setup.start_drives(Role::Supervised),
            engine: setup.start_engine(1, Role::Supervised),
            setup,
        }
    }

    /// A drive's pod is killed whole.
    pub fn kill(&mut self, nth: Nth) {
        self.drives[usize::from(nth.0)].kill();
    }

    /// A drive's pod is there again.
    pub fn start_again(&mut self, nth: Nth) {
        self.drives[usize::from(nth.0)] = self.setup.start_nth(nth, Role::Supervised);
    }

    /// A member's pod is killed whole; ends when the engine goes on without it.
    pub async fn lose(&mut self, nth: Nth) {
        let before = said(&self.engine, FEWER);
        self.kill(nth);
        says_again(&self.engine, FEWER, before).await;
    }

    /// Starts a member again; ends when all are in-sync.
    pub async fn bring_back(&mut self, nth: Nth) {
        let before = said(&self.engine, ALL);
        self.start_again(nth);
        says_again(&self.engine, ALL, before).await;
    }

    /// Members that the newest record in force leaves out, as far as the engine has told it.
    pub fn out(&self) -> Vec<Nth> {
        let log = self.engine.log();
        let is_record = |line: &&str| line.contains(FEWER) || line.contains(ALL);
        let newest = log.lines().rfind(is_record).unwrap_or_default().to_owned();
        let is_out = |nth: &Nth| newest.contains(&self.setup.slice(*nth).to_string());
        (0..self.setup.drives()).map(Nth).filter(is_out).collect()
    }

    /// Waits until the newest record in force leaves out these, and no others.
    pub async fn goes_on_without(&self, members: &[Nth]) {
        let what = format!("the engine goes on without {members:?}");
        until_async(&what, || (self.out() == members).then_some(())).await;
    }

    /// A member stops to move, its connections open; ends when the engine goes on without it.
    pub async fn silence(&self, nth: Nth) {
        let before = said(&self.engine, FEWER);
        self.drives[usize::from(nth.0)].signal_worker(Signal::STOP);
        says_again(&self.engine, FEWER, before).await;
    }

    /// It moves again; ends when all are in-sync.
    pub async fn wake(&self, nth: Nth) {
        let before = said(&self.engine, ALL);
        self.drives[usize::from(nth.0)].signal_worker(Signal::CONT);
        says_again(&self.engine, ALL, before).await;
    }
}
