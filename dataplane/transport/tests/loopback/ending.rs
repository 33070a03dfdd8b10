//! How associations end.

use crate::harness::{Held, Target, memory, pattern, until};
use crate::wire::{Knock, Wire, enabled, io_queue};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use weft_block::{Disk, ErrorKind, Write};
use weft_nvme::command::fabrics::FabricsCommand;
use weft_nvme::command::{AdminCommand, BlockRange, IoCommand};
use weft_nvme::initiator::Payload;
use weft_nvme::property;
use weft_nvme::status::Status;
use weft_transport::RemoteDisk;

const ONE_BLOCK: IoCommand = IoCommand::Write {
    range: BlockRange { start: 0, count: 1 },
    fua: false,
};

#[tokio::test]
async fn a_revoked_association_ends_and_its_initiator_hears_of_it() {
    let target = Target::start(memory()).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    target.gate.revoke();
    disk.closed().await;
    target.all_ended().await;
    assert_eq!(disk.flush().await.unwrap_err().kind(), ErrorKind::Gone);
}

#[tokio::test]
async fn revoking_waits_for_commands_in_flight_and_starts_no_other() {
    let held = Held::new();
    let target = Target::start(held.clone()).await;
    let disk = Arc::new(RemoteDisk::connect(target.options()).await.unwrap());
    let write = |n: u64| {
        let disk = disk.clone();
        tokio::spawn(async move {
            disk.write(n * 65_536, pattern(n, 4096), Write::Cached)
                .await
        })
    };
    let first = write(1);
    held.holds(1).await;
    target.gate.revoke();
    // The target sees the end before what follows: both arrive on one connection.
    let late = write(2);
    let ended = until("the association ended", || target.gate.live() == 0);
    let early = timeout(Duration::from_millis(200), ended).await;
    assert!(early.is_err(), "ended with a command in flight");
    held.pass.add_permits(10);
    target.all_ended().await;
    first
        .await
        .unwrap()
        .expect("it ran to its end and was answered");
    assert_eq!(late.await.unwrap().unwrap_err().kind(), ErrorKind::Gone);
    held.holds(1).await;
}

#[tokio::test]
async fn an_association_whose_admin_connection_drops_takes_its_io_queues_with_it() {
    let held = Held::new();
    let target = Target::start(held.clone()).await;
    let (admin, controller) = enabled(&target, Knock::admin()).await;
    let mut io = io_queue(&target, 1, controller).await;
    let idle = io_queue(&target, 2, controller).await;
    io.send(ONE_BLOCK.to_sqe(), Payload::ToController(pattern(1, 4096)))
        .await;
    held.holds(1).await;
    drop(admin);
    takes_no_more_queues(&target, controller).await;
    assert_eq!(target.gate.live(), 1, "a command is in flight");
    let mut byte = [0];
    let open = idle.stream.try_read(&mut byte).unwrap_err();
    assert_eq!(
        open.kind(),
        std::io::ErrorKind::WouldBlock,
        "idle, not closed"
    );
    held.pass.add_permits(1);
    assert_eq!(io.answer().await.unwrap().cqe.status(), Status::SUCCESS);
    io.closed().await;
    idle.closed().await;
    target.all_ended().await;
}

/// Waits until the target has noticed that the controller is going.
async fn takes_no_more_queues(target: &Target, controller: u16) {
    let refused = async {
        loop {
            let mut more = Wire::open(target).await;
            let (status, result) = more.connect(&Knock::queue(3, controller)).await;
            if status == Status::CONNECT_INVALID_PARAMETERS && result == 0x1_0010 {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), refused).await.unwrap();
}

#[tokio::test]
async fn disconnect_ends_one_queue_whose_number_is_free_again() {
    let target = Target::start(memory()).await;
    let (mut admin, controller) = enabled(&target, Knock::admin()).await;
    for _ in 0..3 {
        let mut io = io_queue(&target, 1, controller).await;
        let done = io
            .ask(FabricsCommand::Disconnect.to_sqe(), Payload::None)
            .await;
        assert_eq!(done.cqe.status(), Status::SUCCESS);
        io.closed().await;
    }
    let on_admin = admin
        .ask(FabricsCommand::Disconnect.to_sqe(), Payload::None)
        .await;
    assert_eq!(on_admin.cqe.status(), Status::INVALID_OPCODE);
}

#[tokio::test]
async fn after_shutdown_io_is_refused() {
    let target = Target::start(memory()).await;
    let (mut admin, controller) = enabled(&target, Knock::admin()).await;
    let mut io = io_queue(&target, 1, controller).await;
    admin
        .set_cc(property::CC_ENABLED | property::CC_SHUTDOWN)
        .await;
    assert_eq!(
        io.io(IoCommand::Flush, Payload::None).await,
        Status::COMMAND_SEQUENCE
    );
}

#[tokio::test]
async fn a_silent_host_is_left_after_its_keep_alive_time_and_one_that_speaks_is_not() {
    let target = Target::start(memory()).await;
    let knock = || Knock::admin().with(|knock| knock.connect.kato = 1000);
    let (silent, _) = enabled(&target, knock()).await;
    let (mut speaks, _) = enabled(&target, knock()).await;
    let since = Instant::now();
    let speaking = async {
        while target.gate.live() == 2 {
            let alive = speaks.admin(AdminCommand::KeepAlive).await;
            assert_eq!(alive, (Status::SUCCESS, 0));
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), speaking).await.unwrap();
    assert!(
        since.elapsed() >= Duration::from_secs(1),
        "not before its time"
    );
    silent.closed().await;
    assert_eq!(
        speaks.admin(AdminCommand::KeepAlive).await.0,
        Status::SUCCESS
    );
}

#[tokio::test]
async fn a_wrong_pdu_ends_its_own_connection_with_the_reason_and_no_other() {
    use tokio::io::AsyncReadExt;
    let target = Target::start(memory()).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    let mut wire = Wire::open(&target).await;
    // A capsule of 4 GiB, and then more than fits in the socket's buffers of a reader that left.
    let mut bytes = vec![0x04, 0, 72, 72, 0xff, 0xff, 0xff, 0xff];
    bytes.resize(100_000, 0xa7);
    wire.stream.write_all(&bytes).await.unwrap();
    let mut term = [0; 24];
    let read = wire.stream.read_exact(&mut term);
    timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((term[0], term[2], term[8]), (0x03, 24, 0x01), "C2HTermReq");
    assert_eq!(term[10..14], [4, 0, 0, 0], "PLEN is the field");
    wire.closed().await;
    disk.flush().await.unwrap();
}
