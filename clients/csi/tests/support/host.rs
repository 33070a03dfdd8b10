//! A node with the node service on it, and a plain directory in the place of an initiator pod.
//! Real loop devices, file systems and mounts: needs root, and says so by failing.

use super::Api;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tonic::{Code, Request, Status};
use weft_csi::attachments::Attachments;
use weft_csi::node::{Node, follow, loopdev, mount};
use weft_csi_proto as csi;
use weft_csi_proto::node_server::Node as _;
use weft_csi_proto::volume_capability::access_mode::Mode;
use weft_csi_proto::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::ids::{Term, VolumeUid};
use weft_spec::initiator::{InitiatorStatus, VolumePath};

/// A node with one admitted volume; takes away what a test left.
pub struct Host {
    pub api: Api,
    pub node: Node,
    pub name: String,
    pub volume: String,
    pub attachment: String,
    pub uid: VolumeUid,
    pub dir: tempfile::TempDir,
    pub follower: tokio::task::JoinHandle<()>,
}

impl Host {
    pub fn new(volume: &str, size: u64) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests mount and need root"
        );
        // Not the system's temporary directory: that may be a tmpfs, which has no direct I/O.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let name = format!("test-{}", std::process::id());
        let attachment = weft_csi::names::attachment(volume, &name);
        let uid = VolumeUid::random();
        let pod = dir.path().join("pods/initiator");
        std::fs::create_dir_all(&pod).unwrap();
        std::fs::File::create(pod.join("volume"))
            .unwrap()
            .set_len(size)
            .unwrap();
        std::fs::write(pod.join("path"), "").unwrap();
        let api = Api::new();
        let kind = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        api.put("nodes", kind);
        let (node, follower) = plugin(&api, &name, dir.path());
        let volume = volume.to_owned();
        let host = Self {
            api,
            node,
            name,
            volume,
            attachment,
            uid,
            dir,
            follower,
        };
        host.show(path(1, "10.0.0.1:4420"), true, size);
        host.admit(path(1, "10.0.0.1:4420"), json!(null));
        host
    }

    /// What the initiator's pod shows.
    pub fn show(&self, path: VolumePath, connected: bool, size: u64) {
        let status = InitiatorStatus {
            version: DOCUMENT_VERSION,
            volume: self.uid,
            connected,
            path,
            local: Some("10.0.0.2:50000".parse().unwrap()),
            identity: Some(weft_spec::nqn::volume(self.uid)),
            size,
            reason: String::new(),
        };
        std::fs::write(self.pod("status"), serde_json::to_vec(&status).unwrap()).unwrap();
    }

    /// What the operator writes.
    pub fn admit(&self, path: VolumePath, observed: Value) {
        let mut status = json!({
            "phase": "Admitted",
            "address": path.address.to_string(),
            "term": path.term.0,
            "subsystemNqn": weft_spec::nqn::volume(self.uid),
            "initiator": "UserSpace",
            "initiatorPod": "initiator",
        });
        if !observed.is_null() {
            status["observed"] = observed;
        }
        self.api.put(
            "attachments",
            json!({
                "apiVersion": "weft.storage/v1alpha1", "kind": "Attachment",
                "metadata": {"name": self.attachment},
                "spec": {"volume": self.volume, "node": self.name},
                "status": status,
            }),
        );
    }

    /// A plugin that knows nothing of the one before.
    pub fn restart(&mut self) {
        self.follower.abort();
        (self.node, self.follower) = plugin(&self.api, &self.name, self.dir.path());
    }

    pub fn pod(&self, file: &str) -> PathBuf {
        self.dir.path().join("pods/initiator").join(file)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn observed(&self) -> Value {
        self.api.get("attachments", &self.attachment).unwrap()["status"]["observed"].clone()
    }

    pub fn loops(&self) -> usize {
        loopdev::find(&self.name, &self.volume).len()
    }

    pub async fn stage(&self, kind: &AccessType) -> Result<(), Status> {
        let context = HashMap::from([("attachment".to_owned(), self.attachment.clone())]);
        let mut request = Request::new(csi::NodeStageVolumeRequest {
            volume_id: self.volume.clone(),
            staging_target_path: self.text("staging"),
            volume_capability: Some(capability(kind, Mode::SingleNodeWriter)),
            publish_context: context,
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("grpc-timeout", "20S".parse().unwrap());
        self.node.node_stage_volume(request).await.map(drop)
    }

    pub async fn unstage(&self) -> Result<(), Status> {
        let request = csi::NodeUnstageVolumeRequest {
            volume_id: self.volume.clone(),
            staging_target_path: self.text("staging"),
        };
        self.node
            .node_unstage_volume(Request::new(request))
            .await
            .map(drop)
    }

    pub async fn publish(
        &self,
        target: &str,
        kind: &AccessType,
        mode: Mode,
        readonly: bool,
    ) -> Result<(), Status> {
        let request = csi::NodePublishVolumeRequest {
            volume_id: self.volume.clone(),
            staging_target_path: self.text("staging"),
            target_path: self.text(target),
            volume_capability: Some(capability(kind, mode)),
            readonly,
            ..Default::default()
        };
        self.node
            .node_publish_volume(Request::new(request))
            .await
            .map(drop)
    }

    pub async fn unpublish(&self, target: &str) -> Result<(), Status> {
        let request = csi::NodeUnpublishVolumeRequest {
            volume_id: self.volume.clone(),
            target_path: self.text(target),
        };
        self.node
            .node_unpublish_volume(Request::new(request))
            .await
            .map(drop)
    }

    /// The engine has made the volume larger, and the initiator shows it.
    pub fn grow(&self, size: u64) {
        let volume = std::fs::OpenOptions::new()
            .write(true)
            .open(self.pod("volume"))
            .unwrap();
        volume.set_len(size).unwrap();
        self.show(path(1, "10.0.0.1:4420"), true, size);
    }

    pub async fn expand(&self, volume: &str, path: &str, required: u64) -> Result<u64, Status> {
        let mut request = Request::new(csi::NodeExpandVolumeRequest {
            volume_id: volume.to_owned(),
            volume_path: self.text(path),
            capacity_range: Some(csi::CapacityRange {
                required_bytes: required as i64,
                limit_bytes: 0,
            }),
            ..Default::default()
        });
        request
            .metadata_mut()
            .insert("grpc-timeout", "2S".parse().unwrap());
        let answer = self.node.node_expand_volume(request).await?;
        Ok(answer.into_inner().capacity_bytes as u64)
    }

    pub async fn stats(&self, volume: &str, path: &str) -> Result<Vec<csi::VolumeUsage>, Status> {
        let request = csi::NodeGetVolumeStatsRequest {
            volume_id: volume.to_owned(),
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

impl Drop for Host {
    fn drop(&mut self) {
        self.follower.abort();
        let table = mount::table().unwrap_or_default();
        let root = self.dir.path();
        for entry in table
            .iter()
            .rev()
            .filter(|entry| entry.target.starts_with(root))
        {
            let _ = mount::detach(&entry.target);
        }
        for device in loopdev::find(&self.name, &self.volume) {
            let _ = device.detach();
        }
    }
}

pub fn plugin(api: &Api, name: &str, dir: &Path) -> (Node, tokio::task::JoinHandle<()>) {
    let (attachments, changes) = Attachments::new(&api.client(), name, "weft-system");
    let node = Node::new(attachments, dir.join("pods"));
    let follower = tokio::spawn(follow(node.clone(), changes));
    (node, follower)
}

pub fn path(term: u64, address: &str) -> VolumePath {
    VolumePath {
        term: Term(term),
        address: address.parse().unwrap(),
    }
}

pub fn capability(kind: &AccessType, mode: Mode) -> csi::VolumeCapability {
    csi::VolumeCapability {
        access_mode: Some(AccessMode { mode: mode.into() }),
        access_type: Some(kind.clone()),
    }
}

pub fn file_system(fs_type: &str) -> AccessType {
    let fs_type = fs_type.to_owned();
    AccessType::Mount(MountVolume {
        fs_type,
        ..Default::default()
    })
}

pub const BLOCK: AccessType = AccessType::Block(BlockVolume {});

pub fn code(answer: Result<(), Status>) -> Code {
    answer.map_or_else(|status| status.code(), |()| Code::Ok)
}
