//! Rules of the drive (design section 5): fence, hold, hot regions, stamps.

use super::*;

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
    let budget = Budget {
        starts: 1,
        kills: 1,
        absences: 1,
        writes: 1,
        ..NOTHING
    };
    let setup = Setup {
        twins: true,
        api_unreachable: true,
        ..Setup::new(budget)
    };
    let (one, two) = (ProcessId(1), ProcessId(2));
    let same = Step::Start {
        pod: Pod::Same,
        stale: false,
    };
    // Each of two processes has heard one of the two members before either connects; then each
    // takes the witness from the other.
    let both = |served: Script| {
        let begun = served.then(Step::Kill(FIRST)).then(same);
        let begun = begun.then(Step::Inspect(one, Some(slice(1)))).then(same);
        let begun = begun.then(Step::Inspect(two, Some(slice(0))));
        let first = begun
            .then(Step::Connect(one, slice(0)))
            .then(Step::Connect(one, slice(2)));
        let first = first.then(Step::Deliver(slice(0), 0));
        let second = first
            .then(Step::Connect(two, slice(1)))
            .then(Step::Connect(two, slice(2)));
        let second = second.perhaps(Step::Deliver(slice(1), 0));
        second
            .perhaps(Step::Lose(one, slice(2)))
            .perhaps(Step::Connect(one, slice(2)))
    };
    caught_after(both, &[Broken::EqualPairAdmitted], setup, STALE);
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
fn a_region_that_cools_before_it_is_durable_is_caught() {
    let setup = Setup {
        checkpoints: true,
        ..Setup::new(Budget {
            flushes: 1,
            crashes: 1,
            ..TAKEOVER
        })
    };
    let broken = [Broken::CoolsBeforeDurable, Broken::CheckpointWithoutFlush];
    caught(&broken, setup, STALE);
}

#[test]
fn inherited_regions_that_cool_are_caught() {
    let setup = Setup {
        regions: 2,
        checkpoints: true,
        forgets: true,
        ..Setup::new(Budget {
            starts: 1,
            kills: 1,
            writes: 1,
            flushes: 1,
            ..NOTHING
        })
    };
    // The first member alone has a write, and a second engine has found that.
    let found = |served: Script| {
        let written = served.then(Step::Write(Region(0), false));
        let dead = written
            .then(Step::Deliver(slice(0), 0))
            .then(Step::Kill(FIRST));
        let second = dead.then(Step::Start {
            pod: Pod::New,
            stale: false,
        });
        let second = second.settled_but(|step| matches!(step, Step::Equalise(..)));
        second.then(Step::Attach(ProcessId(1), Memory::Lost))
    };
    caught_after(found, &[Broken::InheritedCools], setup, UNEQUAL);
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
fn a_freed_chunk_without_a_stamp_is_caught() {
    let setup = Setup::new(Budget {
        discards: 1,
        ..NOTHING
    });
    caught_after(
        Script::second_left_out,
        &[Broken::HolesUnstamped],
        setup,
        UNEQUAL,
    );
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
    let freed = |served: Script| {
        let out = served.second_left_out();
        let freed = out.then(Step::Write(Region(0), true)).settled_without(1);
        let cold = freed.then(Step::Flush).settled_without(1);
        cold.then(Step::Kill(FIRST))
    };
    caught_after(freed, &[Broken::HolesForgotten], setup, UNEQUAL);
}

#[test]
fn a_fence_that_lets_older_commands_pass_lets_two_engines_acknowledge() {
    let setup = Setup::new(Budget {
        kills: 0,
        ..TAKEOVER
    });
    let broken = [Broken::OldCommandsPass, Broken::AnyConfig];
    caught(&broken, setup, TWO);
}
