use super::support::*;
use crate::layers::mirror::*;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use weft_block::{ErrorKind, Fault, Operation};
use weft_verify::random::Random;

fn reads(member: &Noted) -> u64 {
    let noted = member.noted();
    let reads = noted
        .iter()
        .filter(|note| note.operation == Operation::Read);
    reads.count() as u64
}

#[tokio::test]
async fn a_read_waits_for_the_change_in_flight_on_its_range_and_a_change_for_the_read() {
    let rig = Arc::new(Rig::new(2));
    rig.members[1].holds(Operation::Write);
    let write = rig.write(0, 1);
    settle().await;
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(0).await.unwrap() }
    });
    settle().await;
    assert!(
        !read.is_finished(),
        "member 0 has it, member 1 may never get it"
    );
    assert_eq!(rig.read(1).await.unwrap(), 0);
    rig.members[1].works();
    write.await.unwrap();
    assert_eq!(read.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_are_spread_over_members_that_are_busy() {
    let rig = Arc::new(Rig::new(2));
    for member in &rig.members {
        member.script(|_| Fault::Delay(Duration::from_millis(1)));
    }
    let mut tasks = tokio::task::JoinSet::new();
    for block in 0..200 {
        let rig = rig.clone();
        tasks.spawn(async move { rig.read(block % BLOCKS).await.unwrap() });
    }
    while let Some(read) = tasks.join_next().await {
        read.unwrap();
    }
    let counts = rig.members.iter().map(|member| reads(member));
    assert!(counts.into_iter().all(|count| (80..=130).contains(&count)));
}

/// Times of so many reads one after the other, in order of length.
async fn times(rig: &Rig, count: u64) -> Vec<Duration> {
    let mut times = vec![];
    for block in 0..count {
        let began = Instant::now();
        rig.read(block % BLOCKS).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_now_and_then_slow_costs_few_extra_reads_and_no_percentile() {
    const READS: u64 = 10_000;
    let rig = Rig::new(2);
    let ordinary = |random: &mut Random| Duration::from_micros(200 + random.below(300));
    for (at, member) in rig.members.iter().enumerate() {
        let mut random = Random::new(at as u64);
        member.script(move |_| Fault::Delay(ordinary(&mut random)));
    }
    let healthy = times(&rig, READS).await;
    rig.members.iter().for_each(|member| drop(member.noted()));
    // Row 28 of the fault matrix: ten times the latency, and one of a hundred takes 5 s.
    let mut random = Random::new(9);
    rig.members[1].script(move |_| match random.below(100) {
        0 => Fault::Delay(Duration::from_secs(5)),
        _ => Fault::Delay(10 * ordinary(&mut random)),
    });
    let slow = times(&rig, READS).await;
    let asked: u64 = rig.members.iter().map(|member| reads(member)).sum();
    assert!(asked <= READS + READS / 20, "{asked} reads");
    let (p99, before) = (slow[9900], healthy[9900]);
    assert!(p99 <= before * 3, "{p99:?}, healthy {before:?}");
    assert!(slow[9999] < Duration::from_secs(1), "{:?}", slow[9999]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_member_is_used_again_when_it_is_well() {
    let rig = Rig::new(2);
    let answer = |rig: &Rig, at: usize, millis: u64| {
        rig.members[at].script(move |_| Fault::Delay(Duration::from_millis(millis)));
    };
    answer(&rig, 0, 2);
    answer(&rig, 1, 50);
    times(&rig, 1000).await;
    assert!(reads(&rig.members[1]) < 100);
    answer(&rig, 1, 1);
    times(&rig, 10_000).await;
    reads(&rig.members[1]);
    times(&rig, 100).await;
    assert!(reads(&rig.members[1]) > 50);
}

#[tokio::test]
async fn a_member_that_is_lost_while_reading_is_reported_and_the_read_goes_on_elsewhere() {
    let rig = Rig::new(2);
    for member in &rig.members[1..] {
        member.fails(Operation::Read, ErrorKind::Gone);
    }
    for block in 0..200 {
        rig.read(block % BLOCKS).await.unwrap();
    }
    assert_eq!(rig.failed(), [(1, Failure::Lost)]);
    assert_eq!(rig.report().flow, Flow::Drained);
}

#[tokio::test]
async fn a_read_with_nobody_to_ask_waits_for_the_next_composition() {
    let rig = Arc::new(Rig::new(1));
    rig.members[0].fails(Operation::Read, ErrorKind::Gone);
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(0).await.unwrap() }
    });
    rig.until(|report| !report.failed.is_empty()).await;
    settle().await;
    assert!(!read.is_finished());
    rig.members[0].works();
    rig.compose(1, &[0], &[]).unwrap();
    read.await.unwrap();
}

#[tokio::test]
async fn a_read_at_a_member_that_is_given_up_goes_on_elsewhere() {
    let rig = Arc::new(Rig::new(1));
    rig.members[0].holds(Operation::Read);
    let read = tokio::spawn({
        let rig = rig.clone();
        async move { rig.read(0).await.unwrap() }
    });
    settle().await;
    rig.mirror.give_up(rig.members[0].slice);
    settle().await;
    assert!(!read.is_finished());
    rig.members[0].script(|_| Fault::None);
    rig.compose(1, &[0], &[]).unwrap();
    read.await.unwrap();
}
