//! What all parts of a simulation share: one source of chance, the faults of now, the trace, and what
//! was found wrong.

use crate::drive::Drive;
use crate::faults::{Faults, OneIn};
use crate::host::Host;
use crate::medium::Request;
use crate::network::Network;
use crate::operator::Operator;
use crate::trace::Trace;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use weft_verify::random::Random;

/// A machine, or a pod with an address of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place(pub u16);

impl Place {
    pub const HOST: Self = Self(9);

    pub const fn drive(number: usize) -> Self {
        Self(number as u16)
    }

    pub const fn pod(term: u64) -> Self {
        Self(100 + term as u16)
    }
}

/// See the module.
pub struct World {
    random: Mutex<Random>,
    faults: Mutex<Faults>,
    seed: Faults,
    pub trace: Trace,
    violations: Mutex<Vec<String>>,
}

/// Adds a line to the trace.
macro_rules! say {
    ($world:expr, $($what:tt)*) => {
        $world.trace.say(format_args!($($what)*))
    };
}
pub(crate) use say;

impl World {
    pub fn new(random: Random, faults: Faults, is_printed: bool) -> Arc<Self> {
        Arc::new(Self {
            random: Mutex::new(random),
            seed: faults,
            faults: Mutex::new(faults),
            trace: Trace::new(is_printed),
            violations: Mutex::default(),
        })
    }

    /// Without faults, for what is prepared.
    pub fn quiet() -> Arc<Self> {
        Self::new(Random::new(0), Faults::NONE, false)
    }

    /// Whether the media of this seed tear blocks, at any time.
    pub fn tears(&self) -> bool {
        self.seed.tears
    }

    /// Whether media of this seed may fail to give back what was written.
    pub fn spoils_media(&self) -> bool {
        self.seed.spoil_media()
    }

    /// One of 0 to `limit` - 1.
    pub fn below(&self, limit: u64) -> u64 {
        self.random.lock().unwrap().below(limit)
    }

    /// At least 1 ms, less than `most` and that.
    pub fn time(&self, most: Duration) -> Duration {
        Duration::from_millis(1 + self.below(most.as_millis() as u64))
    }

    pub fn faults(&self) -> Faults {
        *self.faults.lock().unwrap()
    }

    pub fn set_faults(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    /// Whether it happens now.
    pub fn happens(&self, often: OneIn) -> bool {
        often.0 > 0 && self.below(often.0) == 0
    }

    pub fn medium_fails(&self, request: Request) -> bool {
        let faults = self.faults();
        let fails = self.happens(match request {
            Request::Read => faults.read,
            Request::Write => faults.write,
            Request::Flush => faults.flush,
        });
        if fails {
            say!(self, "a {request:?} of a medium fails");
        }
        fails
    }

    /// What must not be.
    pub fn wrong(&self, what: String) {
        say!(self, "WRONG: {what}");
        self.violations.lock().unwrap().push(what);
    }

    /// What was wrong so far.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }
}

/// The parts.
pub struct Simulation {
    pub world: Arc<World>,
    pub network: Arc<Network>,
    /// Those of the members first, then the witness's, if there is one.
    pub drives: Vec<Arc<Drive>>,
    /// Drives that hold data.
    pub members: usize,
    pub operator: Arc<Operator>,
    pub host: Arc<Host>,
}

impl Simulation {
    /// The drives of the members.
    pub fn data(&self) -> &[Arc<Drive>] {
        &self.drives[..self.members]
    }
}
