//! What is left out around the core: at the drives, in the mirror, at the host.

use crate::membership::rules::Rule;

/// One rule left out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Broken {
    /// A rule of the core.
    Core(Rule),
    /// Drive: commands of older engines may still run after the fence was raised.
    FenceWithoutDrain,
    /// Drive: older engines' commands, reads among them, pass on live connections.
    OldCommandsPass,
    /// Drive: an equal pair is admitted from another process.
    EqualPairAdmitted,
    /// Drive: a new process does not wait for the commands of the one before.
    NoHold,
    /// Drive: a record may take the place of one that is not lower.
    RecordsUnordered,
    /// Drive: writes of another config than the record's are taken.
    AnyConfig,
    /// Drive: a discard leaves no stamp.
    HolesUnstamped,
    /// Drive: holes are forgotten while somebody still lacks them.
    HolesForgotten,
    /// Drive: a checkpoint drops regions written after it.
    CheckpointOvertaken,
    /// Drive: regions leave the hot set once they are durable here.
    CoolsUnasked,
    /// Drive: regions leave the hot set before they are durable here.
    CoolsBeforeDurable,
    /// Drive: a checkpoint drops regions inherited from an earlier engine.
    InheritedCools,
    /// Drive: the hot set is lost with the power.
    HeatNotDurable,
    /// Drive: bytes are lost under the same incarnation.
    IncarnationKept,
    /// Mirror: a checkpoint is said of writes that are not flushed.
    CheckpointWithoutFlush,
    /// Mirror: a member that failed is read until the next record is in force.
    FailedMemberRead,
    /// Mirror: writes are not sent again, only acknowledged once the record is in force.
    NotSentAgain,
    /// Mirror: any member is read before regions are equal.
    NotEqualFirst,
    /// Mirror: what is made equal keeps its stamp.
    NotStampedAnew,
    /// Mirror: a read does not wait for the write in flight.
    ReadsDoNotWait,
    /// Mirror: the own hot set of who returns is ignored.
    OwnHotSetIgnored,
    /// Mirror: what was changed is asked for while writes that do not go to the target are in flight.
    AskedTooEarly,
    /// Mirror: a full copy does not empty the target.
    NotEmptied,
    /// Mirror: Flush succeeds for hosts that were not told of a loss.
    LossNotTold,
    /// Host: paths to engines of two pairs are used at once.
    TwoPaths,
}

/// What is left out together.
#[derive(Clone, Default, Debug)]
pub struct Breakage(pub Vec<Broken>);

impl Breakage {
    pub fn has(&self, broken: Broken) -> bool {
        self.0.contains(&broken)
    }

    pub fn rule(&self) -> Option<Rule> {
        self.0.iter().find_map(|broken| match broken {
            Broken::Core(rule) => Some(*rule),
            _ => None,
        })
    }
}
