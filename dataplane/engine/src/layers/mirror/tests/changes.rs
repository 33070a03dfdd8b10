use super::support::*;
use crate::layers::mirror::*;
use crate::writes::WriteNumber;
use bytes::{Bytes, BytesMut};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::timeout;
use uuid::Uuid;
use weft_block::{BLOCK, Disk, Fault, Operation, Stamp, Write};
use weft_verify::history::Beginning;
use weft_verify::random::Random;
use weft_verify::{History, VolumeMark, Workload};

/// Delays some requests of every member by a few turns of the runtime, so that members see requests
/// in flight in different orders.
fn reorder(rig: &Rig, seed: u64) {
    for (at, member) in rig.members.iter().enumerate() {
        let mut random = Random::new(seed ^ (at as u64) << 32);
        member.script(move |_| match random.below(4) {
            0 => Fault::Delay(Duration::from_millis(random.below(5))),
            _ => Fault::None,
        });
    }
}

#[tokio::test(start_paused = true)]
async fn overlapping_changes_leave_the_members_equal_byte_for_byte() {
    const ROUNDS: u64 = 100_000;
    let rig = Rig::new(2);
    reorder(&rig, 1);
    let mut random = Random::new(7);
    let mut tasks = tokio::task::JoinSet::new();
    for round in 0..ROUNDS {
        let mirror = rig.mirror.clone();
        // Eight blocks, so that nearly all of them overlap.
        let count = 1 + random.below(3);
        let offset = random.below(8 - count + 1) * BLOCK;
        let kind = random.below(10);
        tasks.spawn(async move {
            let length = count * BLOCK;
            let byte = round as u8;
            match kind {
                0 => mirror.discard(offset, length).await,
                1 => mirror.write_zeroes(offset, length).await,
                _ => {
                    let data = Bytes::from(vec![byte; length as usize]);
                    mirror.write(offset, data, Write::Cached).await
                }
            }
        });
        if tasks.len() >= 16 {
            tasks.join_next().await.unwrap().unwrap().unwrap();
        }
        if round % 1000 == 999 {
            while let Some(done) = tasks.join_next().await {
                done.unwrap().unwrap();
            }
            assert!(rig.is_equal(), "after round {round}");
            rig.members.iter().for_each(|member| drop(member.noted()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reads_beside_changes_are_what_the_oracle_allows() {
    for seed in 0..20 {
        let rig = Rig::new(3);
        reorder(&rig, seed);
        let volume = VolumeMark(Uuid::from_u128(seed.into()));
        let history = Mutex::new(History::new(volume, Beginning::Zeros));
        let workload = Workload {
            longest: 8,
            ..Workload::new(seed, BLOCKS / 2, 1000)
        };
        let report = workload.run(&*rig.mirror, &history, |_| false).await;
        assert_eq!((report.failed, report.violations), (0, vec![]), "{seed}");
        let report = workload.look(&*rig.mirror, &history).await;
        assert_eq!((report.failed, report.violations), (0, vec![]), "{seed}");
        assert!(rig.is_equal());
    }
}

#[tokio::test]
async fn a_change_is_acknowledged_when_the_last_member_has_it() {
    let rig = Rig::new(3);
    rig.members[1].holds(Operation::Write);
    let write = rig.write(5, 9);
    settle().await;
    assert!(!write.is_finished());
    assert_eq!((rig.members[0].byte(5), rig.members[2].byte(5)), (9, 9));
    rig.members[1].works();
    write.await.unwrap();
    assert_eq!(rig.members[1].byte(5), 9);
}

#[tokio::test]
async fn a_discard_reads_as_zeros_on_every_member() {
    let rig = Rig::new(2);
    rig.write(3, 9).await.unwrap();
    // Such a disk does nothing for a discard.
    rig.mirror.discard(3 * BLOCK, BLOCK).await.unwrap();
    assert_eq!(rig.read(3).await.unwrap(), 0);
    assert!(rig.is_equal());
}

#[tokio::test]
async fn every_change_says_its_config_and_a_number_that_grows() {
    let rig = Rig::waiting(2);
    rig.compose(7, &[0, 1], &[]).unwrap();
    rig.write(1, 1).await.unwrap();
    rig.mirror.write_zeroes(0, BLOCK).await.unwrap();
    let data = block_of(2);
    rig.mirror.write(0, data, Write::Durable).await.unwrap();
    for member in &rig.members {
        let noted = member.noted();
        let stamps: Vec<_> = noted.iter().map(|note| note.stamp).collect();
        let stamp = |number| Stamp {
            config: 7,
            number,
            checkpoint: 0,
        };
        assert_eq!(stamps, [stamp(1), stamp(2), stamp(3)]);
        assert!(noted[2].durable, "FUA reaches every member");
    }
}

#[tokio::test]
async fn a_checkpoint_has_no_change_under_way_below_it() {
    let rig = Rig::new(2);
    let checkpoints = |rig: &Rig| {
        let noted = rig.members[0].noted();
        let stamps = noted.iter().map(|note| note.stamp.checkpoint);
        stamps.collect::<Vec<_>>()
    };
    // Number 1 is held at one member, 2 is acknowledged.
    rig.members[1].script(|request| match request.offset {
        0 if request.operation == Operation::Write => Fault::Hold,
        _ => Fault::None,
    });
    let first = rig.write(0, 1);
    settle().await;
    rig.write(1, 2).await.unwrap();
    rig.flush().await.unwrap().unwrap();
    rig.write(2, 3).await.unwrap();
    assert_eq!(checkpoints(&rig), [0, 0, 0, 0]);
    // It is acknowledged while a flush is under way that began before.
    rig.members[0].holds(Operation::Flush);
    let flush = rig.flush();
    settle().await;
    rig.members[1].works();
    first.await.unwrap();
    rig.members[0].works();
    flush.await.unwrap().unwrap();
    rig.write(3, 4).await.unwrap();
    assert_eq!(checkpoints(&rig), [0, 0], "the flush may have missed it");
    rig.flush().await.unwrap().unwrap();
    rig.write(4, 5).await.unwrap();
    assert_eq!(checkpoints(&rig), [0, 4]);
    assert_eq!(rig.mirror.checkpoint(), WriteNumber(4));
}

#[tokio::test]
async fn a_flush_that_one_member_has_not_done_makes_no_checkpoint() {
    let rig = Rig::new(2);
    rig.write(0, 1).await.unwrap();
    rig.members[1].holds(Operation::Flush);
    let flush = rig.flush();
    settle().await;
    assert!(!flush.is_finished());
    assert_eq!(rig.mirror.checkpoint(), WriteNumber(0));
    rig.members[1].works();
    flush.await.unwrap().unwrap();
    assert_eq!(rig.mirror.checkpoint(), WriteNumber(1));
}

#[tokio::test]
async fn a_target_gets_changes_and_no_checkpoint_and_no_flush() {
    let rig = Rig::waiting(2);
    rig.compose(1, &[0], &[1]).unwrap();
    rig.write(0, 1).await.unwrap();
    rig.flush().await.unwrap().unwrap();
    rig.write(1, 2).await.unwrap();
    assert_eq!(rig.members[0].noted()[2].stamp.checkpoint, 1);
    let noted = rig.members[1].noted();
    let numbers: Vec<_> = noted.iter().map(|note| note.stamp.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(noted.iter().all(|note| note.stamp.checkpoint == 0));
}

#[tokio::test]
async fn a_change_that_nobody_waits_for_any_more_is_done_all_the_same() {
    let rig = Rig::new(2);
    rig.members[1].holds(Operation::Write);
    let write = rig.write(0, 7);
    settle().await;
    write.abort();
    settle().await;
    let later = rig.write(0, 8);
    settle().await;
    assert!(!later.is_finished(), "the range is still held");
    rig.members[1].works();
    later.await.unwrap();
    assert!(rig.is_equal());
    assert_eq!(rig.members[1].noted().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_says_when_it_has_gone_idle() {
    let rig = Rig::new(1);
    let quiet = Duration::from_secs(1);
    let mirror = rig.mirror.clone();
    let mut idle = tokio::spawn(async move { mirror.gone_idle(quiet).await });
    let early = timeout(10 * quiet, &mut idle).await;
    assert!(early.is_err(), "nothing was written");
    rig.write(0, 1).await.unwrap();
    timeout(2 * quiet, idle).await.unwrap().unwrap();
}

#[tokio::test]
async fn it_has_what_all_in_sync_members_have_and_grows() {
    let rig = Rig::waiting(2);
    let size = BLOCKS * BLOCK;
    rig.members[1].memory.grow(3 * size);
    rig.compose(1, &[0, 1], &[]).unwrap();
    assert_eq!(rig.mirror.size(), size);
    rig.members[0].memory.grow(2 * size);
    assert_eq!(rig.mirror.size(), size, "nobody was told");
    assert_eq!(rig.mirror.measure(), 2 * size);
    let data = block_of(1);
    rig.mirror.write(size, data, Write::Cached).await.unwrap();
    let mut into = BytesMut::zeroed(BLOCK as usize);
    let beyond = rig.mirror.read(2 * size, &mut into).await.unwrap_err();
    assert_eq!(beyond.kind(), weft_block::ErrorKind::OutOfRange);
    // A member that is smaller than what hosts have seen cannot be in-sync.
    let small = Noted::new(9, BLOCKS);
    rig.mirror.hold(Hold::Changes);
    let composition = Composition {
        config: weft_spec::drive::Config(2),
        in_sync: vec![small.member()],
        targets: vec![],
        leader: small.slice,
    };
    let refused = rig.mirror.compose(composition, []);
    assert_eq!(refused, Err(ComposeError::TooSmall(small.slice)));
}

#[tokio::test]
async fn before_the_first_composition_everything_waits() {
    let rig = Rig::waiting(1);
    let flush = rig.flush();
    let write = rig.write(0, 1);
    settle().await;
    assert!(!flush.is_finished() && !write.is_finished());
    assert_eq!((rig.mirror.size(), rig.report()), (0, Report::default()));
}
