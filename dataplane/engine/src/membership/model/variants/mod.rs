//! The searches that `cargo test` runs: with every rule nothing is wrong; without one, the model
//! finds what follows.

mod change;
mod deeper;
mod drives;
mod start;

use super::broken::{Breakage, Broken};
use super::search::{holds, names, search};
use super::steps::{Memory, Pod, Step};
use super::{Budget, FIRST, ProcessId, Script, Setup, slice};
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

/// Without these rules, the search finds that the property does not hold; with them, it finds
/// nothing as far as it had to go for that.
fn caught_after(
    before: impl Fn(Script) -> Script,
    broken: &[Broken],
    setup: Setup,
    property: &'static str,
) {
    let begin = |broken: Breakage| {
        let script = before(setup.served().leaving_out(&broken));
        let first = script.begin(&setup);
        let setup = setup.clone();
        (Setup { broken, ..setup }, first)
    };
    let (setup, first) = begin(Breakage(broken.to_vec()));
    let searching = search(setup, first, &[property], MOST);
    let steps = searching.found.get(property);
    let steps = steps.unwrap_or_else(|| panic!("{broken:?} is not caught: {:?}", searching.found));
    println!("{broken:?}: {steps:?}");
    let (setup, first) = begin(Breakage::default());
    let searching = search(setup, first, &names(), searching.reached);
    assert!(
        searching.found.is_empty(),
        "with every rule: {:?}",
        searching.found
    );
}

fn caught(broken: &[Broken], setup: Setup, property: &'static str) {
    caught_after(|served| served, broken, setup, property);
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
