//! The model: the core as it ships, with drives, a mirror and a host around it, searched in all
//! orders of steps. `docs/decisions/020-membership.md` says what it leaves out.

mod broken;
mod drive;
mod engine;
mod host;
mod mirror;
mod search;
mod steps;
mod variants;
mod world;

use crate::membership::Region;
use broken::Breakage;
use steps::{Memory, Pod, Step};
use uuid::Uuid;
use weft_spec::ids::SliceUid;
use world::World;

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
    WrongConfig,
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
    /// Hosts may be started anew.
    pub forgets: bool,
    /// The slice that may be replaced by an empty one.
    pub blanked: u8,
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
            forgets: false,
            blanked: 2,
            recovery: None,
            voters: None,
            budget,
            broken: Breakage::default(),
        }
    }

    /// A volume that was formed and is served by its first engine, with a host.
    fn served(&self) -> Script {
        let quiet = Self {
            formed: false,
            recovery: None,
            budget: Budget::ample(),
            broken: Breakage::default(),
            ..self.clone()
        };
        let mut world = World::new(&quiet);
        world.start(Pod::New, false, &quiet);
        let script = Script {
            world,
            setup: quiet,
        };
        script.settled().then(Step::Attach(FIRST, Memory::Kept))
    }
}

/// The process that serves at the beginning of each search.
const FIRST: ProcessId = ProcessId(0);

/// What has happened before a search begins.
#[derive(Clone)]
struct Script {
    world: World,
    setup: Setup,
}

impl Script {
    fn then(mut self, step: Step) -> Self {
        let next = self.world.after(step, &self.setup);
        self.world = next.unwrap_or_else(|| panic!("{step:?} does nothing"));
        self
    }

    /// A step that some rule may refuse.
    fn perhaps(mut self, step: Step) -> Self {
        let mut steps = Vec::new();
        self.world.steps(&self.setup, &mut steps);
        if steps.contains(&step) {
            self.world = self.world.after(step, &self.setup).unwrap_or(self.world);
        }
        self
    }

    /// Everything goes on until nothing goes on by itself.
    fn settled(self) -> Self {
        self.settled_but(|_| false)
    }

    /// The same, while nobody reaches a slice.
    fn settled_without(self, but: u8) -> Self {
        self.settled_but(|step| matches!(step, Step::Connect(_, to) if *to == slice(but)))
    }

    /// The same, but for these steps.
    fn settled_but(mut self, but: impl Fn(&Step) -> bool) -> Self {
        loop {
            let mut steps = Vec::new();
            self.world.internal_steps(&mut steps);
            steps.retain(|step| !but(step));
            let next = steps
                .into_iter()
                .find_map(|step| self.world.after(step, &self.setup));
            let Some(next) = next else { return self };
            self.world = next;
        }
    }

    /// From now on these rules are left out.
    fn leaving_out(mut self, broken: &Breakage) -> Self {
        self.setup.broken = broken.clone();
        for engine in self.world.engines.iter_mut().flatten() {
            std::sync::Arc::make_mut(engine).leave_out(broken);
        }
        self
    }

    /// The first member does not reach the second for so long that it goes on without it.
    fn second_left_out(self) -> Self {
        let lost = self.then(Step::Lose(FIRST, slice(1)));
        lost.then(Step::GiveUp(FIRST, slice(1))).settled_without(1)
    }

    /// A write is acknowledged, while nobody reaches the second member.
    fn written_without_second(self) -> Self {
        let written = self.then(Step::Write(Region(0), false));
        written.settled_without(1)
    }

    /// Begins a search here.
    fn begin(mut self, setup: &Setup) -> World {
        self.world.left = setup.budget;
        self.world.forced = setup.recovery.is_some();
        self.world
    }
}

impl Budget {
    fn ample() -> Self {
        Self {
            starts: 9,
            kills: 9,
            absences: 9,
            losses: 9,
            crashes: 9,
            deaths: 9,
            folds: 9,
            blanks: 9,
            writes: 9,
            discards: 9,
            flushes: 9,
            revokes: 9,
        }
    }
}
