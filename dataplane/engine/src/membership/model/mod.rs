//! The model: the core as it ships, with drives, a mirror and a host around it, searched in all
//! orders of steps. `docs/decisions/020-membership.md` says what it leaves out.

mod broken;
mod drive;
mod engine;
mod host;
mod search;
mod world;

use broken::Breakage;
use uuid::Uuid;
use weft_spec::ids::SliceUid;
use world::{Pod, Step, World};

/// A process of an engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ProcessId(u8);

/// What a region holds; grows with each write of the host.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Value(u8);

/// What must never be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Violation {
    LostWrite,
    ReadWentBack,
    TwoEngines,
    StaleSource,
    Unequal,
    FalseLoss,
    FencedInVain,
    ParkedRaises,
    RevokedHost,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Budget {
    pub starts: u8,
    pub kills: u8,
    pub absences: u8,
    pub losses: u8,
    pub crashes: u8,
    pub deaths: u8,
    pub folds: u8,
    pub blanks: u8,
    pub writes: u8,
    pub discards: u8,
    pub flushes: u8,
    pub revokes: u8,
}

/// What is searched.
#[derive(Clone, Debug)]
pub struct Setup {
    pub slices: u8,
    pub regions: u8,
    pub formed: bool,
    pub twins: bool,
    pub api_unreachable: bool,
    pub checkpoints: bool,
    pub recovery: Option<u8>,
    pub voters: Option<Vec<SliceUid>>,
    pub budget: Budget,
    pub broken: Breakage,
}

/// Slices 0 and 1 hold data, 2 is the witness.
fn slice(number: u8) -> SliceUid {
    SliceUid(Uuid::from_u128(1 + u128::from(number)))
}

impl Setup {
    /// Two data members, a witness, one region; nothing happens.
    fn new(budget: Budget) -> Self {
        Self {
            slices: 3,
            regions: 1,
            formed: true,
            twins: false,
            api_unreachable: false,
            checkpoints: false,
            recovery: None,
            voters: None,
            budget,
            broken: Breakage::default(),
        }
    }

    /// A volume that was formed and is served by its first engine, with a host.
    fn served(&self) -> World {
        let quiet = Self {
            formed: false,
            budget: Budget {
                starts: 1,
                ..Budget::default()
            },
            broken: Breakage::default(),
            ..self.clone()
        };
        let mut world = World::new(&quiet);
        world.start(Pod::New, false, &quiet);
        world.settle(&quiet);
        let attach = Step::Attach(ProcessId(0));
        let mut world = world
            .after(attach, &quiet)
            .expect("the first engine serves");
        world.left = self.budget;
        world
    }
}

impl World {
    /// Goes on until nothing goes on by itself.
    fn settle(&mut self, setup: &Setup) {
        loop {
            let mut steps = Vec::new();
            self.internal_steps(&mut steps);
            let Some(next) = steps.into_iter().find_map(|step| self.after(step, setup)) else {
                return;
            };
            *self = next;
        }
    }
}
