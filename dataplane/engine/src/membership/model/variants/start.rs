//! Order, votes, start, loss, forced recovery (design section 6, lines 1 to 4, 7 and 9).

use super::*;

#[test]
fn records_that_tie_on_term_and_config_are_caught() {
    let setup = Setup {
        api_unreachable: true,
        ..Setup::new(Budget {
            starts: 2,
            kills: 1,
            absences: 2,
            writes: 1,
            ..NOTHING
        })
    };
    // The first member alone has heard that the second is out.
    let half = |served: Script| {
        let lost = served.then(Step::Lose(FIRST, slice(1)));
        let asked = lost.then(Step::GiveUp(FIRST, slice(1)));
        asked
            .then(Step::Deliver(slice(0), 0))
            .then(Step::Kill(FIRST))
    };
    caught_after(half, &[Broken::Core(Rule::BootOrders)], setup, STALE);
}

#[test]
fn a_quorum_of_the_in_sync_set_is_caught() {
    let setup = Setup::new(Budget {
        absences: 1,
        ..TAKEOVER
    });
    let lost = |served: Script| {
        let lost = served.then(Step::Lose(FIRST, slice(1)));
        lost.then(Step::GiveUp(FIRST, slice(1)))
    };
    caught_after(lost, &[Broken::Core(Rule::QuorumOfVoters)], setup, STALE);
}

#[test]
fn voters_changed_by_the_new_list_alone_are_caught() {
    let setup = Setup {
        slices: 4,
        voters: Some(vec![slice(0), slice(1), slice(3)]),
        ..Setup::new(Budget {
            absences: 1,
            ..TAKEOVER
        })
    };
    // The old witness hears nothing of it.
    let asked = |served: Script| {
        let lost = served
            .then(Step::Lose(FIRST, slice(1)))
            .then(Step::Voters(FIRST));
        let asked = lost.then(Step::Connect(FIRST, slice(3)));
        asked
            .then(Step::GiveUp(FIRST, slice(1)))
            .settled_but(|step| match step {
                Step::Connect(_, to) => *to == slice(1),
                Step::Deliver(to, _) => *to == slice(2),
                _ => false,
            })
    };
    caught_after(asked, &[Broken::Core(Rule::BothLists)], setup, STALE);
}

#[test]
fn a_blank_replacement_of_a_witness_that_votes_is_caught() {
    let setup = Setup::new(Budget {
        blanks: 1,
        absences: 1,
        ..TAKEOVER
    });
    let out = Script::second_left_out;
    caught_after(out, &[Broken::Core(Rule::VotesEarned)], setup, STALE);
}

#[test]
fn a_volume_formed_twice_is_caught() {
    let setup = Setup {
        blanked: 0,
        ..Setup::new(Budget {
            blanks: 1,
            ..TAKEOVER
        })
    };
    caught(&[Broken::Core(Rule::FormedOnce)], setup, STALE);
}

#[test]
fn a_fence_raised_by_who_cannot_lead_is_caught() {
    let setup = Setup::new(Budget {
        blanks: 1,
        absences: 1,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::AbleBeforeFence)], setup, IN_VAIN);
}

#[test]
fn a_record_decided_on_before_the_promises_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        kills: 0,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::PromisesFirst)], setup, STALE);
}

#[test]
fn a_member_kept_with_another_incarnation_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::IncarnationCounts)], setup, STALE);
}

#[test]
fn a_loss_recorded_before_all_have_answered_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        absences: 1,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::LossAfterAll)], setup, FALSE_LOSS);
}

#[test]
fn a_loss_that_is_not_told_is_caught() {
    let setup = Setup::new(Budget {
        starts: 1,
        flushes: 1,
        ..NOTHING
    });
    let crashed = |served: Script| {
        let written = served.then(Step::Write(Region(0), false)).settled();
        written
            .then(Step::Crash(slice(0)))
            .then(Step::Crash(slice(1)))
            .settled()
    };
    caught_after(crashed, &[Broken::LossNotTold], setup, LOST);
}

#[test]
fn a_takeover_from_a_stale_list_of_hosts_is_caught() {
    let setup = Setup::new(Budget {
        revokes: 1,
        writes: 0,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::NewestDocument)], setup, REVOKED);
}

/// What the first member alone has is durable and cold; a person goes on from the second.
fn recovered(broken: Broken) {
    let setup = Setup {
        recovery: Some(1),
        checkpoints: true,
        ..Setup::new(Budget {
            starts: 1,
            absences: 1,
            ..NOTHING
        })
    };
    let cold = |served: Script| {
        let out = served.second_left_out().written_without_second();
        out.then(Step::Flush)
            .settled_without(1)
            .then(Step::Kill(FIRST))
    };
    caught_after(cold, &[broken], setup, UNEQUAL);
}

#[test]
fn a_full_copy_onto_what_was_there_is_caught() {
    recovered(Broken::NotEmptied);
}

#[test]
fn a_forced_recovery_in_the_old_lineage_is_caught() {
    recovered(Broken::Core(Rule::NewLineage));
}
