//! The searches.

use super::steps::Step;
use super::world::World;
use super::{Budget, Setup, Violation};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

struct Searched {
    setup: Setup,
    first: World,
}

impl Model for Searched {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(&self.setup, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        world.after(step, &self.setup).filter(|next| next != world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! never {
            ($name:literal, $violation:ident) => {
                Property::always($name, |_, world: &World| {
                    !world.violations.contains(&Violation::$violation)
                })
            };
        }
        vec![
            never!("no acknowledged write is lost", LostWrite),
            never!("a read never goes back in time", ReadWentBack),
            never!(
                "no two engines acknowledge in overlapping terms",
                TwoEngines
            ),
            never!("no stale member becomes a source", StaleSource),
            never!("members are equal after a drain", Unequal),
            never!("a loss is told only if there is one", FalseLoss),
            never!("the fence is raised only by who could lead", FencedInVain),
            never!("who met a newer pair raises no fence again", ParkedRaises),
            never!(
                "no write carries a config that its member has not heard",
                WrongConfig
            ),
            never!("a revoked host is never admitted", RevokedHost),
        ]
    }
}

/// How a property came not to hold.
pub struct Way(Vec<(World, Option<Step>)>);

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (world, step) in &self.0 {
            for engine in world.engines.iter().flatten() {
                writeln!(f, "      {}", engine.summary())?;
            }
            for (at, drive) in world.drives.values().enumerate() {
                writeln!(f, "      slice {}: {}", at + 1, drive.summary())?;
            }
            if let Some(step) = step {
                writeln!(f, "{step:?}")?;
            }
        }
        Ok(())
    }
}

/// How far a search went.
pub struct Searching {
    pub found: BTreeMap<&'static str, Way>,
    pub states: usize,
    pub reached: usize,
    pub complete: bool,
}

/// Searches breadth first, until a property of these does not hold, or for so many states.
pub fn search(setup: Setup, first: World, until: &[&'static str], most: usize) -> Searching {
    let model = Searched { setup, first };
    let until = HasDiscoveries::AnyOf(until.iter().copied().collect());
    let begun = Instant::now();
    let searched = model.checker().finish_when(until).target_state_count(most);
    let checker = searched.spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!(
        "{states} states of {} reached, depth {depth}, {:?}",
        checker.state_count(),
        begun.elapsed()
    );
    let found = checker.discoveries().into_iter();
    Searching {
        found: found
            .map(|(name, path)| (name, Way(path.into_vec())))
            .collect(),
        states,
        reached: checker.state_count(),
        complete: checker.state_count() < most,
    }
}

/// Everything in these bounds, and nothing wrong in it.
pub fn holds(setup: Setup, first: World, most: usize) {
    let names = names();
    let searching = search(setup, first, &names, most);
    assert!(searching.found.is_empty(), "{:#?}", searching.found);
    assert!(searching.complete && searching.states > 1000);
}

pub fn names() -> Vec<&'static str> {
    let setup = Setup::new(Budget::default());
    let first = World::new(&setup);
    let properties = Searched { setup, first }.properties();
    properties
        .into_iter()
        .map(|property| property.name)
        .collect()
}

/// Where a way at random ends at the latest.
const LONGEST: usize = 1000;

/// One long way at random, until nothing more can happen or something is wrong.
pub fn wander(setup: &Setup, first: World, seed: u64) -> usize {
    let mut random = seed.wrapping_mul(2).wrapping_add(1);
    let mut way = vec![];
    let mut world = first;
    loop {
        let mut steps = Vec::new();
        world.steps(setup, &mut steps);
        let next = loop {
            if steps.is_empty() || way.len() == LONGEST {
                return way.len();
            }
            // The generator of Knuth's MMIX; its upper half is random enough to choose by.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let step = steps.swap_remove((random >> 33) as usize % steps.len());
            match world.after(step, setup).filter(|next| *next != world) {
                Some(next) => break (step, next),
                None => continue,
            }
        };
        way.push((world, Some(next.0)));
        world = next.1;
        if let Some(violation) = world.violations.iter().next() {
            let violation = *violation;
            way.push((world, None));
            panic!("{violation:?}, seed {seed}: {:?}", Way(way));
        }
    }
}
