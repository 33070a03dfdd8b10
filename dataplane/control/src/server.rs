//! The serving end: one request per connection, from peers whose certificate the handler accepts.

use crate::MAX_BODY;
use crate::tls::{self, Fingerprint, Identity, TlsError};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Most connections at a time; more wait in the listener's backlog. A pod has one peer.
const MAX_CONNECTIONS: usize = 64;
/// For the TLS handshake, and again for the whole request to arrive.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the whole connection: above any time that a client waits for an answer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);
/// After an accept that failed (out of descriptors): they do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A request, received whole, from a peer that the handler accepted.
#[derive(Clone, Debug)]
pub struct Request {
    /// GET, PUT, POST or DELETE.
    pub method: http::Method,
    /// Path without a query.
    pub path: String,
    /// At most [`MAX_BODY`] bytes.
    pub body: Bytes,
    /// Source address.
    pub peer: SocketAddr,
    /// Certificate that the peer proved to hold the key of.
    pub peer_fingerprint: Fingerprint,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// HTTP status code; one that HTTP does not know becomes 500.
    pub status: u16,
    /// Text or JSON.
    pub body: Bytes,
}

impl Reply {
    /// An answer with `value` as JSON.
    pub fn json<T: Serialize + ?Sized>(status: u16, value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => Self {
                status,
                body: body.into(),
            },
            Err(error) => Self::text(
                500,
                format!("the answer cannot be written as JSON: {error}"),
            ),
        }
    }

    /// An answer with a line of text: what was wrong and what to do.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self {
            status,
            body: text.into().into(),
        }
    }
}

/// Answers requests. A request that was received whole is handled to its end, also when the
/// peer hangs up or the connection's time is over.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers one request.
    async fn handle(&self, request: Request) -> Reply;
    /// Whether a peer with this certificate may ask at all; decided in the handshake.
    fn accepts(&self, peer: &Fingerprint) -> bool;
}

/// Serves until it is dropped (connections end with it).
pub async fn serve(
    listener: TcpListener,
    identity: &Identity,
    handler: Arc<dyn Handler>,
) -> Result<(), TlsError> {
    let judge = handler.clone();
    let config = tls::server_config(identity, move |peer| judge.accepts(peer))?;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Ok(());
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a control connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(_) = connections.join_next() => continue,
        };
        let (acceptor, handler) = (acceptor.clone(), handler.clone());
        connections.spawn(async move {
            let serving = connection(acceptor, handler, stream, peer);
            if tokio::time::timeout(CONNECTION_TIMEOUT, serving)
                .await
                .is_err()
            {
                tracing::info!(%peer, "a control connection took too long and was closed");
            }
            drop(permit);
        });
    }
}

async fn connection(
    acceptor: TlsAcceptor,
    handler: Arc<dyn Handler>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let stream = match tokio::time::timeout(RECEIVE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%peer, %error, "control handshake refused"),
        Err(_) => return tracing::info!(%peer, "control handshake not finished in time"),
    };
    let Some(peer_fingerprint) = tls::peer_fingerprint(stream.get_ref().1) else {
        return;
    };
    let service = service_fn(move |request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(answer(handler, request, peer, peer_fingerprint).await) }
    });
    let result = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(RECEIVE_TIMEOUT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "control connection ended early");
    }
}

async fn answer(
    handler: Arc<dyn Handler>,
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    peer_fingerprint: Fingerprint,
) -> hyper::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect();
    let reply = match tokio::time::timeout(RECEIVE_TIMEOUT, body).await {
        Ok(Ok(body)) => {
            let request = Request {
                method: head.method,
                path: head.uri.path().to_owned(),
                body: body.to_bytes(),
                peer,
                peer_fingerprint,
            };
            // A task of its own: what was begun is not cut in the middle when the peer goes.
            tokio::spawn(async move { handler.handle(request).await })
                .await
                .unwrap_or_else(|_| Reply::text(500, "the request was not handled to its end"))
        }
        Ok(Err(_)) => Reply::text(413, format!("a body has at most {MAX_BODY} bytes")),
        Err(_) => Reply::text(408, "the body did not arrive in time"),
    };
    response(reply)
}

fn response(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let status =
        http::StatusCode::from_u16(reply.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = hyper::Response::new(Full::new(reply.body));
    *response.status_mut() = status;
    response
}
