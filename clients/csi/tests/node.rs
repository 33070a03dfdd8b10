//! The node service on real loop devices, file systems and mounts.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets a surprise has failed"
)]

mod support;

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use support::host::{BLOCK, Host, code, file_system, path};
use tonic::{Code, Request};
use weft_csi::attachments::Attachments;
use weft_csi::node::loopdev;
use weft_csi_proto as csi;
use weft_csi_proto::node_server::Node as _;
use weft_csi_proto::volume_capability::access_mode::Mode;
use weft_csi_proto::volume_usage::Unit;
use weft_spec::initiator::VolumePath;

/// From blank to written, restarted, read and taken away.
async fn whole_life_of(volume: &str, fs: &str, size: u64) {
    let mut host = Host::new(volume, size);
    let kind = file_system(fs);
    for _ in 0..10 {
        host.stage(&kind).await.unwrap();
    }
    assert_eq!(host.loops(), 1);
    let expected = json!({
        "initiator": "UserSpace", "source": "10.0.0.2:50000",
        "identity": weft_spec::nqn::volume(host.uid), "staged": true,
    });
    assert_eq!(host.observed(), expected);
    for _ in 0..10 {
        host.publish("target", &kind, Mode::SingleNodeWriter, false)
            .await
            .unwrap();
    }
    std::fs::write(host.path("target/file"), "bytes").unwrap();
    let early = host.unstage().await;
    assert_eq!(code(early), Code::FailedPrecondition);

    // The failed unstage took the staging mount, and a repeated stage brings it back.
    host.restart();
    host.stage(&kind).await.unwrap();
    assert_eq!(std::fs::read(host.path("staging/file")).unwrap(), b"bytes");
    host.publish("read-only", &kind, Mode::SingleNodeWriter, true)
        .await
        .unwrap();
    assert!(std::fs::write(host.path("read-only/file"), "x").is_err());
    assert_eq!(
        std::fs::read(host.path("read-only/file")).unwrap(),
        b"bytes"
    );
    let other_mode = host
        .publish("target", &kind, Mode::SingleNodeWriter, true)
        .await;
    assert_eq!(code(other_mode), Code::AlreadyExists);
    let second = host
        .publish("second", &kind, Mode::SingleNodeSingleWriter, false)
        .await;
    assert_eq!(code(second), Code::FailedPrecondition);

    let usage = host.stats(volume, "target").await.unwrap();
    assert_eq!(
        usage.iter().map(|u| u.unit()).collect::<Vec<_>>(),
        [Unit::Bytes, Unit::Inodes]
    );
    assert!(usage[0].total > 0 && usage[0].available > 0);
    for (unknown, path) in [("other", "target"), (volume, "nowhere"), (volume, "pods")] {
        let error = host.stats(unknown, path).await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound, "{unknown} {path}");
    }
    for target in ["target", "target", "read-only", "never"] {
        host.unpublish(target).await.unwrap();
        assert!(!host.path(target).exists());
    }
    host.unstage().await.unwrap();
    assert_eq!(host.loops(), 0);
    assert_eq!(
        host.observed(),
        json!({"initiator": "UserSpace", "staged": false})
    );
    host.unstage().await.unwrap();

    host.stage(&kind).await.unwrap();
    assert_eq!(std::fs::read(host.path("staging/file")).unwrap(), b"bytes");
    host.unstage().await.unwrap();
}

#[tokio::test]
async fn an_ext4_volume_lives_its_whole_life() {
    whole_life_of("ext4-volume", "", 64 << 20).await;
}

#[tokio::test]
async fn an_xfs_volume_lives_its_whole_life() {
    whole_life_of("xfs-volume", "xfs", 320 << 20).await;
}

#[tokio::test]
async fn a_raw_block_volume_is_the_device_itself() {
    let mut host = Host::new("block-volume", 16 << 20);
    for _ in 0..10 {
        host.stage(&BLOCK).await.unwrap();
        host.publish("pods/device", &BLOCK, Mode::SingleNodeWriter, false)
            .await
            .unwrap();
    }
    assert_eq!(host.loops(), 1);
    let device = std::fs::OpenOptions::new()
        .write(true)
        .open(host.path("pods/device"))
        .unwrap();
    device.write_all_at(b"raw bytes", 4096).unwrap();
    device.sync_all().unwrap();
    drop(device);
    let mut shown = [0; 9];
    std::fs::File::open(host.pod("volume"))
        .unwrap()
        .read_exact_at(&mut shown, 4096)
        .unwrap();
    assert_eq!(&shown, b"raw bytes");
    let usage = host.stats("block-volume", "pods/device").await.unwrap();
    assert_eq!((usage.len(), usage[0].total), (1, 16 << 20));
    assert_eq!(code(host.unstage().await), Code::FailedPrecondition);
    host.restart();
    host.unpublish("pods/device").await.unwrap();
    assert!(!host.path("pods/device").exists());
    host.unstage().await.unwrap();
    assert_eq!(host.loops(), 0);
    assert!(
        std::fs::read_dir(host.path("staging"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[tokio::test]
async fn data_that_nobody_knows_is_never_formatted_over() {
    let host = Host::new("foreign-volume", 16 << 20);
    let volume = std::fs::OpenOptions::new()
        .write(true)
        .open(host.pod("volume"))
        .unwrap();
    volume.write_all_at(b"precious", (16 << 20) - 100).unwrap();
    let error = host.stage(&file_system("ext4")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("not formatted over"), "{error}");
    let mut kept = Vec::new();
    std::fs::File::open(host.pod("volume"))
        .unwrap()
        .read_to_end(&mut kept)
        .unwrap();
    assert!(kept.ends_with(&[b"precious".as_slice(), &[0; 92]].concat()));
    host.unstage().await.unwrap();
    assert_eq!(host.loops(), 0);

    // Half a file system that this node itself began is nobody's data.
    let began = json!({"initiator": "UserSpace", "staged": true, "formatting": true});
    host.admit(path(1, "10.0.0.1:4420"), began);
    host.stage(&file_system("ext4")).await.unwrap();
    assert_eq!(host.observed()["formatting"], Value::Null);
    host.unstage().await.unwrap();
}

#[tokio::test]
async fn what_another_plugin_left_mounted_is_found_and_a_dead_device_replaced() {
    let host = Host::new("left-volume", 64 << 20);
    let kind = file_system("ext4");
    host.stage(&kind).await.unwrap();
    let device = loopdev::find(&host.name, "left-volume").remove(0);
    // The file behind is cut off: every read fails, as with an initiator that has gone.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(host.pod("volume"))
        .unwrap();
    file.set_len(0).unwrap();
    let dead = host
        .publish("target", &kind, Mode::SingleNodeWriter, false)
        .await;
    assert!(dead.is_err(), "a pod must not start on a dead device");
    std::fs::remove_file(host.pod("volume")).unwrap();
    std::fs::File::create(host.pod("volume"))
        .unwrap()
        .set_len(64 << 20)
        .unwrap();
    host.stage(&kind).await.unwrap();
    host.publish("target", &kind, Mode::SingleNodeWriter, false)
        .await
        .unwrap();
    let mut file = std::fs::File::create(host.path("target/file")).unwrap();
    file.write_all(b"alive").unwrap();
    file.sync_all().unwrap();
    drop(file);
    assert_eq!(host.loops(), 1, "{device:?} is gone");
    host.unpublish("target").await.unwrap();
    host.unstage().await.unwrap();
}

#[tokio::test]
async fn a_staged_volume_follows_its_engine() {
    let host = Host::new("moving-volume", 16 << 20);
    host.stage(&BLOCK).await.unwrap();
    let told = || std::fs::read_to_string(host.pod("path")).unwrap();
    assert_eq!(told(), "");
    let next = path(2, "10.0.0.9:4420");
    host.admit(next, host.observed());
    support::eventually("the initiator is told", || {
        serde_json::from_str::<VolumePath>(&told()).is_ok_and(|told| told == next)
    })
    .await;
    std::fs::write(host.pod("path"), "").unwrap();
    let observed = host.observed();
    host.show(next, true, 16 << 20);
    host.unstage().await.unwrap();
    // Not staged any more: a late word of the operator changes nothing.
    let mut left = observed;
    left["staged"] = json!(false);
    host.admit(path(3, "10.0.0.10:4420"), left);
    host.stage(&BLOCK).await.unwrap();
    let third: VolumePath = serde_json::from_str(&told()).unwrap();
    assert_eq!(third, path(3, "10.0.0.10:4420"));
    host.unstage().await.unwrap();
}

#[tokio::test]
async fn a_volume_that_is_not_admitted_here_is_not_staged() {
    let host = Host::new("other-volume", 16 << 20);
    let mut elsewhere = host.api.get("attachments", &host.attachment).unwrap();
    elsewhere["spec"]["node"] = json!("elsewhere");
    host.api.put("attachments", elsewhere);
    assert_eq!(code(host.stage(&BLOCK).await), Code::InvalidArgument);
    assert_eq!(
        code(
            host.publish("t", &BLOCK, Mode::SingleNodeWriter, false)
                .await
        ),
        Code::FailedPrecondition
    );
    assert_eq!(host.loops(), 0);
}

#[tokio::test]
async fn a_node_says_who_it_is_and_what_it_can() {
    let host = Host::new("any-volume", 1 << 20);
    let info = host
        .node
        .node_get_info(Request::new(csi::NodeGetInfoRequest {}))
        .await
        .unwrap();
    let info = info.into_inner();
    assert_eq!(info.node_id, host.name);
    assert!(info.max_volumes_per_node > 0 && info.accessible_topology.is_none());
    let (attachments, _changes) = Attachments::new(&host.api.client(), &host.name, "weft-system");
    attachments.label_node(false).await.unwrap();
    let node = host.api.get("nodes", &host.name).unwrap();
    assert_eq!(node["metadata"]["labels"]["weft.storage/nvme-tcp"], "false");
}
