//! Both ends of the control link.

use crate::control::{EngineHandler, Put};
use crate::network::listen;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;
use weft_control::client::Client;
use weft_control::tls::{self, Identity};
use weft_control::{push, server};
use weft_spec::control::ControlLink;
use weft_spec::engine::EngineStatus;
use weft_spec::ids::VolumeUid;

/// How long an engine that ends tries to deliver its last word.
const LAST_WORD: Duration = Duration::from_secs(3);

/// Both ends of the control link, while they run.
pub(super) struct Control {
    push: JoinHandle<()>,
    _server: AbortOnDropHandle<()>,
}

impl Control {
    pub(super) fn start(
        link: &ControlLink,
        volume: VolumeUid,
        status: &watch::Receiver<EngineStatus>,
        puts: mpsc::Sender<Put>,
    ) -> anyhow::Result<Self> {
        let identity = Identity {
            certificate: link.certificate.clone(),
            key: link.key.clone(),
        };
        let client = Client::new(&identity, &link.operator_certificate, link.operator.clone())?;
        let path = format!("/status/engine/{volume}");
        let push = tokio::spawn(push::run(client, path, status.clone()));
        let handler = Arc::new(EngineHandler {
            operator: tls::fingerprint(&link.operator_certificate)?,
            status: status.clone(),
            puts,
        });
        let port = link.port;
        let server = tokio::spawn(async move {
            let served = match listen(port).await {
                Ok(listener) => server::serve(listener, &identity, handler)
                    .await
                    .map_err(Into::into),
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::error!(
                    port,
                    error = format!("{error:#}"),
                    "no control link; the operator cannot reach this engine"
                );
            }
        });
        Ok(Self {
            push,
            _server: AbortOnDropHandle::new(server),
        })
    }

    /// Delivers the last status, if the operator takes it in time. The server goes with `self`.
    pub(super) async fn end(self) {
        if tokio::time::timeout(LAST_WORD, self.push).await.is_err() {
            tracing::warn!("the operator has not taken the last status");
        }
    }
}
