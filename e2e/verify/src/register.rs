//! One block: which of its writes may be what is there.
//!
//! Times are numbers of events of the history. A version's `known` is the first time at which it
//! had certainly taken effect: its acknowledgement, or the end of a read that returned it. What
//! was known before another began came before that other.

use crate::block::{Sequence, Writer};

/// Number of an event.
pub type Time = u64;

/// What a write put there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value {
    /// Nothing was ever written.
    Initial,
    /// Zeros, by this write or discard.
    Zeros(Sequence),
    /// A block.
    Data(Writer, Sequence),
}

#[derive(Clone, Copy, Debug)]
struct Version {
    value: Value,
    began: Time,
    known: Option<Time>,
    acknowledged: Option<Time>,
    durable: bool,
    /// A read that began after this may not return it.
    dead: Option<Time>,
    /// Not even a power cut brings it back.
    gone: bool,
    read: bool,
}

/// Why a version may not be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Superseded {
    /// By this.
    pub by: Value,
    /// Which was acknowledged; else it was read.
    pub acknowledged: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Register {
    versions: Vec<Version>,
}

impl Register {
    /// Nothing was written.
    pub fn new() -> Self {
        Self {
            versions: vec![Version {
                value: Value::Initial,
                began: 0,
                known: Some(0),
                acknowledged: None,
                durable: true,
                dead: None,
                gone: false,
                read: false,
            }],
        }
    }

    /// A write begins.
    pub fn begin(&mut self, value: Value, now: Time) {
        self.versions.push(Version {
            value,
            began: now,
            known: None,
            acknowledged: None,
            durable: false,
            dead: None,
            gone: false,
            read: false,
        });
    }

    /// A write is acknowledged: what was there before it began is gone.
    pub fn acknowledge(&mut self, value: Value, durable: bool, now: Time) {
        let Some(version) = self.find(value) else {
            return;
        };
        version.known.get_or_insert(now);
        version.acknowledged = Some(now);
        version.durable |= durable;
        let began = version.began;
        self.kill(value, began, now);
        self.bury();
    }

    /// A write has ended without having been done for certain, and will not be done later.
    pub fn settle(&mut self, value: Value, now: Time) {
        if let Some(version) = self.find(value) {
            version.known.get_or_insert(now);
        }
    }

    /// A flush that began at `began` is acknowledged.
    pub fn make_durable(&mut self, began: Time) {
        for version in &mut self.versions {
            version.durable |= version.acknowledged.is_some_and(|at| at < began);
        }
        self.bury();
    }

    /// What came before something durable is gone for good.
    fn bury(&mut self) {
        let durable = self.versions.iter().filter(|version| version.durable);
        let horizon = durable.map(|version| version.began).max().unwrap_or(0);
        for version in &mut self.versions {
            version.gone |= version.dead.is_some() && version.known.is_some_and(|at| at < horizon);
        }
    }

    /// Whether something acknowledged may go with the power.
    pub fn is_dirty(&self) -> bool {
        let mut versions = self.versions.iter();
        versions.any(|version| version.acknowledged.is_some() && !version.durable)
    }

    /// The power was cut: what was not durable may be there or not, and nothing is under way.
    pub fn lose_power(&mut self, now: Time) {
        for version in self.versions.iter_mut().filter(|version| !version.gone) {
            version.dead = None;
            version.known = Some(now);
            version.acknowledged = version.acknowledged.filter(|_| version.durable);
        }
    }

    /// Forgets what no read that began at `oldest` or later may return, nor one after a power cut.
    pub fn forget(&mut self, oldest: Time) {
        let over = |version: &Version| version.gone && version.dead.is_some_and(|at| at < oldest);
        self.versions.retain(|version| !over(version));
    }

    /// A read that lasted from `began` to `now` found one of these values; the first that may be
    /// there is taken as what was found. `Err` if none may.
    pub fn read(
        &mut self,
        accepts: impl Fn(Value) -> bool,
        began: Time,
        now: Time,
    ) -> Result<(), Superseded> {
        let fits = |version: &&Version| {
            accepts(version.value) && version.dead.is_none_or(|dead| dead >= began)
        };
        let mut found = self
            .versions
            .iter()
            .filter(fits)
            .map(|version| version.value);
        let Some(value) = found.next() else {
            return Err(self.superseder());
        };
        // Two that look alike: which of them it was stays open.
        if found.next().is_some() {
            return Ok(());
        }
        if let Some(version) = self.find(value) {
            version.known.get_or_insert(now);
            version.read = true;
        }
        self.kill(value, began, now);
        Ok(())
    }

    /// What was known before `began` came before `value`, which is in effect at `now`.
    fn kill(&mut self, value: Value, began: Time, now: Time) {
        for version in &mut self.versions {
            let before = version.known.is_some_and(|known| known < began);
            if before && version.value != value {
                version.dead.get_or_insert(now);
            }
        }
    }

    /// What must be there instead.
    fn superseder(&self) -> Superseded {
        let alive = self
            .versions
            .iter()
            .filter(|version| version.dead.is_none());
        let newest = alive.max_by_key(|version| (version.acknowledged, version.read));
        Superseded {
            by: newest.map_or(Value::Initial, |version| version.value),
            acknowledged: newest.is_some_and(|version| version.acknowledged.is_some()),
        }
    }

    fn find(&mut self, value: Value) -> Option<&mut Version> {
        let mut versions = self.versions.iter_mut();
        versions.find(|version| version.value == value)
    }
}
