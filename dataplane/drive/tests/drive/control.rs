//! The control link of a running drive, from the operator's end.

use crate::process::{Files, Running, free_port};
use async_trait::async_trait;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use weft_control::client::Client;
use weft_control::server::{self, Handler, Reply, Request};
use weft_control::tls::{self, Fingerprint, Identity};
use weft_spec::control::ControlLink;
use weft_spec::drive::{
    DriveDocument, DriveState, DriveStatus, RecordedSlice, SliceRequest, SliceStatus,
};
use weft_spec::ids::{SliceUid, VolumeUid};

const DEADLINE: Duration = Duration::from_secs(30);

/// Takes pushes.
struct Operator {
    drive: Fingerprint,
    pushes: mpsc::UnboundedSender<(String, DriveStatus)>,
}

#[async_trait]
impl Handler for Operator {
    async fn handle(&self, request: Request) -> Reply {
        let status = serde_json::from_slice(&request.body).unwrap();
        self.pushes.send((request.path, status)).unwrap();
        Reply::text(200, "")
    }

    fn accepts(&self, peer: &Fingerprint) -> bool {
        *peer == self.drive
    }
}

struct Linked {
    files: Files,
    client: Client,
    running: Running,
    pushes: mpsc::UnboundedReceiver<(String, DriveStatus)>,
}

impl Linked {
    async fn start(prepare: impl FnOnce(&mut Files)) -> Self {
        let (operator, drive) = (
            Identity::generate("operator").unwrap(),
            Identity::generate("drive").unwrap(),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = free_port();
        let mut files = Files::new();
        files.document.slices.clear();
        files.document.control = Some(ControlLink {
            port,
            certificate: drive.certificate.clone(),
            key: drive.key.clone(),
            operator_certificate: operator.certificate.clone(),
            operator: listener.local_addr().unwrap().to_string(),
        });
        prepare(&mut files);
        let (sender, pushes) = mpsc::unbounded_channel();
        let handler = Operator {
            drive: tls::fingerprint(&drive.certificate).unwrap(),
            pushes: sender,
        };
        let client =
            Client::new(&operator, &drive.certificate, format!("127.0.0.1:{port}")).unwrap();
        tokio::spawn(async move { server::serve(listener, &operator, Arc::new(handler)).await });
        let running = Running::start(&files.write());
        Self {
            files,
            client,
            running,
            pushes,
        }
    }

    async fn pushed(&mut self, what: impl Fn(&DriveStatus) -> bool) -> DriveStatus {
        let wanted = async {
            loop {
                let (path, status) = self.pushes.recv().await.unwrap();
                assert_eq!(path, format!("/status/drive/{}", self.files.document.drive));
                if what(&status) {
                    return status;
                }
            }
        };
        match tokio::time::timeout(DEADLINE, wanted).await {
            Ok(status) => status,
            Err(_) => panic!(
                "the status is not pushed; the drive says:\n{}",
                self.running.log()
            ),
        }
    }

    async fn ask(&self, method: http::Method, path: &str, body: Vec<u8>) -> (u16, String) {
        let (code, answer) = self.client.request(method, path, body).await.unwrap();
        (code, String::from_utf8(answer.to_vec()).unwrap())
    }

    async fn put_document(&self, document: &DriveDocument) -> (u16, String) {
        self.ask(
            http::Method::PUT,
            "/document",
            serde_json::to_vec(document).unwrap(),
        )
        .await
    }
}

#[tokio::test]
async fn slices_are_made_and_deleted_and_each_change_is_pushed() {
    let mut linked = Linked::start(|_| ()).await;
    let serving = linked
        .pushed(|status| status.state == DriveState::Serving)
        .await;
    assert_eq!(
        (serving.document_generation.0, serving.free),
        (3, serving.capacity)
    );

    let slice = SliceUid::random();
    let path = format!("/slices/{slice}");
    let request = SliceRequest {
        volume: VolumeUid::random(),
        size: 8 << 20,
        overcommit_percent: 100,
    };
    let body = serde_json::to_vec(&request).unwrap();
    for _ in 0..2 {
        let (code, answer) = linked.ask(http::Method::PUT, &path, body.clone()).await;
        let made: SliceStatus = serde_json::from_str(&answer).unwrap();
        assert_eq!(
            (code, made.slice, made.size, made.allocated),
            (200, slice, 8 << 20, 0)
        );
    }
    linked.pushed(|status| status.slices.len() == 1).await;

    let large = SliceRequest {
        size: 1 << 40,
        ..request
    };
    let large = serde_json::to_vec(&large).unwrap();
    let (code, answer) = linked
        .ask(
            http::Method::PUT,
            &format!("/slices/{}", SliceUid::random()),
            large.clone(),
        )
        .await;
    assert!(
        code == 507 && answer.contains("do not fit"),
        "{code} {answer}"
    );
    assert_eq!(linked.ask(http::Method::PUT, &path, large).await.0, 507);
    let grown = SliceRequest {
        size: 12 << 20,
        ..request
    };
    let grown = serde_json::to_vec(&grown).unwrap();
    let (code, answer) = linked.ask(http::Method::PUT, &path, grown).await;
    let made: SliceStatus = serde_json::from_str(&answer).unwrap();
    assert_eq!((code, made.size), (200, 12 << 20));
    linked
        .pushed(|status| status.slices.iter().any(|slice| slice.size == 12 << 20))
        .await;
    let (code, answer) = linked.ask(http::Method::PUT, &path, body.clone()).await;
    assert!(code == 409 && answer.contains("shrink"), "{code} {answer}");
    assert_eq!(
        linked
            .ask(http::Method::PUT, "/slices/none", body.clone())
            .await
            .0,
        400
    );
    assert_eq!(
        linked.ask(http::Method::PUT, &path, b"{".to_vec()).await.0,
        400
    );
    let (code, answer) = linked.ask(http::Method::GET, "/slices", vec![]).await;
    let recorded: Vec<RecordedSlice> = serde_json::from_str(&answer).unwrap();
    let [only] = &recorded[..] else {
        panic!("{code} {answer}")
    };
    let found = (only.status.slice, only.status.volume, only.status.size);
    assert_eq!((code, found), (200, (slice, request.volume, 12 << 20)));
    assert_eq!(
        (only.document_generation.0, only.record.clone()),
        (0, None),
        "no engine has been here"
    );

    assert_eq!(linked.ask(http::Method::DELETE, &path, vec![]).await.0, 200);
    assert_eq!(linked.ask(http::Method::DELETE, &path, vec![]).await.0, 200);
    linked.pushed(|status| status.slices.is_empty()).await;
    let (code, answer) = linked.ask(http::Method::PUT, &path, body).await;
    assert!(code == 409 && answer.contains("deleted"), "{code} {answer}");
    assert_eq!(linked.running.terminate(), Some(0));
}

#[tokio::test]
async fn a_newer_document_is_durable_when_it_is_answered_and_an_older_one_refused() {
    let mut linked = Linked::start(|_| ()).await;
    linked
        .pushed(|status| status.state == DriveState::Serving)
        .await;
    let mut next = linked.files.document.clone();
    next.generation.0 = 9;
    assert_eq!(linked.put_document(&next).await.0, 200);
    assert_eq!(linked.put_document(&next).await.0, 200);
    linked
        .pushed(|status| status.document_generation.0 == 9)
        .await;
    let (code, answer) = linked.put_document(&linked.files.document).await;
    assert!(code == 409 && answer.contains("older"), "{code} {answer}");
    next.generation.0 = 10;
    next.port += 1;
    let (code, answer) = linked.put_document(&next).await;
    assert!(code == 409 && answer.contains("port"), "{code} {answer}");
    // The process that comes next starts with the old file: it waits for what it has accepted.
    linked.running.kill();
    linked.running = Running::start(&linked.files.write());
    let outdated = linked
        .pushed(|status| status.reason == "DocumentOutdated")
        .await;
    let told = (outdated.state, outdated.document_generation.0);
    assert_eq!(told, (DriveState::Starting, 9), "where to go on");
    next.port -= 1;
    assert_eq!(linked.put_document(&next).await.0, 200);
    linked
        .pushed(|status| status.state == DriveState::Serving && status.document_generation.0 == 10)
        .await;
}

#[tokio::test]
async fn a_foreign_medium_is_reported_and_looked_at_again_with_a_newer_document() {
    let mut linked = Linked::start(|files| foreign(&files.medium())).await;
    let failed = linked
        .pushed(|status| status.state == DriveState::Failed)
        .await;
    assert_eq!(failed.reason, "ForeignData");
    let request = SliceRequest {
        volume: VolumeUid::random(),
        size: 4096,
        overcommit_percent: 100,
    };
    let body = serde_json::to_vec(&request).unwrap();
    let (code, answer) = linked
        .ask(
            http::Method::PUT,
            &format!("/slices/{}", SliceUid::random()),
            body,
        )
        .await;
    assert!(code == 503 && answer.contains("XFS"), "{code} {answer}");
    let mut next = linked.files.document.clone();
    next.generation.0 += 1;
    let (code, answer) = linked.put_document(&next).await;
    assert!(code == 409 && answer.contains("XFS"), "{code} {answer}");
    std::fs::remove_file(linked.files.medium()).unwrap();
    next.generation.0 += 1;
    assert_eq!(linked.put_document(&next).await.0, 200);
    let (code, status) = linked.ask(http::Method::GET, "/status", vec![]).await;
    let status: DriveStatus = serde_json::from_str(&status).unwrap();
    assert_eq!((code, status.document_generation), (200, next.generation));
    assert_eq!(linked.running.terminate(), Some(0));
}

fn foreign(medium: &Path) {
    let mut bytes = vec![0; 64 << 20];
    bytes[..4].copy_from_slice(b"XFSB");
    std::fs::write(medium, bytes).unwrap();
}
