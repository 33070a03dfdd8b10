//! How a slice is reached: as an engine of a pair, or to ask without raising anything (design
//! section 5, Fence).

use uuid::Uuid;
use weft_spec::engine::{EngineDocument, SliceMember};
use weft_spec::ids::{FencePair, Term, VolumeUid};
use weft_spec::nqn::{self, HostNqn};
use weft_transport::ConnectOptions;

/// The way to a slice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Way {
    /// The slice and where it is.
    pub member: SliceMember,
    /// The volume.
    pub volume: VolumeUid,
    /// The pod's term.
    pub term: Term,
    /// This process alone: two that chose the same pair must not be taken for one.
    pub process: Uuid,
}

impl Way {
    /// The ways of a document, in its order.
    pub fn all(document: &EngineDocument, process: Uuid) -> Vec<Self> {
        let way = |member: &SliceMember| Self {
            member: member.clone(),
            volume: document.volume,
            term: document.term,
            process,
        };
        document.stack.slices().into_iter().map(way).collect()
    }

    /// How to connect so that nothing is raised and one may only ask.
    pub fn as_inspector(&self) -> ConnectOptions {
        let name = HostNqn::inspect(&self.member.key, self.volume, self.term);
        self.options(&name, name.host_id())
    }

    /// How this process connects as this pair.
    pub fn as_engine(&self, pair: FencePair) -> ConnectOptions {
        let name = HostNqn::engine(&self.member.key, self.volume, pair);
        let host_id = Uuid::new_v5(&self.process, name.expose().as_bytes());
        self.options(&name, host_id)
    }

    fn options(&self, name: &HostNqn, host_id: Uuid) -> ConnectOptions {
        let subsystem = nqn::slice(self.member.slice);
        ConnectOptions::new(self.member.address, subsystem, name.expose(), host_id)
    }
}
