//! The host, and what it may expect: the oracle.

use super::{ProcessId, Value};
use crate::membership::Region;
use weft_spec::ids::FencePair;

/// What one region owes its host.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Expectation {
    /// Newest value sent.
    pub issued: Value,
    /// Newest value acknowledged.
    pub acknowledged: Value,
    /// Newest value acknowledged before a Flush that succeeded.
    pub flushed: Value,
    /// No read may give an older one.
    pub floor: Value,
    /// Waits for its acknowledgement.
    pub outstanding: Option<bool>,
}

/// One host with one path. It follows the volume to engines of higher pairs and never goes back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Host {
    pub path: Option<(FencePair, ProcessId)>,
    /// The path before, where a host holds two.
    pub old_path: Option<ProcessId>,
    pub regions: Vec<Expectation>,
}

impl Host {
    pub fn new(regions: u8) -> Self {
        Self {
            path: None,
            old_path: None,
            regions: vec![Expectation::default(); usize::from(regions)],
        }
    }

    pub fn uses(&self, process: ProcessId) -> bool {
        self.path.is_some_and(|(_, path)| path == process)
    }

    pub fn region(&mut self, region: Region) -> &mut Expectation {
        &mut self.regions[region.0 as usize]
    }

    pub fn acknowledged(&mut self, region: Region, value: Value) {
        let expected = self.region(region);
        if expected.issued == value {
            expected.outstanding = None;
        }
        expected.acknowledged = expected.acknowledged.max(value);
        expected.floor = expected.floor.max(value);
    }

    /// A Flush succeeded: everything acknowledged before is safe, by the engine's word.
    pub fn flushed(&mut self) {
        for expected in &mut self.regions {
            expected.flushed = expected.acknowledged;
            expected.floor = expected.floor.max(expected.flushed);
        }
    }

    /// It was told of a loss: what was not flushed may be gone, and anything by a person's word.
    pub fn told_of_loss(&mut self, forced: bool) {
        for expected in &mut self.regions {
            if forced {
                (expected.acknowledged, expected.flushed) = (Value(0), Value(0));
            }
            expected.floor = expected.flushed;
        }
    }
}
