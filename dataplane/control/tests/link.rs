//! Both ends of the control link against each other, on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;
use weft_control::client::{Client, ClientError};
use weft_control::server::{Handler, Reply, Request, serve};
use weft_control::tls::{Fingerprint, Identity, fingerprint};
use weft_control::{MAX_BODY, push};

const DEADLINE: Duration = Duration::from_secs(20);

/// Answers with what it was asked, and hands each request to the test.
struct Echo {
    accepted: Fingerprint,
    seen: mpsc::UnboundedSender<Request>,
    /// So many requests are refused first.
    refuse: AtomicUsize,
}

#[async_trait::async_trait]
impl Handler for Echo {
    async fn handle(&self, request: Request) -> Reply {
        let refused = self
            .refuse
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(1)
            })
            .is_ok();
        let text = format!("{} {}", request.method, request.path);
        self.seen.send(request).ok();
        Reply::text(if refused { 503 } else { 200 }, text)
    }

    fn accepts(&self, peer: &Fingerprint) -> bool {
        *peer == self.accepted
    }
}

struct Bench {
    operator: Identity,
    pod: Identity,
    address: SocketAddr,
    seen: mpsc::UnboundedReceiver<Request>,
    _server: AbortOnDropHandle<()>,
}

impl Bench {
    async fn new(refuse: usize) -> Self {
        let operator = Identity::generate("operator").unwrap();
        let pod = Identity::generate("pod").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, seen) = mpsc::unbounded_channel();
        let handler = Arc::new(Echo {
            accepted: fingerprint(&operator.certificate).unwrap(),
            seen: sender,
            refuse: refuse.into(),
        });
        let identity = pod.clone();
        let server =
            tokio::spawn(async move { serve(listener, &identity, handler).await.unwrap() });
        Self {
            operator,
            pod,
            address,
            seen,
            _server: AbortOnDropHandle::new(server),
        }
    }

    fn client(&self) -> Client {
        Client::new(
            &self.operator,
            &self.pod.certificate,
            self.address.to_string(),
        )
        .unwrap()
    }

    async fn next(&mut self) -> Request {
        tokio::time::timeout(DEADLINE, self.seen.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

#[tokio::test]
async fn a_request_arrives_whole_with_the_fingerprint_of_its_sender() {
    let mut bench = Bench::new(0).await;
    let body = vec![7; 300_000];
    let answer = bench
        .client()
        .request(http::Method::PUT, "/document", body.clone())
        .await;
    let (status, text) = answer.unwrap();
    assert_eq!((status, &text[..]), (200, &b"PUT /document"[..]));
    let request = bench.next().await;
    assert_eq!(request.body, body);
    let operator = fingerprint(&bench.operator.certificate).unwrap();
    assert_eq!(request.peer_fingerprint, operator);
}

#[tokio::test]
async fn a_client_with_another_certificate_is_refused_before_it_can_ask() {
    let mut bench = Bench::new(0).await;
    let stranger = Identity::generate("operator").unwrap();
    let address = bench.address.to_string();
    let client = Client::new(&stranger, &bench.pod.certificate, address).unwrap();
    let result = client
        .request(http::Method::GET, "/status", Vec::new())
        .await;
    assert!(
        matches!(result, Err(ClientError::Answer { .. })),
        "{result:?}"
    );
    assert!(bench.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_certificate_shown_without_its_key_is_refused() {
    let mut bench = Bench::new(0).await;
    let thief = Identity {
        certificate: bench.operator.certificate.clone(),
        key: Identity::generate("thief").unwrap().key,
    };
    let address = bench.address.to_string();
    // rustls itself notices that key and certificate differ.
    assert!(Client::new(&thief, &bench.pod.certificate, address).is_err());
    assert!(bench.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_server_with_another_certificate_is_not_told_anything() {
    let mut bench = Bench::new(0).await;
    let other = Identity::generate("pod").unwrap();
    let address = bench.address.to_string();
    let client = Client::new(&bench.operator, &other.certificate, address).unwrap();
    let result = client
        .request(http::Method::GET, "/status", Vec::new())
        .await;
    assert!(
        matches!(result, Err(ClientError::Connect { .. })),
        "{result:?}"
    );
    assert!(bench.seen.try_recv().is_err());
}

#[tokio::test]
async fn plain_text_gets_no_answer() {
    let bench = Bench::new(0).await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream
        .write_all(b"GET /status HTTP/1.1\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A TLS alert or nothing, then the end.
    let _reset = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_413() {
    let mut bench = Bench::new(0).await;
    let body = vec![0; MAX_BODY + 1];
    match bench
        .client()
        .request(http::Method::PUT, "/document", body)
        .await
    {
        Ok((status, _)) => assert_eq!(status, 413),
        // The server may hang up before it has taken the whole body.
        Err(error) => assert!(matches!(error, ClientError::Answer { .. }), "{error}"),
    }
    assert!(bench.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_status_is_pushed_until_it_is_delivered_and_never_twice() {
    let mut bench = Bench::new(2).await;
    let (status, receiver) = watch::channel("starting");
    let pushing = tokio::spawn(push::run(
        bench.client(),
        "/status/engine/1".into(),
        receiver,
    ));
    for _ in 0..3 {
        let request = bench.next().await;
        assert_eq!(
            (request.path.as_str(), &request.body[..]),
            ("/status/engine/1", &b"\"starting\""[..])
        );
    }
    // Sent again without a change: what arrives next is the next value.
    status.send_replace("starting");
    status.send_replace("serving");
    assert_eq!(bench.next().await.body, "\"serving\"");
    drop(status);
    tokio::time::timeout(DEADLINE, pushing)
        .await
        .unwrap()
        .unwrap();
    assert!(bench.seen.try_recv().is_err());
}

#[tokio::test]
async fn while_the_operator_is_away_only_the_newest_status_is_kept() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let (operator, pod) = (
        Identity::generate("operator").unwrap(),
        Identity::generate("pod").unwrap(),
    );
    let client = Client::new(&pod, &operator.certificate, address.to_string()).unwrap();
    let (status, receiver) = watch::channel(0);
    let _pushing = AbortOnDropHandle::new(tokio::spawn(push::run(client, "/s".into(), receiver)));
    for value in 1..=100 {
        status.send_replace(value);
        tokio::task::yield_now().await;
    }
    let listener = TcpListener::bind(address).await.unwrap();
    let (sender, mut seen) = mpsc::unbounded_channel();
    let handler = Arc::new(Echo {
        accepted: fingerprint(&pod.certificate).unwrap(),
        seen: sender,
        refuse: 0.into(),
    });
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        serve(listener, &operator, handler).await.unwrap();
    }));
    let request = tokio::time::timeout(DEADLINE, seen.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(request.body, "100");
}
