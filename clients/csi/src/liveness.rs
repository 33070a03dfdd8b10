//! `weft-csi probe`: asks a plugin on its Unix socket whether it answers.
//!
//! The node plugin shares the node's network, so it listens on no port; the kubelet runs
//! this as an exec probe instead.

use hyper_util::rt::TokioIo;
use std::path::Path;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use weft_csi_proto as csi;

/// How long a plugin may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// A channel over a Unix socket.
pub async fn dial(socket: &Path) -> Result<Channel, tonic::transport::Error> {
    let socket = socket.to_owned();
    // The address is needed by the type and used by nobody: the connector dials the socket.
    Endpoint::from_static("http://localhost")
        .timeout(PATIENCE)
        .connect_with_connector(tower::service_fn(move |_| {
            let socket = socket.clone();
            async move {
                tokio::net::UnixStream::connect(socket)
                    .await
                    .map(TokioIo::new)
            }
        }))
        .await
}

/// Calls Probe; an error says what did not work.
pub async fn probe(socket: &Path) -> anyhow::Result<()> {
    use anyhow::Context;
    let shown = socket.display();
    let channel = tokio::time::timeout(PATIENCE, dial(socket))
        .await
        .with_context(|| format!("{shown} does not answer within {PATIENCE:?}"))?
        .with_context(|| format!("no plugin listens on {shown}"))?;
    let answer = csi::identity_client::IdentityClient::new(channel)
        .probe(csi::ProbeRequest {})
        .await
        .with_context(|| format!("the plugin on {shown} is not well"))?;
    anyhow::ensure!(
        answer.into_inner().ready != Some(false),
        "the plugin on {shown} is starting"
    );
    Ok(())
}
