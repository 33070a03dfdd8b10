//! One seed from its beginning to its judgement.

use crate::drive::Drive;
use crate::faults::{Faults, rage};
use crate::host::Host;
use crate::lies::Lie;
use crate::network::Network;
use crate::operator::Operator;
use crate::oracle::Oracle;
use crate::world::{Simulation, World, say};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};
use weft_spec::drive::MemberState;
use weft_spec::engine::EngineState;
use weft_verify::random::Random;

/// What is simulated.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub seed: u64,
    pub is_printed: bool,
    /// No faults at all.
    pub calm: bool,
    /// Told by every drive.
    pub lie: Lie,
}

impl Setting {
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            is_printed: false,
            calm: false,
            lie: Lie::None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub violations: Vec<String>,
    /// Of the trace.
    pub digest: u64,
    /// Requests of the host that were answered.
    pub requests: u64,
    /// Of the virtual time.
    pub took: Duration,
}

/// Without faults everything is in-sync again after so long.
const CONVERGES: Duration = Duration::from_secs(300);
/// Then requests that are under way are answered within this.
const DRAINS: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(250);

/// Runs it. Never two on one thread at a time.
pub fn run(setting: Setting) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(live(setting))
}

async fn live(setting: Setting) -> Outcome {
    let mut random = Random::new(setting.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let faults = match setting.calm {
        true => Faults::NONE,
        false => Faults::by_seed(|limit| random.below(limit)),
    };
    let members = 2 + random.below(2) as usize;
    let world = World::new(random, faults, setting.is_printed);
    say!(
        world,
        "seed {}: {members} members, {faults:?}",
        setting.seed
    );
    let began = Instant::now();
    let (simulation, oracle) = simulation(&world, members, setting.lie);
    let (workers, requests) = (2 + world.below(4), 10 + world.below(30));
    let pause = Duration::from_millis([20, 200, 1000][world.below(3) as usize]);
    let work = simulation.host.clone();
    let mut working = tokio::spawn(async move { work.work(workers, requests, pause).await });
    let storm = Duration::from_secs(5 + world.below(40));
    tokio::select! {
        biased;
        done = &mut working => {
            done.unwrap();
            working = tokio::spawn(async {});
        }
        () = rage(&simulation, faults.every) => {}
        () = sleep(storm) => {}
    }
    judge(&simulation, &oracle, working).await;
    let requests = *simulation.host.done.lock().unwrap();
    Outcome {
        violations: world.violations(),
        digest: world.trace.digest(),
        requests,
        took: began.elapsed(),
    }
}

fn simulation(world: &Arc<World>, members: usize, lie: Lie) -> (Simulation, Arc<Oracle>) {
    let network = Network::new(world.clone());
    let oracle = Oracle::new(world.clone());
    let drives: Vec<_> = (0..3)
        .map(|number| {
            let is_witness = number >= members;
            let (world, network) = (world.clone(), network.clone());
            Drive::new(number, is_witness, lie, world, network, oracle.clone())
        })
        .collect();
    let host = Host::new(world.clone(), network.clone(), oracle.clone());
    let (data, witnesses) = drives.split_at(members);
    let operator = Operator::start(
        world.clone(),
        network.clone(),
        host.clone(),
        data.to_vec(),
        witnesses.to_vec(),
    );
    let simulation = Simulation {
        world: world.clone(),
        network,
        members,
        drives,
        operator,
        host,
    };
    (simulation, oracle)
}

/// Heals everything, waits until everything is in-sync and answered, and looks.
async fn judge(
    simulation: &Simulation,
    oracle: &Arc<Oracle>,
    working: tokio::task::JoinHandle<()>,
) {
    let Simulation {
        world,
        network,
        drives,
        operator,
        host,
        ..
    } = simulation;
    say!(world, "everything is healed");
    world.set_faults(Faults::NONE);
    network.heal();
    operator.be_there();
    drives.iter().for_each(|drive| drive.heal());
    match timeout(DRAINS, working).await {
        Ok(worked) => worked.unwrap(),
        Err(_) => {
            return world.wrong("requests are not answered after everything is healed".into());
        }
    }
    // Blocks that no member can give keep others from being made equal, until they are written.
    while !timeout(DRAINS, host.look()).await.unwrap_or_else(|_| {
        world.wrong("not everything can be read".into());
        true
    }) {}
    if timeout(CONVERGES, converged(simulation)).await.is_err() {
        return world.wrong(format!(
            "not in-sync again: {:?}",
            operator.pod().status.borrow()
        ));
    }
    host.look().await;
    compare(simulation).await;
    let mut members = simulation.data().iter();
    if oracle.recorded_loss().is_some() && members.all(|drive| drive.never_lost()) {
        world.wrong("a loss is recorded though no member has lost anything".into());
    }
}

/// Until the operator has done everything and the engine of now says that all members are current.
async fn converged(simulation: &Simulation) {
    let operator = &simulation.operator;
    loop {
        let pod = operator.pod();
        let status = pod.status.borrow().clone();
        let is_whole = status.is_some_and(|status| {
            let current = status
                .members
                .iter()
                .filter(|member| member.state == MemberState::Current);
            let connected = status.drives.iter().all(|wire| wire.connected);
            let serves = status.state == EngineState::Serving && connected;
            serves && current.count() == simulation.members
        });
        let all_run = simulation.drives.iter().all(|drive| drive.runs());
        if is_whole && all_run && operator.is_idle() {
            return;
        }
        if pod.has_ended() && operator.is_idle() {
            operator.take_over(LOOK);
        }
        sleep(LOOK).await;
    }
}

/// Every member has the same, as far as it gives it at all.
async fn compare(simulation: &Simulation) {
    let mut members = vec![];
    for drive in simulation.data() {
        members.push(drive.blocks().await);
    }
    let Some((first, others)) = members.split_first() else {
        return;
    };
    for (number, other) in others.iter().enumerate() {
        for (block, (one, two)) in first.iter().zip(other).enumerate() {
            let unequal = matches!((one, two), (Some(one), Some(two)) if one != two);
            let refused = one.is_none() || two.is_none();
            if unequal || refused && !simulation.world.spoils_media() {
                let what = if unequal { "differ" } else { "cannot be read" };
                let with = number + 1;
                simulation
                    .world
                    .wrong(format!("block {block} of members 0 and {with}: {what}"));
            }
        }
    }
}
