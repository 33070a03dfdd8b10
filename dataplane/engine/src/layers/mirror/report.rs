//! What the mirror tells: plain data, of which only the newest counts.

use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// What a member is in its composition.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Every change waits for it, and reads come from it.
    InSync,
    /// It is being rebuilt.
    Target,
}

/// Why a member's answers do not count any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The path is lost and does not come back on this object ([`ErrorKind::Gone`]).
    Lost,
    /// The membership waits for it no longer.
    GivenUp,
    /// Its medium did not take a change or a flush.
    Media,
    /// It has no room for a change that others had room for.
    NoSpace,
    /// Its record is of another config than the composition.
    WrongConfig,
    /// It did not understand, or is smaller than it must be.
    Refused,
}

impl Failure {
    /// What an error says of a member; `None` for the fence, which is about this engine instead.
    pub fn of(error: &DiskError) -> Option<Self> {
        Some(match error.kind() {
            ErrorKind::Fenced => return None,
            ErrorKind::Gone => Self::Lost,
            ErrorKind::MediaRead | ErrorKind::MediaWrite => Self::Media,
            ErrorKind::NoSpace => Self::NoSpace,
            ErrorKind::WrongConfig => Self::WrongConfig,
            _ => Self::Refused,
        })
    }

    /// Whether it may be only the answer that is missing.
    pub fn is_of_path(self) -> bool {
        matches!(self, Self::Lost | Self::GivenUp)
    }
}

/// A member whose answers do not count any more.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failed {
    /// Which.
    pub slice: SliceUid,
    /// What it was.
    pub role: Role,
    /// Why.
    pub failure: Failure,
    /// The first error, for people.
    pub message: String,
}

/// Whether changes go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Flow {
    /// New ones wait, and some begun under the present composition have not ended.
    Draining,
    /// New ones wait, and none is under way: the next composition can be put in force.
    #[default]
    Drained,
    /// Those that did not end well under the composition before go to all members again; new ones
    /// wait.
    Resending,
    /// They go to all members.
    Open,
}

/// The state of the mirror.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Of the composition; the failures are of it. 0 before the first.
    pub config: Config,
    /// Whether changes go on.
    pub flow: Flow,
    /// Members whose answers do not count, in the order in which they failed. With an in-sync one
    /// among them nothing is acknowledged before the next composition.
    pub failed: Vec<Failed>,
    /// Changes that no in-sync member has room for: they wait, others go on.
    pub full: usize,
    /// A newer engine is in force: nothing is answered any more.
    pub fenced: bool,
}
