//! The searches.

use super::world::{Step, World};
use super::{Budget, Setup, Violation};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::collections::BTreeMap;
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

/// How far a search went.
pub struct Searching {
    pub found: BTreeMap<&'static str, Vec<Step>>,
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
            .map(|(name, path)| (name, path.into_actions()))
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
