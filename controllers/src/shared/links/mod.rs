//! The pods: what they last said, how to talk to them, and who may push.
//!
//! A pod is registered with its certificate before it is made, so that its first push is
//! accepted. Statuses come by push; one is pulled only while none is known, which is after a start
//! of the operator: [`PULLS`] at a time, each again until it succeeds or the pod is forgotten.

use super::triggers::Triggers;
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use serde::Serialize;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;
use weft_control::client::{Client, ClientError};
use weft_control::server::{Handler, Reply, Request};
use weft_control::tls::{Fingerprint, Identity, TlsError, fingerprint};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{DriveStatus, RecordedSlice, SliceRequest, SliceStatus};
use weft_spec::engine::EngineStatus;
use weft_spec::ids::{DriveUid, SliceUid, VolumeUid};

/// Pulls at a time: bounds the burst of handshakes at the operator's start.
const PULLS: usize = 64;
/// Wait after the first pull that failed; doubled with each further one.
const FIRST_PULL_WAIT: Duration = Duration::from_millis(500);
/// Greatest wait between pulls.
const GREATEST_PULL_WAIT: Duration = Duration::from_secs(30);

/// Whose pod it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Peer {
    /// A drive's.
    Drive(DriveUid),
    /// A volume's engine.
    Engine(VolumeUid),
}

/// What is known of one pod.
#[derive(Clone, Debug)]
pub struct Link {
    /// Whose pod.
    pub peer: Peer,
    /// Name of the Drive or Volume.
    pub owner: String,
    /// Control address, when the pod has one.
    pub address: Option<SocketAddr>,
    /// What it last said.
    pub status: Option<Status>,
}

/// What a pod said.
#[derive(Clone, Debug, PartialEq)]
pub enum Status {
    /// A drive.
    Drive(Arc<DriveStatus>),
    /// An engine.
    Engine(Arc<EngineStatus>),
}

impl Link {
    /// The status, if this is a drive that has said one.
    pub fn drive_status(&self) -> Option<&Arc<DriveStatus>> {
        match &self.status {
            Some(Status::Drive(status)) => Some(status),
            _ => None,
        }
    }

    /// The status, if this is an engine that has said one.
    pub fn engine_status(&self) -> Option<&Arc<EngineStatus>> {
        match &self.status {
            Some(Status::Engine(status)) => Some(status),
            _ => None,
        }
    }
}

/// Why a pod could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No pod with an address is registered under that name or uid.
    #[error("the pod has no address yet")]
    NoAddress,
    /// It could not be reached.
    #[error("the pod does not answer: {0}")]
    Client(#[from] ClientError),
    /// It answered with a refusal.
    #[error("the pod refused ({code}): {text}")]
    Refused {
        /// HTTP status code.
        code: u16,
        /// What it said.
        text: String,
    },
    /// It answered something that cannot be read.
    #[error("the pod's answer cannot be read: {0}")]
    Answer(#[from] serde_json::Error),
}

impl LinkError {
    /// Whether nothing at all came from where the pod is, or from its node.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Client(error) if error.is_silence())
    }
}

/// The registry. Cloning shares it.
#[derive(Clone)]
pub struct Links {
    inner: Arc<Inner>,
}

struct Inner {
    identity: Identity,
    pods: Mutex<HashMap<String, Entry>>,
    pulls: Arc<Semaphore>,
    drives: Triggers,
    engines: Triggers,
}

struct Entry {
    link: Link,
    certificate: String,
    fingerprint: Fingerprint,
    client: Option<Client>,
    pull: Option<AbortOnDropHandle<()>>,
}

impl Links {
    /// `identity` is the operator's.
    pub fn new(identity: Identity) -> Self {
        Self {
            inner: Arc::new(Inner {
                identity,
                pods: Mutex::default(),
                pulls: Arc::new(Semaphore::new(PULLS)),
                drives: Triggers::default(),
                engines: Triggers::default(),
            }),
        }
    }

    /// Fired with a Drive's name when its pod has said something new.
    pub fn drives(&self) -> &Triggers {
        &self.inner.drives
    }

    /// Fired with a Volume's name when an engine of it has said something new.
    pub fn engines(&self) -> &Triggers {
        &self.inner.engines
    }

    /// Makes a pod known by its certificate; nothing happens when it is known already.
    pub fn register(
        &self,
        pod: &str,
        peer: Peer,
        owner: &str,
        certificate: &str,
    ) -> Result<(), TlsError> {
        let mut pods = self.pods();
        if pods
            .get(pod)
            .is_some_and(|entry| entry.certificate == certificate && entry.link.peer == peer)
        {
            return Ok(());
        }
        let link = Link {
            peer,
            owner: owner.to_owned(),
            address: None,
            status: None,
        };
        let entry = Entry {
            link,
            certificate: certificate.to_owned(),
            fingerprint: fingerprint(certificate)?,
            client: None,
            pull: None,
        };
        pods.insert(pod.to_owned(), entry);
        Ok(())
    }

    /// Tells where a registered pod is reached. While nothing is known of it, its status is pulled.
    pub fn set_address(&self, pod: &str, address: SocketAddr) -> Result<(), ClientError> {
        let mut pods = self.pods();
        let Some(entry) = pods.get_mut(pod) else {
            return Ok(());
        };
        if entry.link.address == Some(address) {
            return Ok(());
        }
        entry.client = Some(Client::new(
            &self.inner.identity,
            &entry.certificate,
            address.to_string(),
        )?);
        entry.link.address = Some(address);
        if entry.link.status.is_none() {
            let pulling = self.clone().pull(pod.to_owned());
            entry.pull = Some(AbortOnDropHandle::new(tokio::spawn(pulling)));
        }
        Ok(())
    }

    /// Forgets what a pod said and where it is, because a new one of the same name takes its place.
    pub fn reset(&self, pod: &str) {
        if let Some(entry) = self.pods().get_mut(pod) {
            (entry.link.address, entry.link.status) = (None, None);
            (entry.client, entry.pull) = (None, None);
        }
    }

    /// Forgets a pod that is gone: it may push no more.
    pub fn forget(&self, pod: &str) {
        self.pods().remove(pod);
    }

    /// What is known of a pod.
    pub fn get(&self, pod: &str) -> Option<Link> {
        self.pods().get(pod).map(|entry| entry.link.clone())
    }

    /// The newest status of a drive.
    pub fn drive(&self, drive: DriveUid) -> Option<Arc<DriveStatus>> {
        let pods = self.pods();
        let mut links = pods.values().map(|entry| &entry.link);
        links
            .find(|link| link.peer == Peer::Drive(drive))?
            .drive_status()
            .cloned()
    }

    /// The newest statuses of all engines of a volume.
    pub fn engines_of(&self, volume: VolumeUid) -> Vec<Arc<EngineStatus>> {
        let pods = self.pods();
        let links = pods.values().map(|entry| &entry.link);
        links
            .filter(|link| link.peer == Peer::Engine(volume))
            .filter_map(|link| link.engine_status().cloned())
            .collect()
    }

    /// All pods by name, for `/debug/state`.
    pub fn all(&self) -> Vec<(String, Link)> {
        self.pods()
            .iter()
            .map(|(pod, entry)| (pod.clone(), entry.link.clone()))
            .collect()
    }

    /// Puts a document to a pod; it is durable there when this returns.
    pub async fn put_document<D: Serialize>(
        &self,
        pod: &str,
        document: &D,
    ) -> Result<(), LinkError> {
        let client = self.client(|name, _| name == pod)?;
        ask(
            &client,
            Method::PUT,
            "/document",
            serde_json::to_vec(document)?,
        )
        .await
        .map(drop)
    }

    /// Allocates a slice at a drive, or finds that it is there.
    pub async fn put_slice(
        &self,
        drive: DriveUid,
        slice: SliceUid,
        request: &SliceRequest,
    ) -> Result<SliceStatus, LinkError> {
        let client = self.client(|_, link| link.peer == Peer::Drive(drive))?;
        let answer = ask(
            &client,
            Method::PUT,
            &format!("/slices/{slice}"),
            serde_json::to_vec(request)?,
        )
        .await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks a drive for its status now: what it pushed last may be older than what it has answered.
    pub async fn look_at_drive(&self, drive: DriveUid) -> Result<DriveStatus, LinkError> {
        let client = self.client(|_, link| link.peer == Peer::Drive(drive))?;
        let answer = ask(&client, Method::GET, "/status", Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks a drive for everything that is recorded of its slices.
    pub async fn recorded_slices(&self, drive: DriveUid) -> Result<Vec<RecordedSlice>, LinkError> {
        let client = self.client(|_, link| link.peer == Peer::Drive(drive))?;
        let answer = ask(&client, Method::GET, "/slices", Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks an engine for its status now.
    pub async fn look_at_engine(&self, pod: &str) -> Result<EngineStatus, LinkError> {
        let client = self.client(|name, _| name == pod)?;
        let answer = ask(&client, Method::GET, "/status", Vec::new()).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Frees a slice at a drive, or finds that there is none.
    pub async fn delete_slice(&self, drive: DriveUid, slice: SliceUid) -> Result<(), LinkError> {
        let client = self.client(|_, link| link.peer == Peer::Drive(drive))?;
        ask(
            &client,
            Method::DELETE,
            &format!("/slices/{slice}"),
            Vec::new(),
        )
        .await
        .map(drop)
    }

    fn client(&self, wanted: impl Fn(&str, &Link) -> bool) -> Result<Client, LinkError> {
        let pods = self.pods();
        let mut found = pods
            .iter()
            .filter(|(name, entry)| wanted(name, &entry.link));
        found
            .find_map(|(_, entry)| entry.client.clone())
            .ok_or(LinkError::NoAddress)
    }

    async fn pull(self, pod: String) {
        let mut wait = FIRST_PULL_WAIT;
        loop {
            let Ok(client) = self.client(|name, _| name == pod) else {
                return;
            };
            let answer = {
                let Ok(_permit) = self.inner.pulls.acquire().await else {
                    return;
                };
                ask(&client, Method::GET, "/status", Vec::new()).await
            };
            if self.get(&pod).is_none_or(|link| link.status.is_some()) {
                return; // Forgotten, or it has pushed meanwhile what is newer than any answer.
            }
            match answer.map(|body| self.take(&pod, &body)) {
                Ok(Ok(())) => return,
                Ok(Err(problem)) => tracing::warn!(pod, problem, "a status cannot be taken"),
                Err(error) => tracing::debug!(pod, %error, "a status could not be pulled"),
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(GREATEST_PULL_WAIT);
        }
    }

    /// Takes a status as JSON and tells the controllers when it is new.
    fn take(&self, pod: &str, body: &[u8]) -> Result<(), String> {
        let mut pods = self.pods();
        let Some(entry) = pods.get_mut(pod) else {
            return Err("this pod is not known".to_owned());
        };
        let status = parse(entry.link.peer, body)?;
        if entry.link.status.as_ref() == Some(&status) {
            return Ok(());
        }
        entry.link.status = Some(status);
        let (peer, owner) = (entry.link.peer, entry.link.owner.clone());
        drop(pods);
        match peer {
            Peer::Drive(_) => self.inner.drives.fire(&owner),
            Peer::Engine(_) => self.inner.engines.fire(&owner),
        }
        Ok(())
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.inner
            .pods
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn parse(peer: Peer, body: &[u8]) -> Result<Status, String> {
    let unreadable = |error: serde_json::Error| format!("the status cannot be read: {error}");
    let (status, version, matches) = match peer {
        Peer::Drive(uid) => {
            let status: DriveStatus = serde_json::from_slice(body).map_err(unreadable)?;
            let facts = (status.version, status.drive == uid);
            (Status::Drive(Arc::new(status)), facts.0, facts.1)
        }
        Peer::Engine(uid) => {
            let status: EngineStatus = serde_json::from_slice(body).map_err(unreadable)?;
            let facts = (status.version, status.volume == uid);
            (Status::Engine(Arc::new(status)), facts.0, facts.1)
        }
    };
    if version != DOCUMENT_VERSION {
        return Err(format!(
            "a status has version {DOCUMENT_VERSION} here, not {version}"
        ));
    }
    matches
        .then_some(status)
        .ok_or_else(|| "the status is not of the certificate's owner".to_owned())
}

async fn ask(
    client: &Client,
    method: Method,
    path: &str,
    body: Vec<u8>,
) -> Result<Bytes, LinkError> {
    match client.request(method, path, body).await? {
        (200..=299, answer) => Ok(answer),
        (code, answer) => Err(LinkError::Refused {
            code,
            text: String::from_utf8_lossy(&answer).into_owned(),
        }),
    }
}

#[async_trait]
impl Handler for Links {
    async fn handle(&self, request: Request) -> Reply {
        let known = self
            .pods()
            .iter()
            .find(|(_, entry)| entry.fingerprint == request.peer_fingerprint)
            .map(|(pod, entry)| (pod.clone(), entry.link.peer));
        let Some((pod, peer)) = known else {
            return Reply::text(403, "this certificate belongs to no pod any more");
        };
        let path = match peer {
            Peer::Drive(uid) => format!("/status/drive/{uid}"),
            Peer::Engine(uid) => format!("/status/engine/{uid}"),
        };
        if request.method != Method::POST || request.path != path {
            return Reply::text(404, format!("this certificate may only POST {path}"));
        }
        match self.take(&pod, &request.body) {
            Ok(()) => Reply::text(200, ""),
            Err(problem) => Reply::text(400, problem),
        }
    }

    fn accepts(&self, peer: &Fingerprint) -> bool {
        self.pods().values().any(|entry| entry.fingerprint == *peer)
    }
}

#[cfg(test)]
mod tests;
