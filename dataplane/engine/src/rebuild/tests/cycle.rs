//! Members are lost and rebuilt while the volume is used: the oracle judges every read.

use super::support::*;
use crate::layers::mirror::*;
use crate::rebuild::*;
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{BLOCK, Disk, ErrorKind, Fault, Operation};
use weft_spec::drive::Config;
use weft_verify::history::Beginning;
use weft_verify::random::Random;
use weft_verify::{History, Report, VolumeMark, Workload};

/// Of members, for each seed.
const LOSSES: u32 = 4;

/// What decides about the members here: one is lost at a time, and comes back.
struct Membership {
    rig: Arc<Rig>,
    random: Random,
    config: u64,
    in_sync: Vec<usize>,
    losses: u32,
}

impl Membership {
    fn next(&mut self) -> u64 {
        self.config += 1;
        self.config
    }

    /// Makes one fail some requests from now, in one of the ways there are.
    fn break_one(&mut self) -> usize {
        let victim = self.in_sync[self.random.below(self.in_sync.len() as u64) as usize];
        let mut left = self.random.below(60);
        let kinds = [ErrorKind::Gone, ErrorKind::MediaWrite, ErrorKind::NoSpace];
        let kind = kinds[self.random.below(3) as usize];
        let lies = self.random.below(2) == 0;
        self.rig.faults[victim].script(move |request| {
            let is_change = request.operation != Operation::Read;
            left = left.saturating_sub(u64::from(is_change));
            match (is_change && left == 0, lies) {
                (false, _) => Fault::None,
                (true, true) => Fault::Lie(kind),
                (true, false) => Fault::Fail(kind),
            }
        });
        victim
    }

    async fn failed(&self) -> bool {
        let mut report = self.rig.mirror.report();
        let drained = report.wait_for(|report| report.flow == Flow::Drained);
        !drained.await.unwrap().failed.is_empty()
    }

    /// Under a load that does not end before.
    async fn run(&mut self) {
        while self.losses < LOSSES {
            let victim = self.break_one();
            assert!(self.failed().await);
            self.losses += 1;
            self.in_sync.retain(|member| *member != victim);
            let since = self.next();
            self.rig.compose(since, &self.in_sync, &[]).await;
            self.rig.faults[victim].script(|_| Fault::None);
            // A while without it.
            for _ in 0..self.random.below(200) {
                tokio::task::yield_now().await;
            }
            self.bring_back(victim, Frontier::new(Config(since))).await;
        }
    }

    async fn bring_back(&mut self, member: usize, mut frontier: Frontier) {
        loop {
            let config = self.next();
            self.rig.compose(config, &self.in_sync, &[member]).await;
            // Now and then it is lost again meanwhile.
            let mut left = self.random.below(200);
            self.rig.faults[member].script(move |_| {
                left = left.saturating_sub(1);
                match left {
                    1 => Fault::Lie(ErrorKind::Gone),
                    _ => Fault::None,
                }
            });
            let mut options = self.rig.options(member, &self.in_sync);
            // The load is over before a rebuild that rests is.
            options.limits.yields = 0;
            let rebuild = Rebuild::new(self.rig.mirror.clone(), options, frontier);
            let done = rebuild.run().await;
            frontier = rebuild.frontier();
            self.rig.mirror.hold(Hold::Changes);
            let failed = self.failed().await;
            let flushed = self.rig.faults[member].flush().await;
            self.rig.faults[member].script(|_| Fault::None);
            if done.is_ok() && flushed.is_ok() && !failed {
                break;
            }
        }
        self.in_sync.push(member);
        let config = self.next();
        self.rig.compose(config, &self.in_sync, &[]).await;
    }
}

#[tokio::test]
async fn members_that_come_and_go_under_load_lose_nothing() {
    for seed in 0..3 {
        let rig = Arc::new(Rig::new(3, &[0, 1, 2]).await);
        let volume = VolumeMark(Uuid::from_u128(seed.into()));
        let history = Arc::new(Mutex::new(History::new(volume, Beginning::Zeros)));
        let load = Workload {
            longest: 24,
            ..Workload::new(seed, CHUNKS * CHUNK / BLOCK / 8, u64::MAX)
        };
        let enough = CancellationToken::new();
        let running = tokio::spawn({
            let (rig, history, enough) = (rig.clone(), history.clone(), enough.clone());
            async move {
                let is_enough = |_: &Report| enough.is_cancelled();
                load.run(&*rig.mirror, &history, is_enough).await
            }
        });
        let mut membership = Membership {
            rig: rig.clone(),
            random: Random::new(seed),
            config: 1,
            in_sync: vec![0, 1, 2],
            losses: 0,
        };
        membership.run().await;
        enough.cancel();
        let report = running.await.unwrap();
        assert_eq!(
            (report.failed, report.violations),
            (0, vec![]),
            "seed {seed}"
        );
        rig.faults
            .iter()
            .for_each(|fault| fault.script(|_| Fault::None));
        let last = load.look(&*rig.mirror, &history).await;
        assert_eq!((last.failed, last.violations), (0, vec![]), "seed {seed}");
        let in_sync = &membership.in_sync;
        for other in &in_sync[1..] {
            rig.assert_equal(in_sync[0], *other).await;
        }
    }
}
