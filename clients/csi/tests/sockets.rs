//! The services over their Unix sockets.

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use weft_csi::identity::{DRIVER, Identity};
use weft_csi::liveness;
use weft_csi::registration::Registration;
use weft_csi::server::Socket;
use weft_csi_proto as csi;
use weft_csi_proto::identity_client::IdentityClient;
use weft_csi_proto::identity_server::IdentityServer;
use weft_csi_proto::plugin_capability::{
    Service, Type, VolumeExpansion, service, volume_expansion,
};
use weft_csi_proto::registration as v1;
use weft_csi_proto::registration::registration_client::RegistrationClient;
use weft_csi_proto::registration::registration_server::RegistrationServer;

#[tokio::test]
async fn the_kubelet_and_the_sidecars_learn_who_the_plugin_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plugins/csi.sock");
    let mut socket = Socket::bind(&path).unwrap();
    let stop = CancellationToken::new();
    let services = Server::builder()
        .add_service(IdentityServer::new(Identity))
        .add_service(RegistrationServer::new(Registration::new(
            "/host/csi.sock".to_owned(),
        )));
    let incoming = socket.incoming().unwrap();
    let server = tokio::spawn(
        services.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned()),
    );

    liveness::probe(&path).await.unwrap();
    let channel = liveness::dial(&path).await.unwrap();
    let mut identity = IdentityClient::new(channel.clone());
    let info = identity
        .get_plugin_info(csi::GetPluginInfoRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(info.name, DRIVER);
    assert!(!info.vendor_version.is_empty());
    let capabilities = identity
        .get_plugin_capabilities(csi::GetPluginCapabilitiesRequest {})
        .await
        .unwrap();
    let capabilities = capabilities.into_inner().capabilities;
    let has = |wanted: Type| capabilities.iter().any(|c| c.r#type == Some(wanted));
    assert!(has(Type::Service(Service {
        r#type: service::Type::ControllerService.into(),
    })));
    assert!(has(Type::VolumeExpansion(VolumeExpansion {
        r#type: volume_expansion::Type::Online.into(),
    })));
    assert_eq!(capabilities.len(), 2);

    let mut registration = RegistrationClient::new(channel);
    let info = registration
        .get_info(v1::InfoRequest {})
        .await
        .unwrap()
        .into_inner();
    let shown = (
        info.r#type.as_str(),
        info.name.as_str(),
        info.endpoint.as_str(),
    );
    assert_eq!(shown, ("CSIPlugin", DRIVER, "/host/csi.sock"));
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let told = v1::RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    registration.notify_registration_status(told).await.unwrap();

    drop((identity, registration));
    stop.cancel();
    server.await.unwrap().unwrap();
    drop(socket);
    let error = liveness::probe(&path).await.unwrap_err();
    assert!(error.to_string().contains("no plugin listens"), "{error}");
}
