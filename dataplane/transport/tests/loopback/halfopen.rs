//! Connections that do not say who they are.

use crate::harness::{Target, memory};
use crate::wire::{Knock, Wire, enabled, io_queue};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use weft_nvme::command::IoCommand;
use weft_nvme::initiator::Payload;
use weft_nvme::status::Status;

/// Waits for the end of a connection that is silent.
async fn ended(stream: &mut TcpStream) {
    let mut end = [0; 256];
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut end)).await;
    assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn silent_connections_give_way_and_admitted_ones_never_do() {
    let target = Target::start_with(memory(), |_, limits| {
        (limits.half_open, limits.half_open_of_one) = (8, 4);
        limits.handshake = Duration::from_secs(3600);
    })
    .await;
    let (_admin, controller) = enabled(&target, Knock::admin()).await;
    let mut queue = io_queue(&target, 1, controller).await;
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(TcpStream::connect(target.address).await.unwrap());
    }
    for stream in &mut silent[..8] {
        ended(stream).await;
    }
    assert_eq!(
        queue.io(IoCommand::Flush, Payload::None).await,
        Status::SUCCESS
    );
    let (_newcomer, _) = enabled(&target, Knock::admin()).await;
}

#[tokio::test]
async fn one_byte_now_and_then_does_not_keep_a_connection_alive() {
    let target = Target::start_with(memory(), |_, limits| {
        limits.handshake = Duration::from_millis(300);
    })
    .await;
    let mut stream = TcpStream::connect(target.address).await.unwrap();
    let (mut reader, mut writer) = stream.split();
    let drip = async {
        while writer.write_all(&[0]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        std::future::pending::<()>().await;
    };
    let mut end = [0; 256];
    tokio::select! {
        () = drip => {}
        read = tokio::time::timeout(Duration::from_secs(20), reader.read(&mut end)) => {
            assert!(matches!(read.unwrap(), Ok(0) | Err(_)));
        }
    }
}

#[tokio::test]
async fn a_host_that_greets_has_its_time_once_more_and_not_for_ever() {
    let target = Target::start_with(memory(), |_, limits| {
        limits.handshake = Duration::from_millis(300);
    })
    .await;
    Wire::open(&target).await.closed().await;
}

#[tokio::test]
async fn admitted_connections_are_bounded_and_the_next_is_told_to_come_again() {
    let target = Target::start_with(memory(), |_, limits| limits.connections = 2).await;
    let (_first, _) = enabled(&target, Knock::admin()).await;
    let (second, _) = enabled(&target, Knock::admin()).await;
    let mut third = Wire::open(&target).await;
    let (status, _) = third.connect(&Knock::admin()).await;
    assert_eq!(status, Status::CONNECT_BUSY);
    drop(second);
    loop {
        let mut again = Wire::open(&target).await;
        match again.connect(&Knock::admin()).await.0 {
            Status::SUCCESS => break,
            status => assert_eq!(status, Status::CONNECT_BUSY),
        }
    }
}
