//! The searches.

use super::world::{Step, World};
use super::{Budget, Setup, Violation};
use stateright::{Checker, HasDiscoveries, Model, Property};

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
            never!("a revoked host is never admitted", RevokedHost),
        ]
    }
}

#[test]
fn with_every_rule_nothing_is_lost() {
    let budget = Budget {
        starts: 1,
        kills: 1,
        losses: 1,
        writes: 1,
        ..Budget::default()
    };
    let setup = Setup::new(budget);
    let first = setup.served();
    let begun = std::time::Instant::now();
    let checker = Searched { setup, first }
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    println!(
        "{} states, {} unique, depth {}, {:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        begun.elapsed()
    );
    for (name, path) in checker.discoveries() {
        println!("{name}: {:#?}", path.into_actions());
        panic!("found");
    }
}
