//! Registration with the kubelet, without a registrar beside the plugin.
//!
//! The kubelet watches its registration directory, calls `GetInfo` on each new socket in it
//! and then tells the outcome (k8s.io/kubelet pluginregistration v1).

use crate::identity::DRIVER;
use tonic::{Request, Response, Status};
use weft_csi_proto::registration as v1;

/// Version of the CSI interface as the kubelet compares it: it knows "1.x".
const CSI_VERSION: &str = "1.0.0";

/// The registration service of the node plugin.
#[derive(Clone, Debug)]
pub struct Registration {
    endpoint: String,
}

impl Registration {
    /// `endpoint` is the path of the CSI socket as the kubelet sees it.
    pub fn new(endpoint: String) -> Self {
        Self { endpoint }
    }
}

#[tonic::async_trait]
impl v1::registration_server::Registration for Registration {
    async fn get_info(
        &self,
        _request: Request<v1::InfoRequest>,
    ) -> Result<Response<v1::PluginInfo>, Status> {
        Ok(Response::new(v1::PluginInfo {
            r#type: "CSIPlugin".to_owned(),
            name: DRIVER.to_owned(),
            endpoint: self.endpoint.clone(),
            supported_versions: vec![CSI_VERSION.to_owned()],
        }))
    }

    async fn notify_registration_status(
        &self,
        request: Request<v1::RegistrationStatus>,
    ) -> Result<Response<v1::RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!(driver = DRIVER, "the kubelet registered the plugin");
        } else {
            tracing::error!(
                driver = DRIVER,
                error = status.error,
                "the kubelet refused the plugin"
            );
        }
        Ok(Response::new(v1::RegistrationStatusResponse {}))
    }
}
