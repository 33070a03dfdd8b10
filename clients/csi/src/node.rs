//! The CSI Node service: from an Attachment to a file system or a device in a pod.
//!
//! | file | what |
//! | --- | --- |
//! | `node/stage.rs` | NodeStageVolume and NodeUnstageVolume |
//! | `node/publish.rs` | NodePublishVolume, NodeUnpublishVolume and statistics |
//! | `node/expand.rs` | NodeExpandVolume |
//! | `node/follow.rs` | a staged volume whose engine moves |
//! | [`connect_kernel`], [`connect_user`], [`loopdev`] | the two ways to a block device |
//! | [`filesystem`], [`mount`], [`device`], [`stats`] | what is done with one |
//!
//! Nothing is remembered between calls: the kernel's mount table, loop devices and NVMe
//! controllers, and the API server say what there is. A plugin that restarts touches none of
//! it.

pub mod blocking;
pub mod connect_kernel;
pub mod connect_user;
pub mod device;
mod expand;
pub mod filesystem;
mod follow;
mod ioctl;
pub mod loopdev;
pub mod mount;
mod publish;
mod stage;
pub mod stats;

use crate::attachments::Attachments;
use crate::locks::Locks;
use crate::waiting::deadline;
use connect_kernel::KernelInitiator;
use std::path::PathBuf;
use std::time::Duration;
use tonic::{Request, Response, Status};
use weft_csi_proto as csi;
use weft_csi_proto::node_service_capability::{Rpc, Type, rpc};

pub use follow::follow;

/// Volumes that a node may have. More is possible; the scheduler needs a number, and each
/// user-space volume is a loop device and a pod.
const MOST_VOLUMES: i64 = 128;
/// How long a device may take to answer one read before a pod is told to wait.
const ALIVE: Duration = Duration::from_secs(10);

/// The service. Cloned for each operation; all clones are one.
#[derive(Clone)]
pub struct Node {
    attachments: Attachments,
    kernel: KernelInitiator,
    /// Where the initiator pods mount their directories.
    initiators: PathBuf,
    sys: PathBuf,
    /// One call per volume; the next is told to come again.
    calls: Locks,
    /// Whoever changes what a volume has on this node, calls and [`follow`] alike, in turn.
    hands: Locks,
}

impl Node {
    /// For the node of these Attachments; `initiators` is where initiator pods mount.
    pub fn new(attachments: Attachments, initiators: PathBuf) -> Self {
        Self {
            attachments,
            kernel: KernelInitiator::default(),
            initiators,
            sys: "/sys".into(),
            calls: Locks::default(),
            hands: Locks::default(),
        }
    }

    /// Runs one operation on a volume to its end, also when the caller has given up waiting:
    /// half a mount that nobody remembers is worse than a late one, and the caller's next
    /// call finds the work done, or is told that it is under way.
    async fn to_the_end<T: Send + 'static>(
        &self,
        volume: &str,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let call = self.calls.take(volume)?;
        let (hands, volume) = (self.hands.clone(), volume.to_owned());
        let task = tokio::spawn(async move {
            let _both = (call, hands.wait(&volume).await);
            work.await
        });
        task.await
            .map_err(|error| Status::internal(format!("an operation stopped: {error}")))?
    }
}

/// A field that must be there.
fn required<'a>(text: &'a str, what: &str) -> Result<&'a str, Status> {
    match text.is_empty() {
        true => Err(Status::invalid_argument(format!("{what} is missing"))),
        false => Ok(text),
    }
}

/// A path that must be there and absolute.
fn path(text: &str, what: &str) -> Result<PathBuf, Status> {
    match mount::is_absolute(required(text, what)?) {
        true => Ok(text.into()),
        false => Err(Status::invalid_argument(format!(
            "{what} is not an absolute path"
        ))),
    }
}

#[tonic::async_trait]
impl csi::node_server::Node for Node {
    async fn node_stage_volume(
        &self,
        request: Request<csi::NodeStageVolumeRequest>,
    ) -> Result<Response<csi::NodeStageVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        let wanted = stage::Wanted::parse(request.into_inner())?;
        let (node, volume) = (self.clone(), wanted.volume.clone());
        self.to_the_end(&volume, async move { node.stage(wanted, end).await })
            .await?;
        Ok(Response::new(csi::NodeStageVolumeResponse {}))
    }

    async fn node_unstage_volume(
        &self,
        request: Request<csi::NodeUnstageVolumeRequest>,
    ) -> Result<Response<csi::NodeUnstageVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = required(&request.volume_id, "volume id")?.to_owned();
        let staging = path(&request.staging_target_path, "staging target path")?;
        let (node, id) = (self.clone(), volume.clone());
        self.to_the_end(&id, async move { node.unstage(&volume, staging).await })
            .await?;
        Ok(Response::new(csi::NodeUnstageVolumeResponse {}))
    }

    async fn node_publish_volume(
        &self,
        request: Request<csi::NodePublishVolumeRequest>,
    ) -> Result<Response<csi::NodePublishVolumeResponse>, Status> {
        let wanted = publish::Wanted::parse(request.into_inner())?;
        let (node, volume) = (self.clone(), wanted.volume.clone());
        self.to_the_end(&volume, async move { node.publish(wanted).await })
            .await?;
        Ok(Response::new(csi::NodePublishVolumeResponse {}))
    }

    async fn node_unpublish_volume(
        &self,
        request: Request<csi::NodeUnpublishVolumeRequest>,
    ) -> Result<Response<csi::NodeUnpublishVolumeResponse>, Status> {
        let request = request.into_inner();
        let volume = required(&request.volume_id, "volume id")?;
        let target = path(&request.target_path, "target path")?;
        self.to_the_end(volume, async move { publish::unpublish(target).await })
            .await?;
        Ok(Response::new(csi::NodeUnpublishVolumeResponse {}))
    }

    async fn node_expand_volume(
        &self,
        request: Request<csi::NodeExpandVolumeRequest>,
    ) -> Result<Response<csi::NodeExpandVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        let wanted = expand::Wanted::parse(request.into_inner())?;
        let (node, volume) = (self.clone(), wanted.volume.clone());
        let size = self
            .to_the_end(&volume, async move { node.expand(wanted, end).await })
            .await?;
        Ok(Response::new(csi::NodeExpandVolumeResponse {
            capacity_bytes: i64::try_from(size).unwrap_or(i64::MAX),
        }))
    }

    async fn node_get_volume_stats(
        &self,
        request: Request<csi::NodeGetVolumeStatsRequest>,
    ) -> Result<Response<csi::NodeGetVolumeStatsResponse>, Status> {
        let request = request.into_inner();
        let volume = required(&request.volume_id, "volume id")?;
        let usage = self
            .stats(volume, path(&request.volume_path, "volume path")?)
            .await?;
        Ok(Response::new(csi::NodeGetVolumeStatsResponse { usage }))
    }

    async fn node_get_capabilities(
        &self,
        _request: Request<csi::NodeGetCapabilitiesRequest>,
    ) -> Result<Response<csi::NodeGetCapabilitiesResponse>, Status> {
        use rpc::Type::*;
        let capabilities = [
            StageUnstageVolume,
            GetVolumeStats,
            SingleNodeMultiWriter,
            ExpandVolume,
        ];
        let capabilities = capabilities
            .map(|rpc| csi::NodeServiceCapability {
                r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
            })
            .into();
        Ok(Response::new(csi::NodeGetCapabilitiesResponse {
            capabilities,
        }))
    }

    async fn node_get_info(
        &self,
        _request: Request<csi::NodeGetInfoRequest>,
    ) -> Result<Response<csi::NodeGetInfoResponse>, Status> {
        Ok(Response::new(csi::NodeGetInfoResponse {
            node_id: self.attachments.node().to_owned(),
            max_volumes_per_node: MOST_VOLUMES,
            // Every node reaches every volume.
            accessible_topology: None,
        }))
    }
}
