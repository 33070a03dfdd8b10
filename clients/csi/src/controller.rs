//! The CSI Controller service: volumes and attachments as objects of the API server.
//!
//! It keeps nothing in memory but the locks. Every answer is read from the API server at the
//! moment of the call, never from a cache, since callers compare answers with what they did
//! just before.

pub mod answer;
mod expand;
pub mod parameters;
mod publish;
mod volumes;
mod wanted;

pub use publish::ATTACHMENT;

use crate::locks::Locks;
use crate::waiting::deadline;
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client};
use std::collections::HashMap;
use tonic::{Request, Response, Status};
use weft_crds::{Attachment, Pool, Volume};
use weft_csi_proto as csi;

/// The service.
#[derive(Clone)]
pub struct Controller {
    volumes: Api<Volume>,
    attachments: Api<Attachment>,
    pools: Api<Pool>,
    nodes: Api<Node>,
    locks: Locks,
}

impl Controller {
    /// Over this client.
    pub fn new(client: &Client) -> Self {
        Self {
            volumes: Api::all(client.clone()),
            attachments: Api::all(client.clone()),
            pools: Api::all(client.clone()),
            nodes: Api::all(client.clone()),
            locks: Locks::default(),
        }
    }
}

#[tonic::async_trait]
impl csi::controller_server::Controller for Controller {
    async fn create_volume(
        &self,
        request: Request<csi::CreateVolumeRequest>,
    ) -> Result<Response<csi::CreateVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        let volume = self.create(request.into_inner(), end).await?;
        Ok(Response::new(csi::CreateVolumeResponse {
            volume: Some(volume),
        }))
    }

    async fn delete_volume(
        &self,
        request: Request<csi::DeleteVolumeRequest>,
    ) -> Result<Response<csi::DeleteVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        self.delete(&request.into_inner().volume_id, end).await?;
        Ok(Response::new(csi::DeleteVolumeResponse {}))
    }

    async fn controller_publish_volume(
        &self,
        request: Request<csi::ControllerPublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerPublishVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        let name = self.publish(request.into_inner(), end).await?;
        let publish_context = HashMap::from([(ATTACHMENT.to_owned(), name)]);
        Ok(Response::new(csi::ControllerPublishVolumeResponse {
            publish_context,
        }))
    }

    async fn controller_unpublish_volume(
        &self,
        request: Request<csi::ControllerUnpublishVolumeRequest>,
    ) -> Result<Response<csi::ControllerUnpublishVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        let request = request.into_inner();
        self.unpublish(&request.volume_id, &request.node_id, end)
            .await?;
        Ok(Response::new(csi::ControllerUnpublishVolumeResponse {}))
    }

    async fn controller_expand_volume(
        &self,
        request: Request<csi::ControllerExpandVolumeRequest>,
    ) -> Result<Response<csi::ControllerExpandVolumeResponse>, Status> {
        let end = deadline(request.metadata());
        Ok(Response::new(self.expand(request.into_inner(), end).await?))
    }

    async fn validate_volume_capabilities(
        &self,
        request: Request<csi::ValidateVolumeCapabilitiesRequest>,
    ) -> Result<Response<csi::ValidateVolumeCapabilitiesResponse>, Status> {
        Ok(Response::new(self.validate(request.into_inner()).await?))
    }

    async fn list_volumes(
        &self,
        request: Request<csi::ListVolumesRequest>,
    ) -> Result<Response<csi::ListVolumesResponse>, Status> {
        Ok(Response::new(self.list(request.get_ref()).await?))
    }

    async fn controller_get_volume(
        &self,
        request: Request<csi::ControllerGetVolumeRequest>,
    ) -> Result<Response<csi::ControllerGetVolumeResponse>, Status> {
        Ok(Response::new(self.get(&request.get_ref().volume_id).await?))
    }

    async fn controller_get_capabilities(
        &self,
        _request: Request<csi::ControllerGetCapabilitiesRequest>,
    ) -> Result<Response<csi::ControllerGetCapabilitiesResponse>, Status> {
        let capabilities = answer::capabilities();
        Ok(Response::new(csi::ControllerGetCapabilitiesResponse {
            capabilities,
        }))
    }
}
