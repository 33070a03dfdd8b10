//! What a target tells without being asked: another size, another ANA state, another directory.

use crate::harness::{SUBSYSTEM, Target, memory};
use crate::wire::{Knock, Wire, enabled, io_queue};
use bytes::BytesMut;
use std::sync::Arc;
use weft_block::MemoryDisk;
use weft_nvme::command::{AdminCommand, BlockRange, IoCommand};
use weft_nvme::initiator::Payload;
use weft_nvme::status::Status;
use weft_nvme::target::Notice;
use weft_nvme::{feature, identify, log};
use weft_transport::{AnaState, DISCOVERY_SUBSYSTEM};

const READ: IoCommand = IoCommand::Read {
    range: BlockRange {
        start: 512,
        count: 1,
    },
};

fn one_block() -> Payload {
    Payload::ToHost(BytesMut::zeroed(4096))
}

async fn listen(admin: &mut Wire, mask: u32) {
    let mask = AdminCommand::SetFeatures {
        feature: feature::ASYNC_EVENTS,
        value: mask,
        save: false,
    };
    assert_eq!(admin.admin(mask).await.0, Status::SUCCESS);
    admin
        .send(AdminCommand::AsyncEvent.to_sqe(), Payload::None)
        .await;
}

async fn told(admin: &mut Wire) -> Option<Notice> {
    let done = admin.answer().await.unwrap();
    Notice::parse(done.cqe.result.get())
}

#[tokio::test]
async fn a_namespace_grows_under_a_host_that_stays_connected() {
    let disk = Arc::new(MemoryDisk::new(2 << 20));
    let target = Target::start(disk.clone()).await;
    let (mut admin, controller) = enabled(&target, Knock::admin()).await;
    let mut queue = io_queue(&target, 1, controller).await;
    assert_eq!(queue.io(READ, one_block()).await, Status::LBA_OUT_OF_RANGE);
    listen(&mut admin, feature::EVENTS).await;
    disk.grow(4 << 20);
    target.gate.events.resized();
    assert_eq!(told(&mut admin).await, Some(Notice::Namespace));
    let (_, list) = admin.log(log::CHANGED_NAMESPACES, 4096).await;
    assert_eq!(list[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    let (_, namespace) = admin.identify(identify::CNS_NAMESPACE, 1).await;
    assert_eq!(namespace[..8], 1024u64.to_le_bytes());
    assert_eq!(queue.io(READ, one_block()).await, Status::SUCCESS);
}

#[tokio::test]
async fn an_inaccessible_namespace_refuses_io_without_dnr_until_it_is_optimized() {
    let target = Target::start(memory()).await;
    let (mut admin, controller) = enabled(&target, Knock::admin()).await;
    let mut queue = io_queue(&target, 1, controller).await;
    listen(&mut admin, feature::EVENTS).await;
    for (state, status, byte) in [
        (AnaState::Inaccessible, Status::ANA_INACCESSIBLE, 3),
        (AnaState::Optimized, Status::SUCCESS, 1),
    ] {
        target.gate.events.set_ana(state);
        assert_eq!(told(&mut admin).await, Some(Notice::Ana));
        let (_, page) = admin.log(log::ANA, 52).await;
        assert_eq!(page[32], byte);
        let answer = queue.io(READ, one_block()).await;
        assert_eq!(answer, status);
        assert!(!answer.dnr());
        assert_eq!(queue.io(IoCommand::Flush, Payload::None).await, status);
        admin
            .send(AdminCommand::AsyncEvent.to_sqe(), Payload::None)
            .await;
    }
}

#[tokio::test]
async fn a_request_that_comes_late_is_answered_with_what_happened_before() {
    let target = Target::start(memory()).await;
    let (mut admin, _) = enabled(&target, Knock::admin()).await;
    target.gate.events.set_ana(AnaState::Inaccessible);
    listen(&mut admin, feature::EVENTS).await;
    assert_eq!(told(&mut admin).await, Some(Notice::Ana));
}

fn discover(host: &str) -> Knock {
    Knock::admin().with(|knock| {
        knock.data.subsystem = DISCOVERY_SUBSYSTEM.to_owned();
        knock.data.host = host.to_owned();
    })
}

#[tokio::test]
async fn discovery_tells_each_host_what_it_may_use_and_that_it_changed() {
    let target = Target::start(memory()).await;
    let (mut admin, controller) = enabled(&target, discover("host")).await;
    let (_, page) = admin.log(log::DISCOVERY, 2048).await;
    let (generation, records) = log::parse_discovery(&page).unwrap();
    assert_eq!((generation, records.len()), (1, 1));
    assert_eq!(records[0].subsystem, SUBSYSTEM);
    assert_eq!(records[0].address, target.address);
    let mut queue = Wire::open(&target).await;
    let knock = Knock::queue(1, controller);
    let knock = knock.with(|knock| knock.data.subsystem = DISCOVERY_SUBSYSTEM.to_owned());
    let (status, _) = queue.connect(&knock).await;
    assert_eq!(status, Status::CONNECT_INVALID_PARAMETERS, "no I/O queues");
    listen(&mut admin, feature::DISCOVERY_NOTICE).await;
    target.gate.directory.generation.send_replace(2);
    assert_eq!(told(&mut admin).await, Some(Notice::Discovery));
    let (_, page) = admin.log(log::DISCOVERY, 1024).await;
    assert_eq!(page[0], 2);
    let (mut stranger, _) = enabled(&target, discover("stranger")).await;
    let (_, page) = stranger.log(log::DISCOVERY, 1024).await;
    assert_eq!(page[8], 0, "a stranger finds nothing");
}

#[tokio::test]
async fn a_target_without_a_directory_has_no_discovery_subsystem() {
    let target = Target::start_with(memory(), |gate, _| gate.directory.is_open = false).await;
    let mut wire = Wire::open(&target).await;
    let (status, _) = wire.connect(&discover("host")).await;
    assert_eq!(status, Status::CONNECT_INVALID_PARAMETERS);
}

#[tokio::test]
async fn discovery_over_ipv6_tells_an_ipv6_address() {
    let address = "[::1]:0".parse().unwrap();
    let target = Target::start_at(address, memory(), |_, _| {}).await;
    let (mut admin, _) = enabled(&target, discover("host")).await;
    let (_, page) = admin.log(log::DISCOVERY, 2048).await;
    assert_eq!(page[1025], 2, "ADRFAM");
    let (_, records) = log::parse_discovery(&page).unwrap();
    assert_eq!(records[0].address, target.address);
}
