//! What takes longer than a build may: wider bounds, and long ways at random.

use super::super::search::wander;
use super::*;

/// Ways at random for each of the bounds.
const WAYS: u64 = 2_000;

/// Bounds that together let everything happen.
fn bounds() -> Vec<(&'static str, Setup)> {
    let one_engine = Setup {
        checkpoints: true,
        ..Setup::new(Budget {
            losses: 2,
            crashes: 1,
            writes: 2,
            flushes: 1,
            ..NOTHING
        })
    };
    let takeover = Setup {
        forgets: true,
        ..Setup::new(Budget {
            absences: 1,
            losses: 1,
            crashes: 1,
            ..TAKEOVER
        })
    };
    let three_starts = Setup {
        api_unreachable: true,
        ..Setup::new(Budget {
            starts: 2,
            kills: 2,
            absences: 2,
            losses: 1,
            ..TAKEOVER
        })
    };
    let two_regions = Setup {
        regions: 2,
        checkpoints: true,
        forgets: true,
        ..Setup::new(Budget {
            writes: 2,
            flushes: 1,
            folds: 1,
            ..TAKEOVER
        })
    };
    let twins = Setup {
        twins: true,
        ..Setup::new(Budget {
            starts: 2,
            losses: 1,
            ..TAKEOVER
        })
    };
    let deaths = Setup::new(Budget {
        deaths: 2,
        crashes: 1,
        writes: 2,
        discards: 1,
        ..TAKEOVER
    });
    let blanks = Setup {
        blanked: 1,
        ..Setup::new(Budget {
            blanks: 1,
            losses: 1,
            flushes: 1,
            ..TAKEOVER
        })
    };
    let voters = Setup {
        slices: 4,
        voters: Some(vec![slice(0), slice(1), slice(3)]),
        ..Setup::new(Budget {
            revokes: 1,
            losses: 1,
            absences: 1,
            ..TAKEOVER
        })
    };
    vec![
        ("one engine", one_engine),
        ("takeover", takeover),
        ("three starts", three_starts),
        ("two regions", two_regions),
        ("twins", twins),
        ("deaths", deaths),
        ("blanks", blanks),
        ("voters", voters),
    ]
}

#[test]
#[ignore = "minutes"]
fn wider_bounds_hold_as_far_as_they_are_searched() {
    for (name, setup) in bounds() {
        let first = setup.served().begin(&setup);
        print!("{name}: ");
        let searching = search(setup, first, &names(), 4_000_000);
        assert!(searching.found.is_empty(), "{name}: {:?}", searching.found);
    }
}

#[test]
#[ignore = "minutes"]
fn long_ways_at_random_hold() {
    for (name, mut setup) in bounds() {
        setup.budget.losses += 1;
        setup.budget.crashes += 1;
        setup.budget.starts += 1;
        setup.budget.kills += 1;
        let first = setup.served().begin(&setup);
        let ways = (0..WAYS).map(|seed| wander(&setup, first.clone(), seed));
        let (steps, longest) = ways.fold((0, 0), |(sum, most), n| (sum + n, most.max(n)));
        println!("{name}: {WAYS} ways, {steps} steps, the longest {longest}");
        assert!(steps > WAYS as usize);
    }
}
