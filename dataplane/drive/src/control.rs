//! The drive's end of the control link (`weft_spec::control`).

use crate::process::Process;
use crate::store::{AllocateError, chain};
use anyhow::Context;
use async_trait::async_trait;
use http::Method;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::TcpListener;
use weft_control::client::Client;
use weft_control::push;
use weft_control::server::{self, Handler, Reply, Request};
use weft_control::tls::{self, Fingerprint, Identity};
use weft_spec::control::ControlLink;
use weft_spec::drive::SliceRequest;
use weft_spec::ids::SliceUid;

struct Operator {
    process: Arc<Process>,
    certificate: Fingerprint,
}

/// Serves the link, and pushes each new status to the operator, for ever.
pub async fn run(process: Arc<Process>, link: ControlLink) -> anyhow::Result<()> {
    let certificate =
        tls::fingerprint(&link.operator_certificate).context("the operator's certificate")?;
    let identity = Identity {
        certificate: link.certificate,
        key: link.key,
    };
    let any = [
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, link.port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, link.port)),
    ];
    let listener = TcpListener::bind(&any[..])
        .await
        .with_context(|| format!("port {}", link.port))?;
    let client = Client::new(&identity, &link.operator_certificate, link.operator)?;
    let path = format!("/status/drive/{}", process.document().drive);
    let reports = process.reports();
    let handler = Arc::new(Operator {
        process,
        certificate,
    });
    tokio::select! {
        ended = server::serve(listener, &identity, handler) => ended.context("the control link"),
        () = push::run(client, path, reports) => Ok(()),
    }
}

#[async_trait]
impl Handler for Operator {
    async fn handle(&self, request: Request) -> Reply {
        let path: Vec<&str> = request.path.split('/').skip(1).collect();
        match (&request.method, path.as_slice()) {
            (&Method::GET, ["status"]) => Reply::json(200, &self.process.status()),
            (&Method::PUT, ["document"]) => match self.process.accept(&request.body).await {
                Ok(()) => Reply::text(200, "accepted"),
                Err(reason) => Reply::text(409, reason),
            },
            (&Method::GET, ["slices"]) => match self.process.slices() {
                Some(slices) => Reply::json(200, &slices.recorded()),
                None => self.not_served(),
            },
            (&Method::PUT, ["slices", uid]) => self.allocate(uid, &request.body).await,
            (&Method::DELETE, ["slices", uid]) => self.delete(uid).await,
            _ => Reply::text(
                404,
                format!("a drive has no {} {}", request.method, request.path),
            ),
        }
    }

    fn accepts(&self, peer: &Fingerprint) -> bool {
        *peer == self.certificate
    }
}

impl Operator {
    async fn allocate(&self, uid: &str, body: &[u8]) -> Reply {
        let Ok(uid) = uid.parse::<SliceUid>() else {
            return Reply::text(400, format!("{uid:?} is no uid"));
        };
        let request: SliceRequest = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(error) => {
                return Reply::text(
                    400,
                    format!("the request for a slice cannot be read: {error}"),
                );
            }
        };
        let Some(slices) = self.process.slices() else {
            return self.not_served();
        };
        match slices.allocate(uid, request).await {
            Ok(status) => Reply::json(200, &status),
            Err(error @ AllocateError::NoSpace { .. }) => Reply::text(507, error.to_string()),
            Err(AllocateError::Disk(error)) => Reply::text(500, chain(&error)),
            Err(error) => Reply::text(409, error.to_string()),
        }
    }

    async fn delete(&self, uid: &str) -> Reply {
        let Ok(uid) = uid.parse::<SliceUid>() else {
            return Reply::text(400, format!("{uid:?} is no uid"));
        };
        let Some(slices) = self.process.slices() else {
            return self.not_served();
        };
        match slices.delete(uid).await {
            Ok(true) => Reply::text(200, "deleted"),
            Ok(false) => Reply::text(200, "there is none"),
            Err(error) => Reply::text(500, chain(&error)),
        }
    }

    fn not_served(&self) -> Reply {
        let status = self.process.status();
        Reply::text(
            503,
            format!(
                "the drive serves nothing ({}): {}",
                status.reason, status.message
            ),
        )
    }
}
