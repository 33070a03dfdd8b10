//! The node service with the kernel's own NVMe/TCP initiator.
//!
//! Needs a Linux kernel with `nvme-tcp` and, for the other end, `nvmet-tcp`, which most
//! machines that build this have not: `e2e/guest` runs it in a guest that has both.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets a surprise has failed"
)]

mod support;

use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use support::Api;
use tonic::{Request, Status};
use uuid::Uuid;
use weft_csi::attachments::Attachments;
use weft_csi::node::connect_kernel::{Controller, KernelInitiator};
use weft_csi::node::{Node, follow};
use weft_csi_proto as csi;
use weft_csi_proto::node_server::Node as _;
use weft_csi_proto::volume_capability::access_mode::Mode;
use weft_csi_proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use weft_spec::ids::{AttachGeneration, VolumeUid};
use weft_spec::keys::Key;
use weft_spec::nqn::{self, HostNqn};

const NODE: &str = "n4";
const VOLUME: &str = "kernel-volume";
const CONFIG: &str = "/sys/kernel/config/nvmet";

/// The kernel's target with one namespace behind two ports, as two engines of one volume.
struct Target {
    uid: VolumeUid,
    _file: tempfile::NamedTempFile,
}

impl Target {
    fn new(size: u64) -> Self {
        let uid = VolumeUid::random();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let subsystem = format!("{CONFIG}/subsystems/{}", nqn::volume(uid));
        let namespace = format!("{subsystem}/namespaces/1");
        std::fs::create_dir(&subsystem).unwrap();
        std::fs::create_dir(&namespace).unwrap();
        write(&subsystem, "attr_allow_any_host", "1");
        write(&namespace, "device_path", file.path().to_str().unwrap());
        write(&namespace, "buffered_io", "1");
        write(&namespace, "device_uuid", &uid.to_string());
        write(&namespace, "enable", "1");
        for port in [1, 2] {
            let dir = format!("{CONFIG}/ports/{port}");
            std::fs::create_dir(&dir).unwrap();
            write(&dir, "addr_trtype", "tcp");
            write(&dir, "addr_adrfam", "ipv4");
            write(&dir, "addr_traddr", "127.0.0.1");
            write(&dir, "addr_trsvcid", &(4420 + port).to_string());
            let name = nqn::volume(uid);
            std::os::unix::fs::symlink(&subsystem, format!("{dir}/subsystems/{name}")).unwrap();
        }
        Self { uid, _file: file }
    }

    /// Controllers of each engine have numbers of their own, as those of Weft's engines have:
    /// Linux refuses one that it knows, even from a controller that it has lost.
    fn numbers_from(&self, term: u64) {
        let subsystem = format!("{CONFIG}/subsystems/{}", nqn::volume(self.uid));
        write(&subsystem, "attr_cntlid_min", &(16 * term).to_string());
    }

    fn open(&self, port: u16) {
        let name = nqn::volume(self.uid);
        let link = format!("{CONFIG}/ports/{port}/subsystems/{name}");
        std::os::unix::fs::symlink(format!("{CONFIG}/subsystems/{name}"), link).unwrap();
    }

    fn close(&self, port: u16) {
        let name = nqn::volume(self.uid);
        std::fs::remove_file(format!("{CONFIG}/ports/{port}/subsystems/{name}")).unwrap();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        let name = nqn::volume(self.uid);
        for port in [1, 2] {
            let dir = format!("{CONFIG}/ports/{port}");
            let _ = std::fs::remove_file(format!("{dir}/subsystems/{name}"));
            let _ = std::fs::remove_dir(dir);
        }
        let subsystem = format!("{CONFIG}/subsystems/{name}");
        let _ = std::fs::remove_dir(format!("{subsystem}/namespaces/1"));
        let _ = std::fs::remove_dir(subsystem);
    }
}

fn write(dir: &str, name: &str, text: &str) {
    std::fs::write(Path::new(dir).join(name), text).unwrap();
}

struct Host {
    api: Api,
    node: Node,
    target: Target,
    host: HostNqn,
    dir: tempfile::TempDir,
}

impl Host {
    fn new(size: u64) -> Self {
        let api = Api::new();
        let target = Target::new(size);
        let (attachments, changes) = Attachments::new(&api.client(), NODE, "weft-system");
        let dir = tempfile::tempdir().unwrap();
        let node = Node::new(attachments, dir.path().join("pods"));
        tokio::spawn(follow(node.clone(), changes));
        let host = HostNqn::host(&Key::random(), target.uid, NODE, AttachGeneration(1));
        let encoded = base64(host.expose().as_bytes());
        api.put(
            "secrets",
            json!({
                "apiVersion": "v1", "kind": "Secret",
                "metadata": {"name": "the-secret", "namespace": "weft-system"},
                "data": {"host-nqn": encoded},
            }),
        );
        let this = Self {
            api,
            node,
            target,
            host,
            dir,
        };
        this.admit(1, 1);
        this
    }

    fn name() -> String {
        weft_csi::names::attachment(VOLUME, NODE)
    }

    /// The engine of this term listens on this port of the target.
    fn admit(&self, term: u64, port: u16) {
        let observed = self.observed();
        let mut status = json!({
            "phase": "Admitted", "term": term,
            "address": format!("127.0.0.1:{}", 4420 + port),
            "subsystemNqn": nqn::volume(self.target.uid),
            "hostId": self.host.host_id().to_string(),
            "secretName": "the-secret", "initiator": "Kernel",
        });
        if !observed.is_null() {
            status["observed"] = observed;
        }
        self.api.put(
            "attachments",
            json!({
                "apiVersion": "weft.storage/v1alpha1", "kind": "Attachment",
                "metadata": {"name": Self::name()},
                "spec": {"volume": VOLUME, "node": NODE},
                "status": status,
            }),
        );
    }

    fn observed(&self) -> Value {
        let there = self.api.get("attachments", &Self::name());
        there.map_or(Value::Null, |attachment| {
            attachment["status"]["observed"].clone()
        })
    }

    fn controllers(&self) -> Vec<Controller> {
        KernelInitiator::default().controllers(&nqn::volume(self.target.uid))
    }

    fn ports(&self) -> Vec<u16> {
        let all = self.controllers();
        all.into_iter()
            .filter_map(|controller| Some(controller.address?.port() - 4420))
            .collect()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    async fn stage(&self, kind: &AccessType) -> Result<(), Status> {
        let request = csi::NodeStageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.text("staging"),
            volume_capability: Some(capability(kind)),
            publish_context: HashMap::from([("attachment".to_owned(), Self::name())]),
            ..Default::default()
        };
        self.node
            .node_stage_volume(Request::new(request))
            .await
            .map(drop)
    }

    async fn unstage(&self) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.text("staging"),
        };
        self.node
            .node_unstage_volume(Request::new(request))
            .await
            .map(drop)
    }

    async fn publish(&self, target: &str, kind: &AccessType) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            staging_target_path: self.text("staging"),
            target_path: self.text(target),
            volume_capability: Some(capability(kind)),
            ..Default::default()
        };
        self.node
            .node_publish_volume(Request::new(request))
            .await
            .map(drop)
    }

    async fn unpublish(&self, target: &str) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: VOLUME.to_owned(),
            target_path: self.text(target),
        };
        self.node
            .node_unpublish_volume(Request::new(request))
            .await
            .map(drop)
    }

    async fn stats(&self, path: &str) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: VOLUME.to_owned(),
            volume_path: self.text(path),
            ..Default::default()
        };
        Ok(self
            .node
            .node_get_volume_stats(Request::new(request))
            .await?
            .into_inner()
            .usage)
    }
}

fn capability(kind: &AccessType) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(kind.clone()),
    }
}

fn base64(bytes: &[u8]) -> String {
    let encoded = serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap();
    encoded.as_str().unwrap().to_owned()
}

#[tokio::test]
#[ignore = "needs nvme-tcp and nvmet-tcp: run by e2e/guest"]
async fn the_kernel_connects_follows_and_disconnects() {
    assert!(KernelInitiator::default().is_usable());
    let host = Host::new(64 << 20);
    let kind = AccessType::Mount(MountVolume::default());
    for _ in 0..3 {
        host.stage(&kind).await.unwrap();
        host.publish("target", &kind).await.unwrap();
    }
    assert_eq!(host.ports(), [1]);
    let expected = json!({
        "initiator": "Kernel", "source": "127.0.0.1",
        "identity": nqn::volume(host.target.uid), "staged": true,
    });
    assert_eq!(host.observed(), expected);
    assert_eq!(host.stats("target").await.unwrap().len(), 2);
    std::fs::write(host.path("target/before"), "the move").unwrap();

    // Other engines, while the older one still answers and when it does not.
    let mut port = 1;
    for term in 2..30 {
        if term % 2 == 0 {
            host.target.close(port);
        }
        let (before, after) = (port, 3 - port);
        host.target.numbers_from(term);
        host.admit(term, after);
        support::eventually("the new path alone", || host.ports() == [after]).await;
        let mut file = std::fs::File::create(host.path("target/after")).unwrap();
        std::io::Write::write_all(&mut file, term.to_string().as_bytes()).unwrap();
        file.sync_all().unwrap();
        if term % 2 == 0 {
            host.target.open(before);
        }
        port = after;
    }
    assert_eq!(std::fs::read(host.path("target/after")).unwrap(), b"29");

    assert_eq!(
        host.unstage().await.unwrap_err().code(),
        tonic::Code::FailedPrecondition
    );
    assert_eq!(host.ports(), [port]);
    host.unpublish("target").await.unwrap();
    for _ in 0..2 {
        host.unstage().await.unwrap();
        assert!(host.controllers().is_empty());
        assert_eq!(
            host.observed(),
            json!({"initiator": "Kernel", "staged": false})
        );
    }
    host.stage(&kind).await.unwrap();
    assert_eq!(
        std::fs::read(host.path("staging/before")).unwrap(),
        b"the move"
    );
    assert_eq!(std::fs::read(host.path("staging/after")).unwrap(), b"29");
    host.unstage().await.unwrap();

    let block = AccessType::Block(BlockVolume {});
    for _ in 0..3 {
        host.stage(&block).await.unwrap();
        host.publish("device", &block).await.unwrap();
    }
    assert_eq!(
        host.stats("device").await.unwrap().first().unwrap().total,
        64 << 20
    );
    host.unpublish("device").await.unwrap();
    host.unstage().await.unwrap();
    assert!(host.controllers().is_empty());
}

#[tokio::test]
#[ignore = "needs nvme-tcp and nvmet-tcp: run by e2e/guest"]
async fn an_engine_that_is_not_there_is_told_and_leaves_nothing() {
    let host = Host::new(16 << 20);
    host.target.close(1);
    host.target.close(2);
    let error = host
        .stage(&AccessType::Block(BlockVolume {}))
        .await
        .unwrap_err();
    assert_eq!(error.code(), tonic::Code::Unavailable, "{error}");
    assert!(error.message().contains("127.0.0.1:4421"), "{error}");
    assert!(host.controllers().is_empty());
    let nobody = KernelInitiator::default().device(&nqn::volume(host.target.uid), Uuid::nil());
    assert_eq!(nobody, None);
}
