//! The operator: terms, documents, the host's right. It does one thing after the other, and nothing
//! while it or the API is away.

use crate::drive::{Drive, SIZE, VOLUME};
use crate::host::{Attachment, Host};
use crate::network::{Network, address};
use crate::pod::Pod;
use crate::world::{Place, World, say};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::engine::{AllowedHost, EngineDocument, EngineState, Mirror, Stack};
use weft_spec::ids::{AttachGeneration, ClusterUid, DocumentGeneration, Term};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;

/// Between two tries of a document.
const AGAIN: Duration = Duration::from_secs(1);
/// How long one is put at most: another engine may be needed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be done.
enum Job {
    /// Another term; the pod before lives for so long.
    TakeOver(Duration),
    /// The host's right is taken and given again.
    AttachAgain,
}

/// See the module.
pub struct Operator {
    world: Arc<World>,
    network: Arc<Network>,
    host: Arc<Host>,
    members: Vec<Arc<Drive>>,
    witnesses: Vec<Arc<Drive>>,
    state: Mutex<State>,
    jobs: mpsc::UnboundedSender<Job>,
}

struct State {
    term: Term,
    generation: DocumentGeneration,
    /// Of the host's attachment, while it has the right.
    attached: Option<AttachGeneration>,
    last: AttachGeneration,
    formed: bool,
    pod: Arc<Pod>,
    away: Instant,
    /// Jobs not done.
    left: usize,
}

impl Operator {
    /// Starts the first engine.
    pub fn start(
        world: Arc<World>,
        network: Arc<Network>,
        host: Arc<Host>,
        members: Vec<Arc<Drive>>,
        witnesses: Vec<Arc<Drive>>,
    ) -> Arc<Self> {
        let first = AttachGeneration(1);
        let mut document = empty();
        document.stack = stack(&members, &witnesses, document.term, false);
        document.hosts = vec![allowed(first)];
        let pod = Pod::start(document, world.clone(), network.clone());
        let (jobs, job) = mpsc::unbounded_channel();
        let operator = Arc::new(Self {
            world,
            network,
            host,
            members,
            witnesses,
            state: Mutex::new(State {
                term: Term(1),
                generation: DocumentGeneration(1),
                attached: Some(first),
                last: first,
                formed: false,
                pod: pod.clone(),
                away: Instant::now(),
                left: 0,
            }),
            jobs,
        });
        tokio::spawn(operator.clone().follow(pod));
        tokio::spawn(operator.clone().work(job));
        tokio::spawn(operator.clone().remind());
        operator
    }

    pub fn pod(&self) -> Arc<Pod> {
        self.state.lock().unwrap().pod.clone()
    }

    pub fn place(&self) -> Place {
        self.pod().place
    }

    pub fn kill_engine(&self, back: Duration) {
        self.pod().kill(back);
    }

    pub fn take_over(&self, old_lives: Duration) {
        self.ask(Job::TakeOver(old_lives));
    }

    pub fn attach_again(&self) {
        self.ask(Job::AttachAgain);
    }

    fn ask(&self, job: Job) {
        self.state.lock().unwrap().left += 1;
        let _ = self.jobs.send(job);
    }

    /// The API does not answer for so long.
    pub fn be_away(&self, time: Duration) {
        say!(self.world, "the API is away for {time:?}");
        self.state.lock().unwrap().away = Instant::now() + time;
    }

    /// It is there, for good.
    pub fn be_there(&self) {
        self.state.lock().unwrap().away = Instant::now();
    }

    /// Whether all was done that was asked for.
    pub fn is_idle(&self) -> bool {
        self.state.lock().unwrap().left == 0
    }

    async fn until_there(&self) {
        loop {
            let away = self.state.lock().unwrap().away;
            if away <= Instant::now() {
                return;
            }
            sleep_until(away.min(Instant::now() + AGAIN)).await;
        }
    }

    async fn work(self: Arc<Self>, mut jobs: mpsc::UnboundedReceiver<Job>) {
        while let Some(job) = jobs.recv().await {
            self.until_there().await;
            match job {
                Job::TakeOver(old_lives) => self.raise(old_lives),
                Job::AttachAgain => self.attach_anew().await,
            }
            self.state.lock().unwrap().left -= 1;
        }
    }

    /// Puts the newest document to an engine that has started with an older one.
    async fn remind(self: Arc<Self>) {
        loop {
            sleep(AGAIN).await;
            self.until_there().await;
            if !self.is_idle() {
                continue;
            }
            let (pod, document) = {
                let state = self.state.lock().unwrap();
                (state.pod.clone(), self.document(&state))
            };
            let known = pod
                .status
                .borrow()
                .as_ref()
                .map(|now| now.document_generation);
            if known.is_some_and(|known| known < document.generation) {
                pod.put(document).await;
            }
        }
    }

    /// The next term, with a pod of its own.
    fn raise(self: &Arc<Self>, old_lives: Duration) {
        let mut state = self.state.lock().unwrap();
        state.term.0 += 1;
        state.generation.0 += 1;
        say!(
            self.world,
            "term {}; the old pod lives for {old_lives:?}",
            state.term
        );
        let document = self.document(&state);
        let pod = Pod::start(document, self.world.clone(), self.network.clone());
        let old = std::mem::replace(&mut state.pod, pod.clone());
        drop(state);
        tokio::spawn(async move {
            sleep(old_lives).await;
            old.delete();
        });
        tokio::spawn(self.clone().follow(pod));
    }

    /// Tells the host of an engine that serves, and remembers that the volume has a record.
    async fn follow(self: Arc<Self>, pod: Arc<Pod>) {
        let mut status = pod.status.subscribe();
        let serves = |state| matches!(state, EngineState::Serving | EngineState::Paused);
        let serving = status.wait_for(|now| now.as_ref().is_some_and(|now| serves(now.state)));
        if serving.await.is_err() {
            return;
        }
        self.until_there().await;
        if self.take(&pod) {
            self.put_next().await;
        }
    }

    /// That one serves. Whether that is the first time of the volume.
    fn take(&self, pod: &Arc<Pod>) -> bool {
        let mut state = self.state.lock().unwrap();
        if !Arc::ptr_eq(&state.pod, pod) {
            return false;
        }
        self.tell_host(&state);
        !std::mem::replace(&mut state.formed, true)
    }

    fn tell_host(&self, state: &State) {
        let attachment = state.attached.map(|generation| Attachment {
            generation,
            address: address(state.pod.place),
            name: name(generation),
        });
        self.host.attach(attachment);
    }

    fn allow_next(&self) {
        let mut state = self.state.lock().unwrap();
        state.last.0 += 1;
        state.attached = Some(state.last);
        say!(
            self.world,
            "the host's right is given, generation {}",
            state.last
        );
    }

    async fn attach_anew(self: &Arc<Self>) {
        say!(self.world, "the host's right is taken");
        self.state.lock().unwrap().attached = None;
        if !self.put_next().await {
            // Whoever serves next has the newer document from its start.
            self.raise(Duration::from_millis(1));
        }
        self.host.attach(None);
        self.allow_next();
        if self.put_next().await {
            let state = self.state.lock().unwrap();
            self.tell_host(&state);
        }
    }

    /// Puts a newer document until the engine of now has it in force. False if it does not come to it.
    async fn put_next(self: &Arc<Self>) -> bool {
        self.state.lock().unwrap().generation.0 += 1;
        let putting = async {
            loop {
                self.until_there().await;
                let (pod, document) = {
                    let state = self.state.lock().unwrap();
                    (state.pod.clone(), self.document(&state))
                };
                match pod.put(document).await {
                    Some(Ok(())) => return true,
                    Some(Err(error)) => {
                        say!(self.world, "the document is refused: {error}");
                        if matches!(error, weft_engine::document::DocumentError::Parked) {
                            return false;
                        }
                    }
                    None => {}
                }
                sleep(AGAIN).await;
            }
        };
        timeout(PATIENCE, putting).await.unwrap_or(false)
    }

    fn document(&self, state: &State) -> EngineDocument {
        EngineDocument {
            generation: state.generation,
            term: state.term,
            stack: stack(&self.members, &self.witnesses, state.term, state.formed),
            hosts: state.attached.map(allowed).into_iter().collect(),
            ..empty()
        }
    }
}

fn empty() -> EngineDocument {
    EngineDocument {
        version: DOCUMENT_VERSION,
        generation: DocumentGeneration(1),
        cluster: ClusterUid(Uuid::from_u128(0xc1)),
        volume: VOLUME,
        name: "v0".into(),
        term: Term(1),
        size: SIZE,
        stack: stack(&[], &[], Term(1), false),
        hosts: vec![],
        port: 4420,
        control: None,
    }
}

fn stack(members: &[Arc<Drive>], witnesses: &[Arc<Drive>], term: Term, formed: bool) -> Stack {
    let named = |drives: &[Arc<Drive>]| drives.iter().map(|drive| drive.member(term)).collect();
    Stack::Mirror(Mirror {
        members: named(members),
        joining: Vec::new(),
        witnesses: named(witnesses),
        formed,
        lineage: Uuid::from_u128(0x1e),
        recovery: None,
    })
}

fn name(generation: AttachGeneration) -> HostNqn {
    HostNqn::host(&Key::from_bytes([9; 32]), VOLUME, "n9", generation)
}

fn allowed(generation: AttachGeneration) -> AllowedHost {
    AllowedHost {
        attachment: "v0-n9".into(),
        node: "n9".into(),
        generation,
        nqn: name(generation),
        read_only: false,
    }
}
