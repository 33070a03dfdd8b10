//! Order and majority (design section 6, lines 1 to 3).

use weft_spec::drive::{Config, MemberState, SliceRecord};
use weft_spec::ids::{FencePair, SliceUid};

/// What orders all records of a volume: nothing else does.
pub fn order(record: &SliceRecord) -> (FencePair, Config) {
    (record.fence, record.config)
}

/// Whether a strict majority of the voters of a record votes; of both lists while they change.
pub fn majority(record: &SliceRecord, votes: impl Fn(SliceUid) -> bool) -> bool {
    let of = |list: &[SliceUid]| {
        let voting = list.iter().filter(|slice| votes(**slice)).count();
        2 * voting > list.len()
    };
    of(&record.voters) && (record.old_voters.is_empty() || of(&record.old_voters))
}

/// Whether what is recorded at a slice gives it a vote on the lineage of `on`. What its bytes are worth
/// is nothing to do with it: a record says by itself who is in-sync.
pub fn votes(at: Option<&SliceRecord>, on: &SliceRecord) -> bool {
    at.is_some_and(|at| at.lineage == on.lineage && at.state != MemberState::Retired)
}

/// What a slice is in a record.
pub fn state_of(record: &SliceRecord, slice: SliceUid) -> MemberState {
    if record.out_of_sync.iter().any(|out| out.slice == slice) {
        return MemberState::Rebuilding;
    }
    let votes = record.voters.contains(&slice) || record.old_voters.contains(&slice);
    if votes || in_sync(record, slice) {
        MemberState::Current
    } else {
        MemberState::Retired
    }
}

/// A record as that slice has it.
pub fn copy_for(record: &SliceRecord, slice: SliceUid) -> SliceRecord {
    let state = state_of(record, slice);
    SliceRecord {
        state,
        ..record.clone()
    }
}

/// Whether a record has a slice as in-sync.
pub fn in_sync(record: &SliceRecord, slice: SliceUid) -> bool {
    record.in_sync.iter().any(|member| member.slice == slice)
}
