use super::support::*;
use crate::layers::mirror::*;
use crate::rebuild::*;
use weft_block::{Disk, ErrorKind, Fault, Operation};
use weft_drive::store::REGION;
use weft_spec::drive::Config;
use weft_verify::random::Random;

#[tokio::test]
async fn an_interruption_costs_what_was_under_way_and_what_was_missed() {
    const DIRTY: u64 = 300;
    let rig = Rig::new(2, &[0]).await;
    for chunk in 0..DIRTY {
        rig.write(chunk, (chunk % 250) as u8 + 1).await;
    }
    let mut frontier = Frontier::full();
    let (mut copied, mut interruptions) = (0, 0);
    loop {
        rig.compose(2 + interruptions, &[0], &[1]).await;
        // The third write is done, but the answer is lost, and with it the target.
        let mut writes = 0;
        let is_last = interruptions == 10;
        rig.faults[1].script(move |request| {
            writes += u64::from(request.operation == Operation::Write);
            match writes > 2 && !is_last {
                true => Fault::Lie(ErrorKind::Gone),
                false => Fault::None,
            }
        });
        let mut options = rig.options(1, &[0]);
        options.limits.pieces = 1;
        let rebuild = Rebuild::new(rig.mirror.clone(), options, frontier);
        let done = rebuild.run().await;
        copied += rebuild.progress().borrow().written;
        frontier = rebuild.frontier();
        match done {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, RebuildError::Target(_)), "{error}"),
        }
        interruptions += 1;
        rig.write(interruptions, 0xaa).await;
        rig.faults[1].script(|_| Fault::None);
    }
    assert_eq!(interruptions, 10);
    rig.assert_equal(0, 1).await;
    let region = REGION / CHUNK;
    let most = DIRTY + interruptions * (1 + region);
    assert!(
        copied <= most * CHUNK,
        "{} of {most} chunks",
        copied / CHUNK
    );
}

#[tokio::test]
async fn a_target_that_fails_at_random_is_equal_in_the_end_and_nobody_else_notices() {
    for seed in 0..6 {
        let rig = Rig::new(2, &[0, 1]).await;
        let mut random = Random::new(seed);
        for _ in 0..40 {
            rig.write(random.below(CHUNKS), random.below(256) as u8)
                .await;
        }
        rig.compose(2, &[0], &[]).await;
        let mut frontier = Frontier::new(Config(2));
        let mut config = 2;
        loop {
            for _ in 0..10 {
                let chunk = random.below(CHUNKS - 4);
                match random.below(3) {
                    0 => rig.discard(chunk, 1 + random.below(4)).await,
                    _ => rig.write(chunk, random.below(256) as u8).await,
                }
            }
            config += 1;
            rig.compose(config, &[0], &[1]).await;
            let mut faults = Random::new(seed ^ config << 32);
            let limit = config;
            rig.faults[1].script(move |_| match faults.below(10 * limit) {
                0 => Fault::Fail(ErrorKind::MediaWrite),
                _ => Fault::None,
            });
            let rebuild = rig.rebuild(1, &[0], frontier);
            let beside = async {
                for _ in 0..20 {
                    rig.write(random.below(CHUNKS), random.below(256) as u8)
                        .await;
                }
            };
            let (done, ()) = tokio::join!(rebuild.run(), beside);
            frontier = rebuild.frontier();
            rig.faults[1].script(|_| Fault::None);
            // Step 3 of how a rebuild is driven.
            rig.mirror.hold(Hold::Changes);
            let mut report = rig.mirror.report();
            let drained = report.wait_for(|report| report.flow == Flow::Drained);
            let failed = !drained.await.unwrap().failed.is_empty();
            if done.is_ok() && !failed {
                break;
            }
            rig.compose(config, &[0], &[]).await;
        }
        rig.faults[1].flush().await.unwrap();
        rig.compose(config + 1, &[0, 1], &[]).await;
        rig.assert_equal(0, 1).await;
    }
}
