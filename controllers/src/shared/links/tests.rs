//! The registry between real ends on loopback.

use super::*;
use futures::{FutureExt, StreamExt};
use tokio::net::TcpListener;
use weft_control::server;
use weft_spec::drive::DriveState;
use weft_spec::ids::DocumentGeneration;

/// Longest wait for something that must come.
const DEADLINE: Duration = Duration::from_secs(20);

fn status(drive: DriveUid, free: u64) -> DriveStatus {
    DriveStatus {
        version: DOCUMENT_VERSION,
        drive,
        document_generation: DocumentGeneration(1),
        document_tried: DocumentGeneration(1),
        state: DriveState::Serving,
        reason: "Serving".into(),
        message: String::new(),
        capacity: 100,
        free,
        slices: vec![],
        health: weft_spec::drive::DriveHealth::default(),
    }
}

/// A drive pod that answers every request with its status.
struct Pod {
    identity: Identity,
    status: DriveStatus,
}

#[async_trait]
impl Handler for Pod {
    async fn handle(&self, request: Request) -> Reply {
        match request.path.as_str() {
            "/status" => Reply::json(200, &self.status),
            path => Reply::text(507, format!("no room for {path}")),
        }
    }

    fn accepts(&self, _: &Fingerprint) -> bool {
        true
    }
}

async fn pod(drive: DriveUid) -> (Arc<Pod>, SocketAddr) {
    let identity = Identity::generate("drive").unwrap();
    let pod = Arc::new(Pod {
        identity,
        status: status(drive, 7),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = pod.clone();
    tokio::spawn(async move { server::serve(listener, &serving.identity, serving.clone()).await });
    (pod, address)
}

async fn operator() -> (Links, Identity, SocketAddr) {
    let identity = Identity::generate("operator").unwrap();
    let links = Links::new(identity.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (handler, own) = (Arc::new(links.clone()), identity.clone());
    tokio::spawn(async move { server::serve(listener, &own, handler).await });
    (links, identity, address)
}

#[tokio::test]
async fn a_push_is_taken_from_the_registered_certificate_only_and_wakes_the_owner() {
    let (links, operator, address) = operator().await;
    let (own, other) = (DriveUid::random(), DriveUid::random());
    let identity = Identity::generate("drive").unwrap();
    let client = Client::new(&identity, &operator.certificate, address.to_string()).unwrap();
    let push = async |uid: DriveUid, body: &DriveStatus| {
        let body = serde_json::to_vec(body).unwrap();
        client
            .request(Method::POST, &format!("/status/drive/{uid}"), body)
            .await
            .map(|(code, _)| code)
    };
    assert!(
        push(own, &status(own, 1)).await.is_err(),
        "an unknown certificate was let in"
    );
    links
        .register("d0-pod", Peer::Drive(own), "d0", &identity.certificate)
        .unwrap();
    let mut woken = Box::pin(links.drives().subscribe());
    assert_eq!(push(other, &status(other, 1)).await.unwrap(), 404);
    assert_eq!(push(own, &status(other, 1)).await.unwrap(), 400);
    assert!(
        woken.next().now_or_never().is_none(),
        "woken by a refused push"
    );
    assert_eq!(push(own, &status(own, 1)).await.unwrap(), 200);
    assert_eq!(
        tokio::time::timeout(DEADLINE, woken.next())
            .await
            .unwrap()
            .unwrap(),
        "d0"
    );
    assert_eq!(links.drive(own).unwrap().free, 1);
    assert_eq!(push(own, &status(own, 1)).await.unwrap(), 200);
    assert!(
        woken.next().now_or_never().is_none(),
        "woken by nothing new"
    );
    links.forget("d0-pod");
    assert!(
        push(own, &status(own, 2)).await.is_err(),
        "a forgotten certificate was let in"
    );
}

#[tokio::test]
async fn the_status_of_a_pod_that_is_silent_is_pulled_once_it_has_an_address() {
    let drive = DriveUid::random();
    let (pod, address) = pod(drive).await;
    let links = Links::new(Identity::generate("operator").unwrap());
    let mut woken = Box::pin(links.drives().subscribe());
    links
        .register(
            "d0-pod",
            Peer::Drive(drive),
            "d0",
            &pod.identity.certificate,
        )
        .unwrap();
    links.set_address("d0-pod", address).unwrap();
    assert_eq!(
        tokio::time::timeout(DEADLINE, woken.next())
            .await
            .unwrap()
            .unwrap(),
        "d0"
    );
    assert_eq!(links.drive(drive).unwrap().free, 7);
    links.reset("d0-pod");
    assert!(
        links.drive(drive).is_none(),
        "what the pod before said is kept"
    );
}

#[tokio::test]
async fn what_a_pod_refuses_is_told_with_its_words() {
    let drive = DriveUid::random();
    let (pod, address) = pod(drive).await;
    let links = Links::new(Identity::generate("operator").unwrap());
    let slice = SliceUid::random();
    let request = SliceRequest {
        volume: VolumeUid::random(),
        size: 4096,
        overcommit_percent: 100,
    };
    links
        .register(
            "d0-pod",
            Peer::Drive(drive),
            "d0",
            &pod.identity.certificate,
        )
        .unwrap();
    let early = links.put_slice(drive, slice, &request).await.unwrap_err();
    assert!(matches!(early, LinkError::NoAddress));
    links.set_address("d0-pod", address).unwrap();
    let full = links.put_slice(drive, slice, &request).await.unwrap_err();
    assert!(
        matches!(&full, LinkError::Refused { code: 507, text } if text.contains("no room")),
        "{full}"
    );
}
