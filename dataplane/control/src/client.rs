//! The asking end: a connection per request, to the one peer whose certificate is pinned.

use crate::MAX_BODY;
use crate::tls::{self, Identity, TlsError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// For the TCP connection and the TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// For the answer, from the moment the request is sent.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Asks one peer. Cloning shares the configuration; no connection is kept.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    address: Arc<str>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Own identity or the peer's certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where to.
        address: Arc<str>,
        /// Why, `TimedOut` included.
        source: std::io::Error,
    },
    /// Connected, but no whole answer.
    #[error("no answer from {address}")]
    Answer {
        /// Where from.
        address: Arc<str>,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ClientError {
    /// Whether nothing came from the peer or its node: no connection, and no refusal of one either.
    pub fn is_silence(&self) -> bool {
        use std::io::ErrorKind as Kind;
        let silent = |kind| {
            matches!(
                kind,
                Kind::TimedOut | Kind::HostUnreachable | Kind::NetworkUnreachable
            )
        };
        matches!(self, Self::Connect { source, .. } if silent(source.kind()))
    }
}

impl Client {
    /// A client that shows `identity` and talks only to the holder of `peer_certificate_pem`
    /// at `address` (`host:port`).
    pub fn new(
        identity: &Identity,
        peer_certificate_pem: &str,
        address: String,
    ) -> Result<Self, ClientError> {
        let config = tls::client_config(identity, peer_certificate_pem)?;
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            address: address.into(),
        })
    }

    /// Sends one request; gives the status code and the body of the answer.
    pub async fn request(
        &self,
        method: http::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), ClientError> {
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, self.connect())
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            .map_err(|source| ClientError::Connect {
                address: self.address.clone(),
                source,
            })?;
        tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(stream, method, path, body))
            .await
            .unwrap_or_else(|elapsed| Err(elapsed.into()))
            .map_err(|source| ClientError::Answer {
                address: self.address.clone(),
                source,
            })
    }

    async fn connect(&self) -> std::io::Result<Stream> {
        let stream = TcpStream::connect(&*self.address).await?;
        // The peer is known by its certificate alone; the name is not sent.
        let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
        self.connector.connect(name, stream).await
    }

    async fn exchange(
        &self,
        stream: Stream,
        method: http::Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(u16, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, &*self.address)
            .header(http::header::CONNECTION, "close")
            .body(Full::new(Bytes::from(body)))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request).await?;
        let status = answer.status().as_u16();
        let body = Limited::new(answer.into_body(), MAX_BODY).collect().await?;
        Ok((status, body.to_bytes()))
    }
}

type Stream = tokio_rustls::client::TlsStream<TcpStream>;
