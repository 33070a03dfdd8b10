//! Equal first, failure, return, fence met, alone, one path (design section 6, lines 5, 6 and 8 to
//! 12).

use super::*;

#[test]
fn reads_before_regions_are_equal_are_caught() {
    let setup = Setup {
        forgets: true,
        ..Setup::new(TAKEOVER)
    };
    caught(&[Broken::NotEqualFirst], setup, BACK);
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
fn an_acknowledgement_before_the_record_is_in_force_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        absences: 1,
        ..TAKEOVER
    });
    let written = |served: Script| {
        let lost = served.then(Step::Lose(FIRST, slice(1)));
        lost.then(Step::Write(Region(0), false))
    };
    let setup = Setup {
        budget: Budget {
            losses: 0,
            ..setup.budget
        },
        ..setup
    };
    caught_after(written, &[Broken::Core(Rule::InForceFirst)], setup, STALE);
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
fn a_failed_member_that_is_still_read_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::FailedMemberRead], setup, LOST);
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
fn since_taken_from_who_returns_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        ..NOTHING
    });
    let written = |served: Script| served.second_left_out().written_without_second();
    caught_after(written, &[Broken::Core(Rule::SinceInForce)], setup, UNEQUAL);
}

#[test]
fn a_member_promoted_before_its_flush_is_caught() {
    let setup = Setup::new(Budget {
        crashes: 1,
        starts: 1,
        ..NOTHING
    });
    // The second member is back with a copy of what was flushed before, then the first is lost.
    let back = |served: Script| {
        let written = served.second_left_out().written_without_second();
        let back = written.then(Step::Flush).settled();
        let lost = back.then(Step::Lose(FIRST, slice(0)));
        lost.then(Step::GiveUp(FIRST, slice(0))).settled_without(0)
    };
    caught_after(
        back,
        &[Broken::Core(Rule::FlushedBeforeInSync)],
        setup,
        STALE,
    );
}

#[test]
fn a_last_member_recorded_stale_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        ..NOTHING
    });
    let written = |served: Script| served.second_left_out().written_without_second();
    caught_after(written, &[Broken::Core(Rule::LastMemberStays)], setup, LOST);
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
fn an_engine_that_serves_alone_is_caught() {
    let setup = Setup::new(Budget {
        absences: 1,
        kills: 0,
        ..TAKEOVER
    });
    let alone = |served: Script| {
        let half = served.then(Step::Lose(FIRST, slice(2)));
        half.then(Step::Lose(FIRST, slice(1)))
    };
    caught_after(alone, &[Broken::Core(Rule::AlonePauses)], setup, BACK);
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
fn writes_begun_while_a_record_is_on_its_way_are_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        writes: 1,
        ..NOTHING
    });
    let lost = |served: Script| served.then(Step::Lose(FIRST, slice(1)));
    let late = |served: Script| {
        let asked = lost(served).then(Step::GiveUp(FIRST, slice(1)));
        asked.then(Step::Write(Region(0), false))
    };
    caught_after(late, &[Broken::Core(Rule::WritesHeld)], setup, CONFIG);
}

#[test]
fn a_record_put_before_writes_have_ended_is_caught() {
    let setup = Setup::new(Budget {
        losses: 1,
        writes: 1,
        ..NOTHING
    });
    caught(&[Broken::Core(Rule::DrainedFirst)], setup, CONFIG);
}

#[test]
fn a_record_superseded_by_one_that_is_not_higher_is_caught() {
    let setup = Setup::new(Budget {
        absences: 1,
        ..TAKEOVER
    });
    // The second member is to go on alone, and hears of it late; then it is the first that does.
    let crossed = |served: Script| {
        let lost = served.then(Step::Lose(FIRST, slice(0)));
        let asked = lost.then(Step::GiveUp(FIRST, slice(0)));
        let half = asked
            .then(Step::Deliver(slice(2), 0))
            .then(Step::Lose(FIRST, slice(1)));
        let back = half
            .then(Step::GiveUp(FIRST, slice(1)))
            .then(Step::Connect(FIRST, slice(0)));
        back.settled_without(1)
    };
    let broken = [Broken::Core(Rule::HigherConfig), Broken::RecordsUnordered];
    caught_after(crossed, &broken, setup, STALE);
}

#[test]
fn a_slice_without_a_record_that_is_copied_in_part_is_caught() {
    let setup = Setup {
        blanked: 1,
        ..Setup::new(Budget {
            blanks: 1,
            writes: 1,
            ..NOTHING
        })
    };
    caught(&[Broken::Core(Rule::UnknownIsCopied)], setup, UNEQUAL);
}
