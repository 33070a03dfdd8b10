//! An engine's pod: its supervisor starts the real process again and again with the document in its
//! Secret, until the engine parks or the pod is deleted.

use crate::network::Network;
use crate::world::{Place, World, say};
use futures::StreamExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use weft_engine::control::Put;
use weft_engine::document::DocumentError;
use weft_engine::run::{Outcome, Process};
use weft_spec::engine::{EngineDocument, EngineStatus};
use weft_spec::ids::Term;

/// Before the supervisor starts a process again.
const RESTART: Duration = Duration::from_millis(100);

/// See the module.
pub struct Pod {
    pub term: Term,
    pub place: Place,
    world: Arc<World>,
    network: Arc<Network>,
    /// The newest last; a start may read the one before.
    secrets: Mutex<Vec<EngineDocument>>,
    process: Mutex<Option<Running>>,
    deleted: CancellationToken,
    ended: CancellationToken,
    /// What the process of now reports; the newest only.
    pub status: watch::Sender<Option<EngineStatus>>,
}

struct Running {
    death: CancellationToken,
    puts: mpsc::Sender<Put>,
    /// Before it is started again once it has been killed.
    back: Duration,
}

impl Pod {
    pub fn start(document: EngineDocument, world: Arc<World>, network: Arc<Network>) -> Arc<Self> {
        let pod = Arc::new(Self {
            term: document.term,
            place: Place::pod(document.term.0),
            world,
            network,
            secrets: Mutex::new(vec![document]),
            process: Mutex::new(None),
            deleted: CancellationToken::new(),
            ended: CancellationToken::new(),
            status: watch::Sender::new(None),
        });
        tokio::spawn(pod.clone().supervise());
        pod
    }

    async fn supervise(self: Arc<Self>) {
        let _ended = self.ended.clone().drop_guard();
        while !self.deleted.is_cancelled() {
            let death = self.deleted.child_token();
            let (puts, put) = mpsc::channel(4);
            let running = Running {
                death: death.clone(),
                puts,
                back: RESTART,
            };
            *self.process.lock().unwrap() = Some(running);
            say!(self.world, "pod {} starts a process", self.term);
            let network = self.network.of(self.place, death.clone());
            let process = Process::new(self.secret(), network);
            let _told = self.tell(process.status());
            let ended = tokio::select! {
                biased;
                () = death.cancelled() => None,
                ended = process.run(put, futures::stream::pending().boxed()) => Some(ended),
            };
            // Whatever is left of it reaches nobody.
            death.cancel();
            let back = self
                .process
                .lock()
                .unwrap()
                .take()
                .map_or(RESTART, |r| r.back);
            self.status.send_replace(None);
            match ended {
                Some(Ok(Outcome::Parked)) => {
                    say!(self.world, "pod {} is parked", self.term);
                    return;
                }
                Some(Ok(Outcome::Left)) => return,
                Some(Err(error)) => say!(self.world, "pod {} ends: {error:#}", self.term),
                None => say!(self.world, "pod {} is killed", self.term),
            }
            sleep(back).await;
        }
    }

    /// The Secret as it is mounted: it may be a while old.
    fn secret(&self) -> EngineDocument {
        let secrets = self.secrets.lock().unwrap();
        let old = usize::from(secrets.len() > 1 && self.world.below(4) == 0);
        secrets[secrets.len() - 1 - old].clone()
    }

    fn tell(self: &Arc<Self>, mut status: watch::Receiver<EngineStatus>) -> AbortOnDropHandle<()> {
        let pod = self.clone();
        let told = tokio::spawn(async move {
            loop {
                let now = status.borrow_and_update().clone();
                say!(pod.world, "engine {}", said(&now));
                pod.status.send_replace(Some(now));
                if status.changed().await.is_err() {
                    return;
                }
            }
        });
        AbortOnDropHandle::new(told)
    }

    /// The process dies and is there again after a time.
    pub fn kill(&self, back: Duration) {
        if let Some(running) = &mut *self.process.lock().unwrap() {
            running.back = back;
            running.death.cancel();
        }
    }

    pub fn delete(&self) {
        say!(self.world, "pod {} is deleted", self.term);
        self.deleted.cancel();
    }

    /// Nothing of it will run again.
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    fn write(&self, document: &EngineDocument) {
        let mut secrets = self.secrets.lock().unwrap();
        if secrets.last() != Some(document) {
            secrets.push(document.clone());
        }
    }

    /// Writes the document into the Secret and puts it; the engine's answer, or none.
    pub async fn put(&self, document: EngineDocument) -> Option<Result<(), DocumentError>> {
        self.write(&document);
        let puts = self
            .process
            .lock()
            .unwrap()
            .as_ref()
            .map(|r| r.puts.clone())?;
        let (answer, answered) = oneshot::channel();
        let put = Put {
            document: Box::new(document),
            answer,
        };
        puts.send(put).await.ok()?;
        let answered = tokio::time::timeout(Duration::from_secs(25), answered).await;
        answered.ok()?.ok()
    }
}

/// A status in short.
fn said(status: &EngineStatus) -> String {
    let wires = status.drives.iter().filter(|wire| wire.connected);
    let wires: Vec<_> = wires.map(|wire| &wire.drive_name).collect();
    let hosts = status.hosts.iter();
    let hosts: Vec<_> = hosts
        .map(|host| (host.generation.0, host.associations))
        .collect();
    let EngineStatus {
        term,
        boot,
        reason,
        document_generation,
        ..
    } = status;
    format!(
        "{term}.{boot}: {reason}, document {document_generation}, drives {wires:?}, hosts {hosts:?}"
    )
}
