//! The searches that `cargo test` runs: with every rule nothing is wrong; without one, the model
//! finds what follows.

use super::broken::{Breakage, Broken};
use super::search::{holds, search};
use super::world::{Pod, Step, World};
use super::{Budget, FIRST, Script, Setup, slice};
use crate::membership::Region;
use crate::membership::rules::Rule;

const LOST: &str = "no acknowledged write is lost";
const BACK: &str = "a read never goes back in time";
const TWO: &str = "no two engines acknowledge in overlapping terms";
const STALE: &str = "no stale member becomes a source";
const UNEQUAL: &str = "members are equal after a drain";
const FALSE_LOSS: &str = "a loss is told only if there is one";
const IN_VAIN: &str = "the fence is raised only by who could lead";
const PARKED: &str = "who met a newer pair raises no fence again";
const REVOKED: &str = "a revoked host is never admitted";
const CONFIG: &str = "no write carries a config that its member has not heard";

/// Most states that a variant may take to be caught.
const MOST: usize = 3_000_000;

/// Without these rules, the search from here finds that the property does not hold.
fn caught_from(broken: &[Broken], setup: Setup, first: World, property: &'static str) {
    let setup = Setup {
        broken: Breakage(broken.to_vec()),
        ..setup
    };
    let searching = search(setup, first, &[property], MOST);
    let steps = searching.found.get(property);
    let steps = steps.unwrap_or_else(|| panic!("{broken:?} is not caught: {:?}", searching.found));
    println!("{broken:?}: {steps:?}");
}

fn caught(broken: &[Broken], setup: Setup, property: &'static str) {
    let first = setup.served().begin(&setup);
    caught_from(broken, setup, first, property);
}

/// The budget of a takeover: the engine dies, another starts.
const TAKEOVER: Budget = Budget {
    starts: 1,
    kills: 1,
    writes: 1,
    ..NOTHING
};
const NOTHING: Budget = Budget {
    starts: 0,
    kills: 0,
    absences: 0,
    losses: 0,
    crashes: 0,
    deaths: 0,
    folds: 0,
    blanks: 0,
    writes: 0,
    discards: 0,
    flushes: 0,
    revokes: 0,
};

#[test]
fn a_takeover_keeps_every_acknowledged_write() {
    let setup = Setup::new(Budget {
        losses: 1,
        ..TAKEOVER
    });
    let first = setup.served().begin(&setup);
    holds(setup, first, 2_000_000);
}

#[test]
fn a_fence_that_does_not_drain_is_caught() {
    caught(&[Broken::FenceWithoutDrain], Setup::new(TAKEOVER), UNEQUAL);
}

#[test]
fn a_fence_that_lets_older_commands_pass_is_caught() {
    let setup = Setup::new(Budget {
        kills: 0,
        ..TAKEOVER
    });
    caught(&[Broken::OldCommandsPass], setup, UNEQUAL);
}

#[test]
fn an_equal_pair_from_another_process_is_caught() {
    let setup = Setup {
        twins: true,
        api_unreachable: true,
        ..Setup::new(Budget {
            starts: 2,
            absences: 2,
            ..TAKEOVER
        })
    };
    let script = setup.served().then(Step::Kill(FIRST));
    let first = script.begin(&setup);
    caught_from(&[Broken::EqualPairAdmitted], setup, first, STALE);
}

#[test]
fn a_medium_without_hold_is_caught() {
    let setup = Setup::new(Budget {
        deaths: 1,
        writes: 2,
        ..NOTHING
    });
    caught(&[Broken::NoHold], setup, LOST);
}

#[test]
fn a_checkpoint_that_a_write_overtook_is_caught() {
    let setup = Setup {
        checkpoints: true,
        ..Setup::new(Budget {
            writes: 2,
            flushes: 1,
            folds: 1,
            ..TAKEOVER
        })
    };
    caught(&[Broken::CheckpointOvertaken], setup, UNEQUAL);
}

#[test]
fn a_region_that_cools_unasked_is_caught() {
    let setup = Setup::new(Budget {
        folds: 1,
        ..TAKEOVER
    });
    caught(&[Broken::CoolsUnasked], setup, UNEQUAL);
}

#[test]
fn a_hot_set_lost_with_the_power_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        ..TAKEOVER
    });
    caught(&[Broken::HeatNotDurable], setup, STALE);
}

#[test]
fn bytes_lost_under_the_same_incarnation_are_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::IncarnationKept], setup, LOST);
}

#[test]
fn writes_not_sent_again_are_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::NotSentAgain], setup, UNEQUAL);
}

#[test]
fn an_acknowledgement_before_the_record_is_in_force_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        absences: 1,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::InForceFirst)], setup, STALE);
}

#[test]
fn reads_before_regions_are_equal_are_caught() {
    caught(&[Broken::NotEqualFirst], Setup::new(TAKEOVER), BACK);
}

#[test]
fn regions_made_equal_under_their_old_stamp_are_caught() {
    let setup = Setup {
        forgets: true,
        ..Setup::new(Budget {
            absences: 1,
            ..TAKEOVER
        })
    };
    caught(&[Broken::NotStampedAnew], setup, UNEQUAL);
}

#[test]
fn a_read_that_does_not_wait_for_the_write_is_caught() {
    let setup = Setup::new(Budget {
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::ReadsDoNotWait], setup, BACK);
}

#[test]
fn the_own_hot_set_of_who_returns_ignored_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::OwnHotSetIgnored], setup, UNEQUAL);
}

#[test]
fn changes_asked_for_too_early_are_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::AskedTooEarly], setup, UNEQUAL);
}

#[test]
fn a_loss_that_is_not_told_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 2,
        flushes: 1,
        kills: 0,
        ..TAKEOVER
    });
    caught(&[Broken::LossNotTold], setup, LOST);
}

#[test]
fn a_host_with_paths_to_two_pairs_is_caught() {
    let setup = Setup::new(Budget {
        absences: 1,
        kills: 0,
        ..TAKEOVER
    });
    caught(&[Broken::TwoPaths], setup, BACK);
}

#[test]
fn an_engine_that_serves_alone_is_caught() {
    let setup = Setup::new(Budget {
        absences: 1,
        losses: 2,
        kills: 0,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::AlonePauses)], setup, BACK);
}

#[test]
fn records_that_tie_on_term_and_config_are_caught() {
    let setup = Setup {
        api_unreachable: true,
        ..Setup::new(Budget {
            starts: 2,
            kills: 1,
            absences: 2,
            ..TAKEOVER
        })
    };
    // The first member alone has heard that the second is out.
    let lost = setup.served().then(Step::Lose(FIRST, slice(1)));
    let lost = lost.then(Step::GiveUp(FIRST, slice(1)));
    let script = lost
        .then(Step::Deliver(slice(0), 0))
        .then(Step::Kill(FIRST));
    let first = script.begin(&setup);
    caught_from(&[Broken::Core(Rule::BootOrders)], setup, first, STALE);
}

#[test]
fn a_quorum_of_the_in_sync_set_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        absences: 1,
        ..TAKEOVER
    });
    caught(&[Broken::Core(Rule::QuorumOfVoters)], setup, STALE);
}

#[test]
fn voters_changed_by_the_new_list_alone_are_caught() {
    let setup = Setup {
        slices: 4,
        voters: Some(vec![slice(0), slice(1), slice(3)]),
        ..Setup::new(Budget {
            revokes: 1,
            absences: 1,
            ..TAKEOVER
        })
    };
    let script = setup.served().then(Step::Lose(FIRST, slice(1)));
    let first = script.begin(&setup);
    caught_from(&[Broken::Core(Rule::BothLists)], setup, first, STALE);
}

#[test]
fn a_blank_replacement_of_a_witness_that_votes_is_caught() {
    let setup = Setup::new(Budget {
        blanks: 1,
        absences: 1,
        ..TAKEOVER
    });
    let script = setup.served().second_left_out();
    let first = script.begin(&setup);
    caught_from(&[Broken::Core(Rule::VotesEarned)], setup, first, STALE);
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
    caught(&[Broken::Core(Rule::PromisesFirst)], setup, UNEQUAL);
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
fn a_member_that_has_not_heard_the_config_is_caught() {
    caught(
        &[Broken::Core(Rule::EveryMemberHears)],
        Setup::new(TAKEOVER),
        CONFIG,
    );
}

#[test]
fn a_member_promoted_before_its_flush_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        crashes: 1,
        starts: 1,
        ..NOTHING
    });
    let script = setup.served().second_left_out().written_without_second();
    let first = script.then(Step::Flush).begin(&setup);
    caught_from(
        &[Broken::Core(Rule::FlushedBeforeInSync)],
        setup,
        first,
        STALE,
    );
}

#[test]
fn since_taken_from_who_returns_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        ..NOTHING
    });
    let script = setup.served().second_left_out().written_without_second();
    let first = script.begin(&setup);
    caught_from(&[Broken::Core(Rule::SinceInForce)], setup, first, UNEQUAL);
}

#[test]
fn a_last_member_recorded_stale_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        ..NOTHING
    });
    let script = setup.served().second_left_out().written_without_second();
    let first = script.begin(&setup);
    caught_from(&[Broken::Core(Rule::LastMemberStays)], setup, first, LOST);
}

#[test]
fn an_engine_that_does_not_park_is_caught() {
    let setup = Setup {
        twins: true,
        api_unreachable: true,
        ..Setup::new(Budget {
            starts: 1,
            ..NOTHING
        })
    };
    caught(&[Broken::Core(Rule::FencedParks)], setup, PARKED);
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

#[test]
fn a_freed_chunk_without_a_stamp_is_caught() {
    let setup = Setup::new(Budget {
        discards: 1,
        ..NOTHING
    });
    let first = setup.served().second_left_out().begin(&setup);
    caught_from(&[Broken::HolesUnstamped], setup, first, UNEQUAL);
}

#[test]
fn holes_forgotten_while_somebody_lacks_them_are_caught() {
    let setup = Setup {
        checkpoints: true,
        ..Setup::new(Budget {
            starts: 1,
            absences: 1,
            ..NOTHING
        })
    };
    let without = Some(slice(1));
    let out = setup.served().second_left_out();
    let freed = out
        .then(Step::Write(Region(0), true))
        .settled_without(without);
    let cold = freed.then(Step::Flush).settled_without(without);
    let first = cold.then(Step::Kill(FIRST)).begin(&setup);
    caught_from(&[Broken::HolesForgotten], setup, first, UNEQUAL);
}

/// What the first member alone has is durable and cold; a person goes on from the second.
fn recovered(setup: &Setup) -> World {
    let without = Some(slice(1));
    let out = setup.served().second_left_out().written_without_second();
    let cold = out.then(Step::Flush).settled_without(without);
    cold.then(Step::Kill(FIRST)).begin(setup)
}

#[test]
fn a_full_copy_onto_what_was_there_is_caught() {
    let setup = Setup {
        recovery: Some(1),
        checkpoints: true,
        ..Setup::new(Budget {
            starts: 1,
            absences: 1,
            ..NOTHING
        })
    };
    let first = recovered(&setup);
    caught_from(&[Broken::NotEmptied], setup, first, UNEQUAL);
}

#[test]
fn a_forced_recovery_in_the_old_lineage_is_caught() {
    let setup = Setup {
        recovery: Some(1),
        checkpoints: true,
        ..Setup::new(Budget {
            starts: 1,
            absences: 1,
            ..NOTHING
        })
    };
    let first = recovered(&setup);
    caught_from(&[Broken::Core(Rule::NewLineage)], setup, first, UNEQUAL);
}

#[test]
fn inherited_regions_that_cool_are_caught() {
    let setup = Setup {
        regions: 2,
        checkpoints: true,
        forgets: true,
        ..Setup::new(Budget {
            starts: 2,
            kills: 1,
            writes: 1,
            flushes: 1,
            ..NOTHING
        })
    };
    let script = setup.served().then(Step::Write(Region(0), false));
    let script = script
        .then(Step::Deliver(slice(0), 0))
        .then(Step::Kill(FIRST));
    let first = script.begin(&setup);
    caught_from(&[Broken::InheritedCools], setup, first, UNEQUAL);
}
