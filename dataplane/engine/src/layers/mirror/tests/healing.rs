use super::support::*;
use crate::layers::mirror::*;
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use weft_block::{BLOCK, Disk, ErrorKind, Fault, Medium, Operation, Write};

/// Blocks of a member that do not read as they were written, until they are written again.
fn corrupt(member: &Noted, blocks: &[u64]) -> Arc<Mutex<BTreeSet<u64>>> {
    let bad = Arc::new(Mutex::new(BTreeSet::from_iter(blocks.iter().copied())));
    let known = bad.clone();
    member.script(move |request| {
        let (start, end) = (request.offset, request.offset + request.length);
        let touches = |block: &u64| (start..end).contains(&(block * BLOCK));
        let mut known = known.lock().unwrap();
        match request.operation {
            Operation::Read if known.iter().any(touches) => Fault::Fail(ErrorKind::MediaRead),
            Operation::Write | Operation::WriteZeroes => {
                known.retain(|block| !touches(block));
                Fault::None
            }
            _ => Fault::None,
        }
    });
    bad
}

async fn read(rig: &Rig, first: u64, blocks: u64) -> Result<BytesMut, weft_block::DiskError> {
    let mut into = BytesMut::zeroed((blocks * BLOCK) as usize);
    let done = rig.mirror.read(first * BLOCK, &mut into).await;
    assert_eq!(into.len() as u64, blocks * BLOCK, "the buffer stays whole");
    done.map(|()| into)
}

#[tokio::test]
async fn a_block_that_is_wrong_is_read_elsewhere_and_repaired() {
    let rig = Rig::new(2);
    rig.write(3, 7).await.unwrap();
    let bad = corrupt(&rig.members[0], &[3]);
    while !bad.lock().unwrap().is_empty() {
        let bytes = read(&rig, 0, 8).await.unwrap();
        assert_eq!(bytes[3 * BLOCK as usize], 7);
    }
    let noted = rig.members[0].noted();
    let last = noted
        .iter()
        .rfind(|note| note.operation == Operation::Write);
    let stamp = last.unwrap().stamp;
    assert_eq!(
        (stamp.config, stamp.number),
        (1, 2),
        "a change like any other"
    );
    assert_eq!(last.unwrap().offset, 3 * BLOCK, "only the block");
    assert_eq!(rig.failed(), [], "nobody has failed");
}

#[tokio::test]
async fn blocks_that_are_wrong_on_different_members_are_put_together() {
    let rig = Rig::new(2);
    rig.write(3, 7).await.unwrap();
    rig.write(4, 8).await.unwrap();
    let bad = [
        corrupt(&rig.members[0], &[3]),
        corrupt(&rig.members[1], &[4]),
    ];
    let bytes = read(&rig, 2, 4).await.unwrap();
    let firsts: Vec<_> = bytes.chunks(BLOCK as usize).map(|block| block[0]).collect();
    assert_eq!(firsts, [0, 7, 8, 0]);
    assert!(bad.iter().all(|bad| bad.lock().unwrap().is_empty()));
}

#[tokio::test]
async fn bytes_that_nobody_has_are_an_error_and_not_other_bytes() {
    let rig = Rig::new(2);
    rig.write(3, 7).await.unwrap();
    let bad: Vec<_> = rig
        .members
        .iter()
        .map(|member| corrupt(member, &[3]))
        .collect();
    let failed = read(&rig, 2, 4).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::MediaRead);
    let mut into = BytesMut::from(&[0xee; BLOCK as usize][..]);
    rig.mirror.read(3 * BLOCK, &mut into).await.unwrap_err();
    assert!(into.iter().all(|byte| *byte != 7), "unverified bytes");
    assert_eq!(rig.failed(), []);
    assert_eq!(read(&rig, 4, 1).await.unwrap()[0], 0);
    rig.write(3, 9).await.unwrap();
    assert!(bad.iter().all(|bad| bad.lock().unwrap().is_empty()));
    assert_eq!(rig.read(3).await.unwrap(), 9);
}

#[tokio::test]
async fn a_repair_does_not_undo_a_write_that_came_between() {
    let rig = Arc::new(Rig::new(2));
    rig.write(3, 7).await.unwrap();
    let bad = corrupt(&rig.members[0], &[3]);
    // A write waits behind the read for the range; the repair comes after it.
    let reads = (0..4).map(|_| {
        let rig = rig.clone();
        tokio::spawn(async move { rig.read(3).await.unwrap() })
    });
    let reads: Vec<_> = reads.collect();
    let write = rig.write(3, 9);
    for read in reads {
        assert!([7, 9].contains(&read.await.unwrap()));
    }
    write.await.unwrap();
    assert_eq!(rig.read(3).await.unwrap(), 9);
    assert!(bad.lock().unwrap().is_empty() && rig.is_equal());
}

/// Two members that differ in block 1, as after the death of an engine, under a first composition.
fn differing() -> Rig {
    let rig = Rig::waiting(2);
    for (member, byte) in rig.members.iter().zip([1, 2]) {
        member
            .memory
            .write_at(BLOCK, &block_of(byte), Write::Cached)
            .unwrap();
    }
    rig.compose_unequal(5, &[1, 0], &[], &[span(0, 8)]).unwrap();
    rig
}

#[tokio::test]
async fn what_may_differ_is_made_equal_from_the_leader_before_it_is_read() {
    let rig = differing();
    assert_eq!(rig.read(1).await.unwrap(), 2);
    assert_eq!(rig.members[0].byte(1), 2);
    for member in &rig.members {
        let noted = member.noted();
        let mut stamped = noted.iter().filter(|note| note.stamp.number > 0);
        assert!(
            stamped.any(|note| note.stamp.config == 5),
            "stamped anew on the leader too"
        );
    }
    assert_eq!(rig.mirror.unequal().first_in(span(1, 1)), None);
}

#[tokio::test]
async fn no_read_is_answered_from_a_member_that_may_differ() {
    let rig = differing();
    // The leader is lost before anything was made equal, and another leads.
    rig.members[1].script(|_| Fault::Fail(ErrorKind::Gone));
    let rig = Arc::new(rig);
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(1).await.unwrap() }
    });
    rig.until(|report| !report.failed.is_empty()).await;
    settle().await;
    assert!(!read.is_finished(), "only the leader says what was written");
    rig.compose(6, &[0], &[]).unwrap();
    assert_eq!(read.await.unwrap(), 1);
}

#[tokio::test]
async fn making_equal_ends_and_keeps_what_is_written_meanwhile() {
    let rig = differing();
    rig.write(2, 9).await.unwrap();
    assert!(!rig.mirror.unequal().is_empty());
    while rig.mirror.make_equal().await {}
    assert!(rig.mirror.unequal().is_empty() && rig.is_equal());
    assert_eq!(
        (rig.read(1).await.unwrap(), rig.read(2).await.unwrap()),
        (2, 9)
    );
}

#[tokio::test]
async fn a_block_that_the_leader_lacks_is_taken_from_another_member() {
    let rig = differing();
    let bad = corrupt(&rig.members[1], &[1]);
    assert_eq!(rig.read(1).await.unwrap(), 1);
    assert!(bad.lock().unwrap().is_empty() && rig.is_equal());
}

#[tokio::test]
async fn zeros_are_not_written_as_bytes() {
    let chunk = CHUNK / BLOCK;
    let rig = Rig::waiting(2);
    rig.members[1]
        .memory
        .write_at(0, &block_of(3), Write::Cached)
        .unwrap();
    let all = span(0, 3 * chunk);
    rig.compose_unequal(1, &[1, 0], &[], &[all]).unwrap();
    while rig.mirror.make_equal().await {}
    let noted = rig.members[0].noted();
    let changes: Vec<_> = noted
        .iter()
        .filter(|note| note.operation != Operation::Read)
        .map(|note| (note.operation, note.offset))
        .collect();
    let zeroes = (Operation::WriteZeroes, CHUNK);
    assert_eq!(changes, [(Operation::Write, 0), zeroes]);
    assert!(rig.is_equal());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn spans_of_any_size_are_healed_whatever_is_wrong_where(
        wrong in prop::collection::vec((0usize..3, 0u64..BLOCKS), 0..60),
        asked in prop::collection::vec((0u64..BLOCKS, 1u64..24), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_time().build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new(3);
            for block in 0..BLOCKS {
                let data = Bytes::from(vec![block as u8 + 1; BLOCK as usize]);
                rig.mirror.write(block * BLOCK, data, Write::Cached).await.unwrap();
            }
            let bad: Vec<_> = (0..3)
                .map(|member| {
                    let mine = wrong.iter().filter(|(at, _)| *at == member);
                    let mine: Vec<_> = mine.map(|(_, block)| *block).collect();
                    corrupt(&rig.members[member], &mine)
                })
                .collect();
            let lost: BTreeSet<u64> = (0..BLOCKS)
                .filter(|block| bad.iter().all(|bad| bad.lock().unwrap().contains(block)))
                .collect();
            for (first, count) in asked {
                let count = count.min(BLOCKS - first);
                let is_lost = (first..first + count).any(|block| lost.contains(&block));
                match read(&rig, first, count).await {
                    Ok(bytes) => {
                        assert!(!is_lost);
                        for (block, bytes) in (first..).zip(bytes.chunks(BLOCK as usize)) {
                            assert!(bytes.iter().all(|byte| *byte == block as u8 + 1));
                        }
                    }
                    Err(error) => assert!(is_lost && error.kind() == ErrorKind::MediaRead),
                }
            }
        });
    }
}
