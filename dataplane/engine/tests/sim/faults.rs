//! What goes wrong in a seed: how often messages and requests of media do, and what is done to
//! machines and processes meanwhile.

use crate::world::{Place, Simulation};
use std::time::Duration;
use tokio::time::sleep;

/// Of so many messages or requests one fails; 0 for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OneIn(pub u64);

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// A message takes at most so long.
    pub delay: Duration,
    /// The association ends with this request.
    pub request_lost: OneIn,
    /// The association ends instead of this answer.
    pub answer_lost: OneIn,
    /// The far end of an association is slow to see that it has to end: what comes meanwhile runs
    /// into the fence.
    pub slow_to_end: OneIn,
    /// A read of the medium fails.
    pub read: OneIn,
    /// A write to the medium fails.
    pub write: OneIn,
    /// A flush of the medium fails.
    pub flush: OneIn,
    /// Most time between two things done to machines; zero for none.
    pub every: Duration,
    /// Power is cut, too.
    pub power: bool,
    /// The media tear blocks at a power cut.
    pub tears: bool,
    /// Blocks of one drive become unreadable.
    pub spoils: bool,
}

impl Faults {
    /// Nothing fails; messages take their time.
    pub const NONE: Self = Self {
        delay: Duration::from_millis(2),
        request_lost: OneIn(0),
        answer_lost: OneIn(0),
        slow_to_end: OneIn(0),
        read: OneIn(0),
        write: OneIn(0),
        flush: OneIn(0),
        every: Duration::ZERO,
        power: false,
        tears: false,
        spoils: false,
    };

    /// A mixture by seed: some seeds have one kind of fault alone, so that it is not hidden by others.
    pub fn by_seed(mut below: impl FnMut(u64) -> u64) -> Self {
        let mut sometimes = |one_in: u64, least: u64, most: u64| match below(one_in) {
            0 => OneIn(least + below(most - least)),
            _ => OneIn(0),
        };
        let (request_lost, answer_lost) = (sometimes(2, 20, 400), sometimes(2, 20, 400));
        let (read, write) = (sometimes(5, 50, 500), sometimes(5, 100, 1000));
        let flush = sometimes(5, 20, 200);
        let delay = Duration::from_millis([1, 3, 10, 40][below(4) as usize]);
        let every = Duration::from_millis([0, 600, 2000, 6000][below(4) as usize]);
        let power = below(2) == 0;
        Self {
            delay,
            request_lost,
            answer_lost,
            slow_to_end: OneIn(below(3)),
            read,
            write,
            flush,
            every,
            power,
            tears: power && below(3) == 0,
            spoils: below(4) == 0,
        }
    }

    /// Whether a medium may have failed to give back what was written.
    pub fn spoil_media(&self) -> bool {
        self.tears || self.spoils || self.read.0 + self.write.0 + self.flush.0 > 0
    }
}

/// Does one thing after the other, until it is dropped.
pub async fn rage(simulation: &Simulation, every: Duration) {
    if every.is_zero() {
        return std::future::pending().await;
    }
    loop {
        sleep(simulation.world.time(every)).await;
        strike(simulation).await;
    }
}

async fn strike(simulation: &Simulation) {
    let Simulation {
        world,
        drives,
        operator,
        network,
        ..
    } = simulation;
    let drive = &drives[world.below(drives.len() as u64) as usize];
    let faults = world.faults();
    let back = world.time(Duration::from_secs(6));
    match world.below(15) {
        0 | 1 => drive.kill(back),
        2 => drive.kill_within(world.below(60), back),
        3 | 4 if faults.power => drive.cut_power(back),
        5 if faults.spoils => drives[0].spoil(),
        6 => network.cut_one(),
        7 | 8 => {
            let there = operator.place();
            let ways = [
                vec![(there, drive.place)],
                vec![(drive.place, there)],
                vec![(there, drive.place), (drive.place, there)],
            ];
            network.block(&ways[world.below(3) as usize], back * 2);
        }
        9 => network.block(&[(Place::HOST, operator.place())], back),
        10 => operator.kill_engine(back),
        11 | 12 => operator.take_over(world.time(Duration::from_secs(8))),
        13 => operator.be_away(back * 2),
        _ => operator.attach_again(),
    }
}
