use super::support::*;
use crate::layers::mirror::*;
use crate::writes::WriteNumber;
use bytes::BytesMut;
use std::sync::Arc;
use weft_block::{BLOCK, Disk, ErrorKind, Fault, Operation, Write};
use weft_spec::drive::Config;

const ALL: [Operation; 5] = [
    Operation::Read,
    Operation::Write,
    Operation::Flush,
    Operation::WriteZeroes,
    Operation::Discard,
];

#[tokio::test]
async fn a_failure_holds_and_drains_and_the_next_config_is_sent_before_the_acknowledgement() {
    let rig = Rig::new(3);
    rig.write(0, 1).await.unwrap();
    rig.members.iter().for_each(|member| drop(member.noted()));
    // Member 2 fails; another write is still under way at member 1.
    rig.members[2].script(|request| match request.offset / BLOCK {
        2 => Fault::Fail(ErrorKind::Gone),
        _ => Fault::None,
    });
    rig.members[1].script(|request| match request.offset / BLOCK {
        1 => Fault::Hold,
        _ => Fault::None,
    });
    let slow = rig.write(1, 2);
    settle().await;
    let failing = rig.write(2, 3);
    settle().await;
    assert_eq!(rig.failed(), [(2, Failure::Lost)]);
    assert_eq!(rig.report().flow, Flow::Draining);
    let new = rig.write(3, 4);
    settle().await;
    assert_eq!(rig.members[0].noted().len(), 2, "new writes are held");
    assert_eq!(rig.compose(2, &[0, 1], &[]), Err(ComposeError::InFlight));
    rig.members[1].works();
    rig.until(|report| report.flow == Flow::Drained).await;
    settle().await;
    assert!(!slow.is_finished() && !failing.is_finished() && !new.is_finished());
    rig.members[1].noted();
    rig.compose(2, &[0, 1], &[]).unwrap();
    for write in [slow, failing, new] {
        write.await.unwrap();
    }
    for member in &rig.members[..2] {
        let noted = member.noted();
        let mut stamps: Vec<_> = noted
            .iter()
            .map(|note| (note.stamp.config, note.stamp.number))
            .collect();
        stamps.sort_unstable();
        // The same numbers again, and the new one.
        assert_eq!(stamps, [(2, 2), (2, 3), (2, 4)]);
    }
    assert_eq!(rig.members[2].noted().len(), 2);
    assert_eq!(rig.report().failed, []);
}

#[tokio::test]
async fn what_all_members_acknowledged_before_one_failed_is_not_held() {
    let rig = Rig::new(2);
    rig.write(0, 1).await.unwrap();
    rig.members[1].fails(Operation::Flush, ErrorKind::MediaWrite);
    let flush = rig.flush();
    rig.until(|report| report.flow == Flow::Drained).await;
    assert!(!flush.is_finished());
    assert_eq!(
        rig.read(0).await.unwrap(),
        1,
        "reads go on with the survivor"
    );
}

#[tokio::test]
async fn a_member_that_only_reconnected_gets_again_what_it_did_not_acknowledge() {
    let rig = Rig::new(2);
    // It does the write, but the answer is lost.
    rig.members[1].script(|_| Fault::Lie(ErrorKind::Gone));
    let write = rig.write(0, 5);
    rig.until(|report| report.flow == Flow::Drained).await;
    rig.members[1].works();
    rig.compose(1, &[0, 1], &[]).unwrap();
    write.await.unwrap();
    let noted = rig.members[1].noted();
    assert_eq!(noted.len(), 2);
    assert_eq!(noted[0].stamp, noted[1].stamp);
}

#[tokio::test]
async fn a_silent_member_is_waited_for_until_it_is_given_up() {
    let rig = Rig::new(2);
    for (operation, config) in [(Operation::Write, 1), (Operation::Flush, 3)] {
        rig.members[1].holds(operation);
        let waiting = match operation {
            Operation::Write => rig.write(0, 6),
            _ => {
                let flush = rig.flush();
                tokio::spawn(async move { flush.await.unwrap().unwrap() })
            }
        };
        settle().await;
        assert_eq!(rig.report().flow, Flow::Open);
        rig.mirror.give_up(rig.members[1].slice);
        rig.until(|report| report.flow == Flow::Drained).await;
        assert_eq!(rig.failed(), [(1, Failure::GivenUp)]);
        assert!(!waiting.is_finished());
        rig.compose(config + 1, &[0], &[]).unwrap();
        waiting.await.unwrap();
        rig.members[1].works();
        settle().await;
        rig.mirror.hold(Hold::Changes);
        rig.compose(config + 2, &[0, 1], &[]).unwrap();
    }
}

#[tokio::test]
async fn the_last_member_is_waited_for() {
    for kind in [
        ErrorKind::Gone,
        ErrorKind::MediaWrite,
        ErrorKind::WrongConfig,
    ] {
        let rig = Rig::new(1);
        rig.members[0].script(move |_| Fault::Fail(kind));
        let (write, flush) = (rig.write(0, 7), rig.flush());
        rig.until(|report| report.flow == Flow::Drained).await;
        settle().await;
        assert!(!write.is_finished() && !flush.is_finished(), "{kind:?}");
        assert_eq!(rig.failed().len(), 1);
        rig.members[0].works();
        rig.compose(2, &[0], &[]).unwrap();
        write.await.unwrap();
        assert_eq!(rig.read(0).await.unwrap(), 7);
    }
}

#[tokio::test]
async fn three_of_three_fail_in_turn_and_nothing_is_lost() {
    let rig = Rig::new(3);
    for config in 2..4 {
        let fails = config - 1;
        rig.members[fails].fails(Operation::Write, ErrorKind::Gone);
        let write = rig.write(0, config as u8);
        rig.until(|report| report.flow == Flow::Drained).await;
        let rest: Vec<_> = (0..3).filter(|at| *at == 0 || *at > fails).collect();
        rig.compose(config as u64, &rest, &[]).unwrap();
        write.await.unwrap();
    }
    rig.members[0].fails(Operation::Write, ErrorKind::Gone);
    let write = rig.write(0, 9);
    rig.until(|report| report.flow == Flow::Drained).await;
    assert!(!write.is_finished());
    assert_eq!(rig.members[0].byte(0), 3);
}

#[tokio::test]
async fn after_a_fence_nothing_is_answered() {
    for operation in ALL {
        let rig = Arc::new(Rig::new(2));
        rig.members[0].holds(Operation::Write);
        let before = rig.write(8, 1);
        settle().await;
        rig.members[1].fails(operation, ErrorKind::Fenced);
        let mut asked = vec![];
        for one in ALL {
            let mirror = rig.mirror.clone();
            asked.push(tokio::spawn(async move {
                let mut into = BytesMut::zeroed(BLOCK as usize);
                match one {
                    // Both members are asked in turn.
                    Operation::Read => {
                        for _ in 0..200 {
                            mirror.read(BLOCK, &mut into).await.unwrap();
                        }
                    }
                    Operation::Write => mirror
                        .write(0, into.freeze(), Write::Durable)
                        .await
                        .unwrap(),
                    Operation::Flush => mirror.flush().await.unwrap(),
                    Operation::WriteZeroes => mirror.write_zeroes(2 * BLOCK, BLOCK).await.unwrap(),
                    Operation::Discard => mirror.discard(3 * BLOCK, BLOCK).await.unwrap(),
                }
            }));
        }
        if operation == Operation::Discard {
            // A mirror sends zeroes instead.
            rig.members[1].fails(Operation::WriteZeroes, ErrorKind::Fenced);
            asked.push(rig.write(20, 0));
        }
        rig.fenced.cancelled().await;
        rig.members[0].works();
        settle().await;
        assert!(
            !before.is_finished(),
            "{operation:?}: a write in flight was acknowledged"
        );
        assert!(rig.report().fenced);
        assert_eq!(rig.failed(), [], "the member that said so is not failed");
        let late = rig.write(30, 1);
        settle().await;
        assert!(!late.is_finished());
        assert_eq!(rig.compose(2, &[0], &[]), Err(ComposeError::Fenced));
    }
}

#[tokio::test]
async fn what_is_answered_as_the_fence_falls_is_not_passed_on() {
    let rig = Arc::new(Rig::new(2));
    rig.members[0].script(|request| match request.operation {
        Operation::Flush | Operation::Read => Fault::Hold,
        _ => Fault::None,
    });
    rig.members[1].fails(Operation::Write, ErrorKind::Fenced);
    let flush = rig.flush();
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(9).await.unwrap() }
    });
    settle().await;
    let write = rig.write(0, 1);
    rig.fenced.cancelled().await;
    rig.members[0].works();
    settle().await;
    assert!(!flush.is_finished() && !read.is_finished() && !write.is_finished());
}

#[tokio::test]
async fn a_failed_flush_is_never_made_a_success_by_another() {
    let rig = Rig::new(2);
    rig.write(0, 1).await.unwrap();
    rig.members[1].fails(Operation::Flush, ErrorKind::MediaWrite);
    let flush = rig.flush();
    rig.until(|report| report.flow == Flow::Drained).await;
    assert_eq!(rig.failed(), [(1, Failure::Media)]);
    rig.members[1].works();
    rig.members.iter().for_each(|member| drop(member.noted()));
    // The membership keeps it all the same: then the flush has failed.
    rig.compose(2, &[0, 1], &[]).unwrap();
    let failed = flush.await.unwrap().unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::MediaWrite);
    assert_eq!(rig.members[1].noted(), [], "it was not asked again");
    assert_eq!(rig.mirror.checkpoint(), WriteNumber(0));
}

#[tokio::test]
async fn a_flush_is_done_when_the_survivors_have_and_the_failed_member_is_recorded() {
    let rig = Rig::new(3);
    rig.write(0, 1).await.unwrap();
    rig.members[1].fails(Operation::Flush, ErrorKind::MediaWrite);
    rig.members[2].fails(Operation::Flush, ErrorKind::Gone);
    let flush = rig.flush();
    rig.until(|report| report.flow == Flow::Drained).await;
    rig.members[2].works();
    rig.members.iter().for_each(|member| drop(member.noted()));
    rig.compose(2, &[0, 2], &[]).unwrap();
    flush.await.unwrap().unwrap();
    assert_eq!(rig.members[0].noted(), [], "it has flushed before");
    assert_eq!(rig.members[2].noted().len(), 1, "its answer was lost");
    assert_eq!(rig.mirror.checkpoint(), WriteNumber(1));
}

#[tokio::test]
async fn an_answer_of_a_member_that_failed_meanwhile_counts_for_nothing() {
    let rig = Rig::new(2);
    rig.write(0, 1).await.unwrap();
    // The first flush is done at member 1, the second fails there before the first is done at 0.
    let mut flushes = 0;
    rig.members[1].script(move |request| {
        flushes += u64::from(request.operation == Operation::Flush);
        match (request.operation, flushes) {
            (Operation::Flush, 2) => Fault::Fail(ErrorKind::MediaWrite),
            _ => Fault::None,
        }
    });
    rig.members[0].holds(Operation::Flush);
    let first = rig.flush();
    settle().await;
    let second = rig.flush();
    settle().await;
    assert_eq!(rig.failed(), [(1, Failure::Media)]);
    rig.members[0].works();
    rig.until(|report| report.flow == Flow::Drained).await;
    settle().await;
    assert!(!first.is_finished() && !second.is_finished());
}

#[tokio::test]
async fn a_target_that_fails_harms_nobody_and_cannot_become_in_sync() {
    let rig = Rig::waiting(2);
    rig.compose(1, &[0], &[1]).unwrap();
    rig.members[1].fails(Operation::Write, ErrorKind::MediaWrite);
    rig.write(0, 1).await.unwrap();
    assert_eq!(rig.failed(), [(1, Failure::Media)]);
    assert_eq!(rig.report().failed[0].role, Role::Target);
    assert_eq!(rig.report().flow, Flow::Open);
    rig.members[1].works();
    rig.members[1].noted();
    rig.write(1, 2).await.unwrap();
    assert_eq!(rig.members[1].noted(), [], "it gets nothing more");
    rig.mirror.hold(Hold::Changes);
    let missed = Err(ComposeError::Missed(rig.members[1].slice));
    assert_eq!(rig.compose(2, &[0, 1], &[]), missed);
    rig.compose(2, &[0], &[1]).unwrap();
    rig.write(2, 3).await.unwrap();
    rig.mirror.hold(Hold::Changes);
    rig.compose(3, &[0, 1], &[]).unwrap();
    assert_eq!(rig.members[1].noted().len(), 1);
}

#[tokio::test]
async fn without_room_anywhere_a_write_waits_alone_and_a_discard_makes_room() {
    let rig = Rig::new(2);
    let fill = |rig: &Rig, at: usize| rig.members[at].fails(Operation::Write, ErrorKind::NoSpace);
    fill(&rig, 0);
    fill(&rig, 1);
    let write = rig.write(0, 1);
    rig.until(|report| report.full == 1).await;
    assert_eq!((rig.failed(), rig.report().flow), (vec![], Flow::Open));
    rig.flush().await.unwrap().unwrap();
    assert!(!write.is_finished());
    rig.members.iter().for_each(|member| member.works());
    rig.mirror.discard(4 * BLOCK, BLOCK).await.unwrap();
    write.await.unwrap();
    assert_eq!(rig.report().full, 0);
    // One that is full alone has failed.
    fill(&rig, 1);
    let write = rig.write(1, 2);
    rig.until(|report| report.flow == Flow::Drained).await;
    assert_eq!(rig.failed(), [(1, Failure::NoSpace)]);
    rig.compose(2, &[0], &[]).unwrap();
    write.await.unwrap();
}

#[tokio::test]
async fn a_composition_begins_from_drained_and_is_checked() {
    let rig = Rig::new(2);
    rig.members[0].holds(Operation::Write);
    let write = rig.write(0, 1);
    settle().await;
    rig.mirror.hold(Hold::Changes);
    assert_eq!(rig.report().flow, Flow::Draining);
    assert_eq!(rig.compose(2, &[0], &[]), Err(ComposeError::InFlight));
    rig.members[0].works();
    rig.until(|report| report.flow == Flow::Drained).await;
    write.await.unwrap();
    let older = Err(ComposeError::Older(Config(0), Config(1)));
    assert_eq!(rig.compose(0, &[0], &[]), older);
    let twice = Err(ComposeError::Contradiction);
    assert_eq!(rig.compose(2, &[0, 1], &[1]), twice);
    let write = rig.write(0, 2);
    settle().await;
    assert!(!write.is_finished(), "a refused composition opens nothing");
    rig.compose(2, &[0, 1], &[]).unwrap();
    write.await.unwrap();
}

#[tokio::test]
async fn a_hold_of_everything_keeps_reads_too() {
    let rig = Arc::new(Rig::new(1));
    rig.mirror.hold(Hold::Changes);
    assert_eq!(rig.read(0).await.unwrap(), 0);
    rig.mirror.hold(Hold::Everything);
    rig.mirror.hold(Hold::Changes);
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(0).await.unwrap() }
    });
    settle().await;
    assert!(!read.is_finished());
    rig.compose(1, &[0], &[]).unwrap();
    read.await.unwrap();
}

#[tokio::test]
async fn a_new_change_begins_only_when_what_is_sent_again_has_ended() {
    let rig = Rig::new(2);
    rig.members[1].fails(Operation::Write, ErrorKind::Gone);
    let first = rig.write(1, 1);
    rig.until(|report| report.flow == Flow::Drained).await;
    rig.members[0].noted();
    rig.members[0].holds(Operation::Write);
    rig.compose(2, &[0], &[]).unwrap();
    let new = rig.write(2, 2);
    settle().await;
    assert_eq!(rig.report().flow, Flow::Resending);
    let sent: Vec<_> = rig.members[0].noted();
    let sent: Vec<_> = sent.iter().map(|note| note.stamp.number).collect();
    assert_eq!(sent, [1], "the first one alone, under its number");
    rig.members[0].works();
    first.await.unwrap();
    new.await.unwrap();
    assert_eq!(rig.report().flow, Flow::Open);
}
