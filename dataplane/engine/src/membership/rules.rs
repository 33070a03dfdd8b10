//! Rules that the model's tests leave out one at a time, to see that the model finds what follows.

/// Whether a rule is left out: never, but in the model's tests.
#[cfg(test)]
macro_rules! left_out {
    ($machine:expr, $rule:ident) => {
        $machine.left_out == Some($crate::membership::rules::Rule::$rule)
    };
}

/// Whether a rule is left out: never, but in the model's tests.
#[cfg(not(test))]
macro_rules! left_out {
    ($machine:expr, $rule:ident) => {
        false
    };
}

pub(crate) use left_out;

/// One rule of design section 6, left out.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// The boot orders records of one term (1).
    BootOrders,
    /// A majority of the voters, not of who is in-sync (2).
    QuorumOfVoters,
    /// Voters change on a majority of both lists (2).
    BothLists,
    /// A slice without a record has no vote (3).
    VotesEarned,
    /// A volume is formed once, of slices that are all empty (3).
    FormedOnce,
    /// The fence is raised only by who could lead (4).
    AbleBeforeFence,
    /// No record before a majority has promised the pair (4).
    PromisesFirst,
    /// The first record leaves out who may have lost something (4).
    IncarnationCounts,
    /// A loss is recorded only when every member has answered (4).
    LossAfterAll,
    /// A write that a lost member has not acknowledged waits for the record (6).
    InForceFirst,
    /// A record is in force only once every member that it lists has it (6).
    EveryMemberHears,
    /// `since` is the record's in force, not that of who returns (8).
    SinceInForce,
    /// The last in-sync member is never recorded stale (9).
    LastMemberStays,
    /// Who met a newer pair parks (10).
    FencedParks,
    /// Writes are held while a record is on its way (6).
    WritesHeld,
    /// Writes in flight end before the record is put (6).
    DrainedFirst,
    /// A record is superseded by a higher one only (6).
    HigherConfig,
    /// Who has no record of the lineage gets a full copy (8).
    UnknownIsCopied,
    /// Who becomes in-sync is flushed before (8).
    FlushedBeforeInSync,
    /// Forced recovery starts a new lineage (9).
    NewLineage,
    /// Who is alone serves nothing (11).
    AlonePauses,
    /// Nobody is admitted with an older document than the newest made durable (section 4).
    NewestDocument,
}
