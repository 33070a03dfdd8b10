//! Answers that need no API server. Pure.

use crate::capabilities;
use tonic::Status;
use weft_csi_proto as csi;
use weft_csi_proto::controller_service_capability::{Rpc, Type, rpc};

/// What the controller service can do.
pub fn capabilities() -> Vec<csi::ControllerServiceCapability> {
    use rpc::Type::*;
    [
        CreateDeleteVolume,
        PublishUnpublishVolume,
        PublishReadonly,
        ListVolumes,
        ListVolumesPublishedNodes,
        GetVolume,
        SingleNodeMultiWriter,
        ExpandVolume,
    ]
    .map(|rpc| csi::ControllerServiceCapability {
        r#type: Some(Type::Rpc(Rpc { r#type: rpc.into() })),
    })
    .into()
}

/// NOT_FOUND for a volume.
pub fn unknown_volume(name: &str) -> Status {
    Status::not_found(format!(
        "there is no volume {name} (kubectl get volumes.weft.storage)"
    ))
}

/// Confirms the capabilities, or says which of them cannot be had.
pub fn validated(
    request: csi::ValidateVolumeCapabilitiesRequest,
) -> csi::ValidateVolumeCapabilitiesResponse {
    match capabilities::check_all(&request.volume_capabilities) {
        Ok(()) => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: Some(csi::validate_volume_capabilities_response::Confirmed {
                volume_context: request.volume_context,
                volume_capabilities: request.volume_capabilities,
                parameters: request.parameters,
                mutable_parameters: request.mutable_parameters,
            }),
            message: String::new(),
        },
        Err(status) => csi::ValidateVolumeCapabilitiesResponse {
            confirmed: None,
            message: status.message().to_owned(),
        },
    }
}
