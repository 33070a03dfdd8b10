//! Row 2: the engine is killed at each command that makes something of the membership durable,
//! before the drive has it and before its answer is heard.

use super::load::Load;
use super::mirrored::{Mirrored, records};
use super::{Row, Seen};
use crate::killpoint::{Side, Step};
use crate::namespace;
use crate::relay::Relay;
use crate::setup::{Nth, Setup};
use crate::wait::until_async;
use anyhow::{Result, ensure};
use rustix::process::Signal;
use std::collections::BTreeMap;
use weft_spec::ids::DocumentGeneration;

pub const ROW: Row = Row {
    number: 2,
    injected: "engine killed at every fence, record, mark and word on regions, before it and after it: in a start, a member's loss, its return",
    expected: "each restart serves, with the members that have every write",
    run,
};

const MEMBER: Nth = Nth(1);
/// Answers after which an engine that starts has told all regions equal.
const STARTED: u64 = 1000;

/// What the engine is killed in.
#[derive(Clone, Copy, Debug)]
enum Scene {
    /// With a newer document, which is to be marked.
    Start,
    Loss,
    Return,
}

impl Scene {
    /// What happens in it for certain.
    fn steps(self) -> &'static [Step] {
        match self {
            Self::Start => &[Step::Fence, Step::Record, Step::Mark, Step::Equal],
            Self::Loss => &[Step::Record],
            Self::Return => &[Step::Fence, Step::Record, Step::Equal],
        }
    }
}

/// How often it was killed, by what.
type Kills = BTreeMap<Step, u64>;

struct Stage {
    document: DocumentGeneration,
    relay: Relay,
    mirrored: Mirrored,
    load: Load,
}

fn run() -> Result<Seen> {
    let mirrored = Mirrored::of(Setup::mirrored().relayed());
    namespace::runtime().block_on(async {
        let relay = Relay::start(&mirrored.setup).await;
        let load = Load::start(&mirrored.setup, 1).await;
        let mut stage = Stage {
            document: mirrored.setup.engine_document(1).generation,
            relay,
            mirrored,
            load,
        };
        let mut told = vec![];
        for scene in [Scene::Start, Scene::Loss, Scene::Return] {
            let mut kills = Kills::new();
            for side in [Side::Before, Side::After] {
                stage.play_to_its_end(scene, side, &mut kills).await;
            }
            let all = scene.steps().iter().all(|step| kills.contains_key(step));
            ensure!(all, "not killed at each of {:?}: {kills:?}", scene.steps());
            told.push(format!("{scene:?} {kills:?}"));
        }
        stage.load.progress(500).await;
        stage
            .load
            .finish(&format!("killed in {}", told.join(", ")))
            .await
    })
}

impl Stage {
    /// Again and again, killed one step later each time, until there is none left.
    async fn play_to_its_end(&mut self, scene: Scene, side: Side, kills: &mut Kills) {
        for nth in 1.. {
            self.load.progress(100).await;
            let Some(step) = self.play(scene, nth, side).await else {
                return;
            };
            *kills.entry(step).or_default() += 1;
        }
    }

    /// Gives the step at which it was killed, if there were so many.
    async fn play(&mut self, scene: Scene, nth: u64, side: Side) -> Option<Step> {
        if matches!(scene, Scene::Return) {
            self.mirrored.lose(MEMBER).await;
            self.load.progress(100).await;
        }
        let (answered, before) = (self.load.answered(), records(&self.mirrored.engine));
        self.relay.point().arm(nth, side);
        match scene {
            Scene::Start => {
                self.write_newer_document();
                self.mirrored.engine.kill_worker();
            }
            Scene::Loss => self.mirrored.kill(MEMBER),
            Scene::Return => self.mirrored.start_again(MEMBER),
        }
        let out: &[Nth] = match scene {
            Scene::Loss => &[MEMBER],
            Scene::Start | Scene::Return => &[],
        };
        let is_over = || {
            let recorded = records(&self.mirrored.engine) > before && self.mirrored.out() == out;
            recorded && self.load.answered() > answered + STARTED
        };
        let what = format!("{scene:?}: step {nth}, or no such step");
        let held = until_async(&what, || match self.relay.point().holds() {
            Some((_, step)) => Some(Some(step)),
            None => is_over().then_some(None),
        });
        let held = held.await;
        let before = records(&self.mirrored.engine);
        if held.is_some() {
            self.mirrored.engine.signal_worker(Signal::KILL);
        }
        self.relay.point().disarm();
        if held.is_some() {
            let what = format!("a record after a kill at {held:?} {side:?}");
            let again = || (records(&self.mirrored.engine) > before).then_some(());
            until_async(&what, again).await;
        }
        self.mirrored.goes_on_without(out).await;
        self.load.progress(100).await;
        if matches!(scene, Scene::Loss) {
            self.mirrored.bring_back(MEMBER).await;
        }
        held
    }

    /// For the next engine that starts.
    fn write_newer_document(&mut self) {
        self.document.0 += 1;
        let setup = &self.mirrored.setup;
        let mut document = setup.engine_document(1);
        document.generation = self.document;
        setup.write("engine-1.json", &document);
    }
}
