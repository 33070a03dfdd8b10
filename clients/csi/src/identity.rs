//! The CSI Identity service.

use tonic::{Request, Response, Status};
use weft_csi_proto as csi;
use weft_csi_proto::plugin_capability::{
    Service, Type, VolumeExpansion, service, volume_expansion,
};

/// Name of the driver, as in CSIDriver and StorageClass.
pub const DRIVER: &str = "csi.weft.storage";

/// Answers who this plugin is. The same on both sides: the controller service is one
/// capability of the plugin, wherever it is asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Identity;

#[tonic::async_trait]
impl csi::identity_server::Identity for Identity {
    async fn get_plugin_info(
        &self,
        _request: Request<csi::GetPluginInfoRequest>,
    ) -> Result<Response<csi::GetPluginInfoResponse>, Status> {
        Ok(Response::new(csi::GetPluginInfoResponse {
            name: DRIVER.to_owned(),
            vendor_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..Default::default()
        }))
    }

    async fn get_plugin_capabilities(
        &self,
        _request: Request<csi::GetPluginCapabilitiesRequest>,
    ) -> Result<Response<csi::GetPluginCapabilitiesResponse>, Status> {
        // Every node reaches every volume over the fabric, so VOLUME_ACCESSIBILITY_CONSTRAINTS
        // is not claimed.
        let controller = Service {
            r#type: service::Type::ControllerService.into(),
        };
        // Also while no node uses the volume.
        let online = VolumeExpansion {
            r#type: volume_expansion::Type::Online.into(),
        };
        Ok(Response::new(csi::GetPluginCapabilitiesResponse {
            capabilities: [Type::Service(controller), Type::VolumeExpansion(online)]
                .map(|r#type| csi::PluginCapability {
                    r#type: Some(r#type),
                })
                .into(),
        }))
    }

    async fn probe(
        &self,
        _request: Request<csi::ProbeRequest>,
    ) -> Result<Response<csi::ProbeResponse>, Status> {
        Ok(Response::new(csi::ProbeResponse { ready: Some(true) }))
    }
}
