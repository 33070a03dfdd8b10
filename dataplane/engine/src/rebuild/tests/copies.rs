use super::support::*;
use crate::layers::mirror::*;
use crate::rebuild::*;
use bytes::Bytes;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use uuid::Uuid;
use weft_block::{BLOCK, Disk, ErrorKind, Fault, Operation, Stamp, Write};
use weft_spec::drive::Config;
use weft_verify::history::Beginning;
use weft_verify::{History, VolumeMark, Workload};

#[tokio::test]
async fn a_full_copy_takes_what_is_there_and_sparse_stays_sparse() {
    let rig = Rig::new(2, &[0]).await;
    for chunk in [0, 1, 17, 200, CHUNKS - 1] {
        rig.write(chunk, chunk as u8 + 1).await;
    }
    // A block in the middle of a chunk.
    let data = Bytes::from(vec![9; BLOCK as usize]);
    let at = 50 * CHUNK + 3 * BLOCK;
    rig.mirror.write(at, data, Write::Cached).await.unwrap();
    rig.discard(1, 1).await;
    rig.compose(2, &[0], &[1]).await;
    let rebuild = rig.rebuild(1, &[0], Frontier::full());
    rebuild.run().await.unwrap();
    rig.assert_equal(0, 1).await;
    assert_eq!((rig.slices[0].chunks(), rig.slices[1].chunks()), (5, 5));
    let progress = *rebuild.progress().borrow();
    assert_eq!(progress.stage, Stage::Done);
    assert_eq!(
        (progress.passed, progress.size),
        (CHUNKS * CHUNK, CHUNKS * CHUNK)
    );
    assert_eq!(progress.written, 5 * CHUNK);
}

#[tokio::test]
async fn a_full_copy_leaves_nothing_of_what_the_target_had() {
    let rig = Rig::new(2, &[1]).await;
    for chunk in 0..CHUNKS {
        rig.write(chunk, 0xee).await;
    }
    rig.compose(2, &[0], &[]).await;
    rig.write(5, 1).await;
    rig.compose(3, &[0], &[1]).await;
    rig.rebuild(1, &[0], Frontier::full()).run().await.unwrap();
    rig.assert_equal(0, 1).await;
    assert_eq!(rig.slices[1].chunks(), 1);
}

#[tokio::test]
async fn a_member_that_returns_gets_what_it_missed_and_no_more() {
    let rig = Rig::new(2, &[0, 1]).await;
    for chunk in 0..200 {
        rig.write(chunk, 1).await;
    }
    rig.mirror.flush().await.unwrap();
    // So that the checkpoint reaches both, and its regions cool.
    rig.write(0, 2).await;
    rig.mirror.flush().await.unwrap();
    rig.slices[1]
        .store
        .checkpoint(&rig.slices[1].slice, PAIR, u64::MAX);
    rig.slices[1].store.close().await.unwrap();
    assert_eq!(
        rig.slices[1].store.hot_count(&rig.slices[1].slice).regions,
        0
    );
    rig.compose(2, &[0], &[]).await;
    for chunk in [3, 90, 91, 300] {
        rig.write(chunk, 7).await;
    }
    rig.discard(100, 3).await;
    rig.compose(3, &[0], &[1]).await;
    let rebuild = rig.rebuild(1, &[0], Frontier::new(Config(2)));
    rebuild.run().await.unwrap();
    rig.assert_equal(0, 1).await;
    assert_eq!(rig.slices[0].chunks(), rig.slices[1].chunks());
    let progress = *rebuild.progress().borrow();
    assert_eq!((progress.written, progress.zeroed), (4 * CHUNK, 3 * CHUNK));
}

#[tokio::test]
async fn what_only_the_target_has_is_undone_by_its_own_hot_set() {
    let rig = Rig::new(2, &[0, 1]).await;
    rig.write(20, 1).await;
    // A write that reached the target alone, under a config before it was lost: its engine died.
    let stamp = Stamp {
        config: 1,
        number: 77,
        checkpoint: 0,
    };
    let data = Bytes::from(vec![0xee; CHUNK as usize]);
    let at = 20 * CHUNK;
    let alone = rig.slices[1].write_stamped(at, data, Write::Cached, stamp);
    alone.await.unwrap();
    rig.compose(2, &[0], &[]).await;
    rig.compose(3, &[0], &[1]).await;
    let rebuild = rig.rebuild(1, &[0], Frontier::new(Config(2)));
    rebuild.run().await.unwrap();
    rig.assert_equal(0, 1).await;
    // It is told that these are equal, and cools them.
    rig.slices[1].store.close().await.unwrap();
    let hot = rig.slices[1].store.hot_count(&rig.slices[1].slice);
    assert_eq!(hot.regions, 0);
}

#[tokio::test(start_paused = true)]
async fn writes_beside_a_rebuild_are_in_both_when_it_ends() {
    for seed in 0..3 {
        let rig = Rig::new(2, &[0]).await;
        let volume = VolumeMark(Uuid::from_u128(7));
        let history = Mutex::new(History::new(volume, Beginning::Zeros));
        let blocks = CHUNKS * CHUNK / BLOCK / 4;
        let load = |seed, requests| Workload {
            longest: 40,
            ..Workload::new(seed, blocks, requests)
        };
        let before = load(seed, 300).run(&*rig.mirror, &history, |_| false).await;
        assert_eq!(before.violations, []);
        rig.compose(2, &[0], &[1]).await;
        let rebuild = rig.rebuild(1, &[0], Frontier::full());
        let load = load(seed + 100, 1500);
        let beside = load.run(&*rig.mirror, &history, |_| false);
        let (rebuilt, beside) = tokio::join!(rebuild.run(), beside);
        rebuilt.unwrap();
        assert_eq!((beside.failed, beside.violations), (0, vec![]));
        rig.assert_equal(0, 1).await;
        // The other way round: what the target has is what the oracle expects.
        rig.faults[1].flush().await.unwrap();
        rig.compose(3, &[1], &[]).await;
        let last = load.look(&*rig.mirror, &history).await;
        assert_eq!((last.failed, last.violations), (0, vec![]));
    }
}

#[tokio::test]
async fn a_target_that_does_not_keep_what_it_takes_is_found_out() {
    let rig = Rig::new(2, &[0]).await;
    rig.write(3, 1).await;
    rig.compose(2, &[0], &[1]).await;
    rig.slices[1].lies.store(true, Ordering::Relaxed);
    let rebuild = rig.rebuild(1, &[0], Frontier::full());
    let differs = rebuild.run().await.unwrap_err();
    assert!(matches!(differs, RebuildError::Differs(span) if span.start == 3 * CHUNK));
    rig.write(4, 1).await;
}

#[tokio::test]
async fn a_block_that_one_source_lacks_comes_from_another_and_one_that_all_lack_is_told() {
    let rig = Rig::new(3, &[0, 1]).await;
    rig.write(3, 1).await;
    rig.compose(2, &[0, 1], &[2]).await;
    let lacks = |at: usize| {
        rig.faults[at].script(|request| {
            let wrong = 3 * CHUNK + BLOCK;
            let touches = request.offset <= wrong && wrong < request.offset + request.length;
            match request.operation {
                Operation::Read if touches => Fault::Fail(ErrorKind::MediaRead),
                _ => Fault::None,
            }
        });
    };
    lacks(0);
    let first = rig.rebuild(2, &[0, 1], Frontier::full());
    first.run().await.unwrap();
    rig.assert_equal(1, 2).await;
    lacks(1);
    let second = rig.rebuild(2, &[0, 1], Frontier::full());
    let unreadable = second.run().await.unwrap_err();
    let RebuildError::Unreadable(spans) = unreadable else {
        panic!("{unreadable}");
    };
    assert_eq!(
        spans.first().map(|span| span.start),
        Some(3 * CHUNK + BLOCK)
    );
    assert_eq!(spans.length(), BLOCK);
}

#[tokio::test]
async fn a_source_that_is_lost_is_replaced_by_another() {
    let rig = Arc::new(Rig::new(3, &[0, 1]).await);
    for chunk in 0..100 {
        rig.write(chunk, 1).await;
    }
    rig.compose(2, &[0, 1], &[2]).await;
    let mut reads = 0;
    rig.faults[0].script(move |request| {
        reads += u64::from(request.operation == Operation::Read);
        match reads {
            0..=3 => Fault::None,
            _ => Fault::Fail(ErrorKind::Gone),
        }
    });
    let rebuild = rig.rebuild(2, &[0, 1], Frontier::full());
    let membership = async {
        let mut report = rig.mirror.report();
        let lost = report.wait_for(|report| !report.failed.is_empty());
        lost.await.unwrap();
        rig.compose(3, &[1], &[2]).await;
    };
    let (rebuilt, ()) = tokio::join!(rebuild.run(), membership);
    rebuilt.unwrap();
    rig.assert_equal(1, 2).await;
}

#[tokio::test]
async fn a_hole_reaches_a_third_slice_though_who_made_it_is_lost() {
    let rig = Rig::new(3, &[0, 2]).await;
    rig.write(7, 0xee).await;
    rig.mirror.flush().await.unwrap();
    // Slice 2 goes away with its chunk, which then is freed at 0 alone.
    rig.compose(2, &[0], &[]).await;
    rig.discard(7, 1).await;
    rig.compose(3, &[0], &[1]).await;
    rig.rebuild(1, &[0], Frontier::full()).run().await.unwrap();
    assert_eq!(rig.slices[1].chunks(), 0);
    // Slice 0 is lost, and 2 is rebuilt from 1, which never had that chunk.
    rig.compose(4, &[1], &[]).await;
    rig.compose(5, &[1], &[2]).await;
    // Its own hot set would hide what this shows.
    rig.slices[2]
        .store
        .checkpoint(&rig.slices[2].slice, PAIR, u64::MAX);
    rig.slices[2].store.close().await.unwrap();
    let second = rig.rebuild(2, &[1], Frontier::new(Config(2)));
    second.run().await.unwrap();
    rig.assert_equal(1, 2).await;
}

#[tokio::test]
async fn a_discard_that_one_member_missed_reaches_it_when_it_returns() {
    let rig = Rig::new(2, &[0, 1]).await;
    rig.write(7, 0xee).await;
    rig.mirror.flush().await.unwrap();
    // Its own hot set would hide what this shows.
    let missed = &rig.slices[1];
    missed.store.checkpoint(&missed.slice, PAIR, u64::MAX);
    missed.store.close().await.unwrap();
    rig.faults[1].script(|request| match request.operation {
        Operation::WriteZeroes => Fault::Fail(ErrorKind::Gone),
        _ => Fault::None,
    });
    // Slice 0 has done it when it is sent again, under the config that slice 1 lacks.
    let membership = async {
        let mut report = rig.mirror.report();
        let lost = report.wait_for(|report| report.flow == Flow::Drained);
        lost.await.unwrap();
        rig.compose(2, &[0], &[]).await;
    };
    tokio::join!(rig.discard(7, 1), membership);
    rig.faults[1].script(|_| Fault::None);
    rig.compose(3, &[0], &[1]).await;
    let rebuild = rig.rebuild(1, &[0], Frontier::new(Config(2)));
    rebuild.run().await.unwrap();
    rig.assert_equal(0, 1).await;
}
