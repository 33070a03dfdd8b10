//! The CSI services and messages, version 1.13.0, generated from `proto/csi.proto`
//! (github.com/container-storage-interface/spec, Apache-2.0).

tonic::include_proto!("csi.v1");

/// The kubelet's plugin registration, version 1, from `proto/pluginregistration.proto`.
pub mod registration {
    tonic::include_proto!("pluginregistration");
}
