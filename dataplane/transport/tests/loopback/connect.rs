//! Connect, properties, Identify and features as a Linux host goes through them.

use crate::harness::{OpenGate, Target, memory};
use crate::wire::{Knock, Wire, enabled, io_queue};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use uuid::Uuid;
use weft_nvme::command::{AdminCommand, IoCommand};
use weft_nvme::initiator::Payload;
use weft_nvme::status::Status;
use weft_nvme::{feature, property};
use weft_transport::{ConnectOptions, Limits, RemoteDisk};

fn as_it_is(_: &mut OpenGate, _: &mut Limits) {}

#[tokio::test]
async fn refusals_say_why() {
    let target = Target::start(memory()).await;
    let connect = async |host: &str, subsystem: Option<&str>| {
        let options = target.options();
        let subsystem = subsystem.map_or(options.subsystem.clone(), str::to_owned);
        let options = ConnectOptions {
            host: host.to_owned(),
            subsystem,
            ..options
        };
        RemoteDisk::connect(options).await.err().unwrap()
    };
    let stranger = connect("stranger", None).await;
    assert!(stranger.is_invalid_host() && !stranger.retryable());
    let elsewhere = connect("host", Some("nqn.x")).await;
    assert!(!elsewhere.is_invalid_host() && !elsewhere.retryable());
    let early = connect("early", None).await;
    assert!(!early.is_invalid_host() && early.retryable());
}

#[tokio::test]
async fn parameters_of_connect_are_checked_and_pointed_at() {
    let target = Target::start(memory()).await;
    let (_admin, controller) = enabled(&target, Knock::admin()).await;
    let _first = io_queue(&target, 1, controller).await;
    let queue = |number| Knock::queue(number, controller);
    let wrong = [
        (
            Knock::admin().with(|k| k.data.subsystem = "nqn.x".into()),
            0x1_0100,
        ),
        (Knock::admin().with(|k| k.data.controller = 17), 0x1_0010),
        (Knock::admin().with(|k| k.connect.sqsize = 0), 44),
        (queue(2).with(|k| k.connect.sqsize = 128), 44),
        (queue(2).with(|k| k.data.controller = 99), 0x1_0010),
        (queue(2).with(|k| k.data.host = "other".into()), 0x1_0200),
        (
            queue(2).with(|k| k.data.host_id = Uuid::from_u128(1)),
            0x1_0200,
        ),
        (queue(1), 42),
        (queue(999), 42),
    ];
    for (knock, result) in wrong {
        let mut wire = Wire::open(&target).await;
        let refused = (Status::CONNECT_INVALID_PARAMETERS, result);
        assert_eq!(wire.connect(&knock).await, refused);
        wire.closed().await;
    }
}

#[tokio::test]
async fn two_controllers_of_a_subsystem_have_identifiers_of_their_own_in_range() {
    let target = Target::start(memory()).await;
    let mut all = Vec::new();
    for _ in 0..16 {
        let (mut wire, controller) = enabled(&target, Knock::admin()).await;
        let (status, identify) = wire.identify(0x01, 0).await;
        assert_eq!(status, Status::SUCCESS);
        assert_eq!(
            identify[78..80],
            controller.to_le_bytes(),
            "CNTLID at Identify"
        );
        all.push((wire, controller));
    }
    let mut identifiers: Vec<u16> = all.iter().map(|(_, controller)| *controller).collect();
    identifiers.sort_unstable();
    assert_eq!(identifiers, (17..33).collect::<Vec<_>>());
    let mut wire = Wire::open(&target).await;
    let refused = wire.connect(&Knock::admin()).await;
    assert_eq!(
        refused,
        (Status::CONNECT_BUSY, 0),
        "later, when one has ended"
    );
}

#[tokio::test]
async fn properties_read_as_linux_needs_them() {
    let target = Target::start(memory()).await;
    let mut wire = Wire::open(&target).await;
    let (status, _) = wire.connect(&Knock::admin()).await;
    assert_eq!(status, Status::SUCCESS);
    let cap = wire.property(property::CAP, true).await;
    assert_eq!(cap & 0xffff, 127);
    assert_ne!(cap >> 24 & 0xff, 0, "CAP.TO gives time");
    assert_eq!(wire.property(property::VS, false).await, 0x0001_0400);
    for cc in [0x0046_0000, 0x0046_0001] {
        wire.set_cc(cc).await;
        assert_eq!(
            wire.property(property::CC, false).await,
            cc.into(),
            "as written"
        );
    }
    assert_eq!(wire.property(property::CSTS, false).await & 1, 1, "ready");
    wire.set_cc(0x0046_4001).await;
    assert_eq!(
        wire.property(property::CSTS, false).await >> 2 & 0b11,
        0b10,
        "shut down"
    );
}

#[tokio::test]
async fn nothing_but_fabrics_commands_before_the_controller_is_enabled() {
    let target = Target::start(memory()).await;
    let mut wire = Wire::open(&target).await;
    let (_, controller) = wire.connect(&Knock::admin()).await;
    let early = (Status::COMMAND_SEQUENCE, 0);
    assert_eq!(wire.admin(AdminCommand::KeepAlive).await, early);
    let mut io = Wire::open(&target).await;
    let knock = Knock::queue(1, u16::try_from(controller).unwrap());
    assert_eq!(io.connect(&knock).await, early);
}

#[tokio::test]
async fn identify_answers_what_is_known_and_refuses_the_rest_for_good() {
    let target = Target::start(memory()).await;
    let (mut wire, _) = enabled(&target, Knock::admin()).await;
    for (cns, nsid) in [(0x00, 1), (0x01, 0), (0x02, 0), (0x03, 1), (0x06, 0)] {
        assert_eq!(
            wire.identify(cns, nsid).await.0,
            Status::SUCCESS,
            "CNS {cns:02x}h"
        );
    }
    for (cns, nsid, status) in [
        (0x05, 1, Status::INVALID_FIELD),
        (0x07, 0, Status::INVALID_FIELD),
        (0x08, 1, Status::INVALID_FIELD),
        (0x1c, 0, Status::INVALID_FIELD),
        (0x00, 2, Status::INVALID_NAMESPACE),
        (0x03, 2, Status::INVALID_NAMESPACE),
        (0x02, u32::MAX, Status::INVALID_NAMESPACE),
    ] {
        assert_eq!(
            wire.identify(cns, nsid).await.0,
            status,
            "CNS {cns:02x}h of {nsid}"
        );
        assert!(status.dnr());
    }
    let (_, list) = wire.identify(0x02, 0).await;
    assert_eq!(list[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
}

#[tokio::test]
async fn features_logs_events_and_abort_are_answered() {
    let target = Target::start(memory()).await;
    let (mut wire, _) = enabled(&target, Knock::admin()).await;
    let set = |feature, value| AdminCommand::SetFeatures {
        feature,
        value,
        save: false,
    };
    let get = |feature| AdminCommand::GetFeatures { feature, select: 0 };
    let done = |result| (Status::SUCCESS, result);
    assert_eq!(
        wire.admin(set(feature::QUEUES, 0x0003_0003)).await,
        done(0x0003_0003)
    );
    assert_eq!(wire.admin(get(feature::QUEUES)).await, done(0x0003_0003));
    assert_eq!(
        wire.admin(set(feature::ASYNC_EVENTS, 0x0900)).await,
        done(0)
    );
    assert_eq!(wire.admin(get(feature::ASYNC_EVENTS)).await, done(0x0900));
    assert_eq!(wire.admin(set(feature::KEEP_ALIVE, 1500)).await, done(0));
    assert_eq!(wire.admin(get(feature::KEEP_ALIVE)).await, done(2000));
    assert_eq!(wire.admin(set(feature::KEEP_ALIVE, 0)).await, done(0));
    assert_eq!(wire.admin(get(feature::WRITE_CACHE)).await, done(1));
    assert_eq!(
        wire.admin(get(0x0d)).await.0,
        Status::INVALID_FIELD,
        "host memory buffer"
    );
    for page in [0x01, 0x02, 0x03, 0x04, 0x05, 0x0c] {
        assert_eq!(
            wire.log(page, 512).await.0,
            Status::SUCCESS,
            "page {page:02x}h"
        );
    }
    assert_eq!(wire.log(0x70, 512).await.0, Status::INVALID_LOG_PAGE);
    let (_, ana) = wire.log(0x0c, 56).await;
    assert_eq!(
        (ana[8], ana[16], ana[32], ana[48]),
        (1, 1, 1, 1),
        "one group, optimized, one namespace"
    );
    assert_eq!(wire.admin(AdminCommand::Abort).await, done(1));
    assert_eq!(wire.admin(AdminCommand::KeepAlive).await, done(0));
    for _ in 0..4 {
        wire.send(AdminCommand::AsyncEvent.to_sqe(), Payload::None)
            .await;
    }
    let fifth = wire.admin(AdminCommand::AsyncEvent).await;
    assert_eq!(
        fifth,
        (Status::AER_LIMIT_EXCEEDED, 0),
        "four are held, the fifth is one too many"
    );
}

#[tokio::test]
async fn granted_queues_can_be_connected_and_no_more() {
    let target = Target::start_with(memory(), as_it_is).await;
    let (mut wire, controller) = enabled(&target, Knock::admin()).await;
    let queues = AdminCommand::SetFeatures {
        feature: feature::QUEUES,
        value: 0x0001_0001,
        save: false,
    };
    assert_eq!(wire.admin(queues).await, (Status::SUCCESS, 0x0001_0001));
    let mut first = io_queue(&target, 1, controller).await;
    let mut second = io_queue(&target, 2, controller).await;
    for queue in [&mut first, &mut second] {
        assert_eq!(
            queue.io(IoCommand::Flush, Payload::None).await,
            Status::SUCCESS
        );
    }
    let mut third = Wire::open(&target).await;
    let (status, result) = third.connect(&Knock::queue(3, controller)).await;
    assert_eq!((status, result), (Status::CONNECT_INVALID_PARAMETERS, 42));
}

#[tokio::test]
async fn a_host_that_says_nothing_or_only_hello_is_left() {
    let quick = |_: &mut OpenGate, limits: &mut Limits| {
        limits.handshake = Duration::from_millis(100);
    };
    let target = Target::start_with(memory(), quick).await;
    let mut silent = TcpStream::connect(target.address).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), silent.read_u8()).await;
    assert!(end.unwrap().is_err());
    Wire::open(&target).await.closed().await;
}
