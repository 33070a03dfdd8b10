//! What commands do.

use crate::harness::{SIZE, SUBSYSTEM, Target, memory, pattern, read};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{Disk, ErrorKind, Write};
use weft_transport::{ConnectOptions, RemoteDisk};

async fn every_command(header_digest: bool, data_digest: bool) {
    let target = Target::start(memory()).await;
    let options = ConnectOptions {
        header_digest,
        data_digest,
        ..target.options()
    };
    let disk = RemoteDisk::connect(options).await.unwrap();
    assert_eq!((disk.size(), disk.subsystem()), (SIZE, SUBSYSTEM));
    assert_eq!(disk.namespace_uuid(), target.gate.uuid);
    // In the capsule, by R2T, in several H2CData, above MDTS.
    for (offset, length) in [
        (0, 4096),
        (8192, 8192),
        (65_536, 12_288),
        (1 << 20, 1 << 20),
        (4 << 20, 3 << 20),
    ] {
        let data = pattern(offset + 1, length);
        disk.write(offset, data.clone(), Write::Durable)
            .await
            .unwrap();
        assert_eq!(read(&disk, offset, length).await, data);
    }
    disk.flush().await.unwrap();
    disk.write_zeroes(8192, 4096).await.unwrap();
    assert_eq!(read(&disk, 8192, 4096).await, Bytes::from(vec![0; 4096]));
    disk.discard(1 << 20, 1 << 20).await.unwrap();
    assert_eq!(disk.vendor_get(0xc2, 7, 64).await.unwrap()[..5], *b"got 7");
    disk.vendor_put(0xc1, 0, Bytes::from_static(b"put"))
        .await
        .unwrap();
    let fenced = disk.vendor_get(0xc6, 0, 64).await.unwrap_err();
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
    disk.disconnect().await;
    target.all_ended().await;
}

#[tokio::test]
async fn every_command_does_what_it_says_without_digests() {
    every_command(false, false).await;
}

#[tokio::test]
async fn every_command_does_what_it_says_with_either_digest_and_with_both() {
    every_command(true, false).await;
    every_command(false, true).await;
    every_command(true, true).await;
}

#[tokio::test]
async fn many_requests_at_a_time_do_not_mix_their_data() {
    // Memory for two large requests: most of them wait for their turn.
    let target = Target::start_with(memory(), |_, limits| limits.queue_memory = 128 << 10).await;
    let disk = Arc::new(RemoteDisk::connect(target.options()).await.unwrap());
    let work = (0..400u64).map(|n| {
        let disk = disk.clone();
        async move {
            let (offset, length) = (n * 131_072, 4096 << (n % 5));
            let data = pattern(n + 1, length);
            disk.write(offset, data.clone(), Write::Cached)
                .await
                .unwrap();
            assert_eq!(read(disk.as_ref(), offset, length).await, data);
        }
    });
    futures::future::join_all(work).await;
}

#[tokio::test]
async fn a_read_only_export_refuses_every_write() {
    let target = Target::start_with(memory(), |gate, _| gate.set_read_only()).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    let refused = |result: Result<(), weft_block::DiskError>| {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::ReadOnly);
    };
    refused(disk.write(0, pattern(1, 4096), Write::Cached).await);
    refused(disk.write_zeroes(0, 4096).await);
    refused(disk.discard(0, 4096).await);
    disk.flush().await.unwrap();
    assert_eq!(read(&disk, 0, 4096).await, Bytes::from(vec![0; 4096]));
}

#[tokio::test]
async fn a_request_beyond_the_end_is_out_of_range() {
    let target = Target::start(memory()).await;
    let disk = RemoteDisk::connect(target.options()).await.unwrap();
    let mut buffer = BytesMut::zeroed(8192);
    let error = disk.read(SIZE - 4096, &mut buffer).await.unwrap_err();
    assert_eq!((error.kind(), buffer.len()), (ErrorKind::OutOfRange, 8192));
    let error = disk
        .write(SIZE, pattern(1, 4096), Write::Cached)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    assert!(
        !disk.is_closed(),
        "a wrong request does not cost the association"
    );
}
