//! Volumes that grow on a node: the device, then what is on it.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets a surprise has failed"
)]

mod support;

use std::io::Write;
use std::os::unix::fs::FileExt;
use support::host::{BLOCK, Host, file_system};
use tonic::Code;
use weft_csi_proto::volume_capability::access_mode::Mode;

/// Bytes of the file system at a path, as `df` tells them.
async fn df(host: &Host, path: &str) -> i64 {
    host.stats(&host.volume, path).await.unwrap()[0].total
}

/// Grown while a pod has a file open, then while no node has it.
async fn growing(volume: &str, fs: &str, sizes: [u64; 3]) {
    let host = Host::new(volume, sizes[0]);
    let kind = file_system(fs);
    host.stage(&kind).await.unwrap();
    host.publish("target", &kind, Mode::SingleNodeWriter, false)
        .await
        .unwrap();
    let mut open = std::fs::File::create(host.path("target/file")).unwrap();
    open.write_all(b"before, ").unwrap();
    let first = df(&host, "target").await;

    // Asked before the initiator shows it: an answer that says so, and nothing changed.
    let early = host.expand(volume, "target", sizes[1]).await.unwrap_err();
    assert_eq!(early.code(), Code::Unavailable, "{early}");
    assert!(early.message().contains("are expected"), "{early}");
    assert_eq!(df(&host, "target").await, first);

    host.grow(sizes[1]);
    for path in ["target", "staging", "target"] {
        let size = host.expand(volume, path, sizes[1]).await.unwrap();
        assert_eq!(size, sizes[1]);
    }
    let second = df(&host, "target").await;
    assert!(
        second > first + (sizes[1] - sizes[0]) as i64 / 2,
        "{first} {second}"
    );
    open.write_all(b"after").unwrap();
    open.sync_all().unwrap();
    drop(open);
    for (unknown, path) in [("other", "target"), (volume, "nowhere")] {
        let error = host.expand(unknown, path, sizes[1]).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{unknown} {path}");
    }

    host.unpublish("target").await.unwrap();
    host.unstage().await.unwrap();
    host.grow(sizes[2]);
    host.stage(&kind).await.unwrap();
    let third = df(&host, "staging").await;
    assert!(
        third > second + (sizes[2] - sizes[1]) as i64 / 2,
        "{second} {third}"
    );
    assert_eq!(
        std::fs::read(host.path("staging/file")).unwrap(),
        b"before, after"
    );
    host.unstage().await.unwrap();
}

/// The kernel lets nobody grow a mounted ext4 without CAP_SYS_RESOURCE, which containers and some
/// virtual machines lack: `e2e/guest` runs it in a guest.
#[tokio::test]
#[ignore = "needs CAP_SYS_RESOURCE: e2e/guest runs it"]
async fn an_ext4_volume_grows_while_it_is_used_and_while_it_is_not() {
    growing("ext4-growing", "ext4", [64 << 20, 128 << 20, 192 << 20]).await;
}

#[tokio::test]
async fn an_xfs_volume_grows_while_it_is_used_and_while_it_is_not() {
    growing("xfs-growing", "xfs", [320 << 20, 640 << 20, 960 << 20]).await;
}

#[tokio::test]
async fn a_raw_block_volume_grows_under_whoever_has_it_open() {
    let host = Host::new("block-growing", 16 << 20);
    host.stage(&BLOCK).await.unwrap();
    host.publish("pods/device", &BLOCK, Mode::SingleNodeWriter, false)
        .await
        .unwrap();
    let open = std::fs::OpenOptions::new()
        .write(true)
        .open(host.path("pods/device"))
        .unwrap();
    assert!(open.write_all_at(&[7; 4096], 16 << 20).is_err());
    host.grow(32 << 20);
    let grown = host.expand("block-growing", "pods/device", 32 << 20).await;
    assert_eq!(grown.unwrap(), 32 << 20);
    open.write_all_at(&[7; 4096], (32 << 20) - 4096).unwrap();
    open.sync_all().unwrap();
    drop(open);
    let usage = host.stats("block-growing", "pods/device").await.unwrap();
    assert_eq!(usage[0].total, 32 << 20);
    host.unpublish("pods/device").await.unwrap();
    host.unstage().await.unwrap();
}
