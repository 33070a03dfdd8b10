//! The engine's loop: waits for what happens, gives it to the plan, does what the plan says.

mod control;
mod many;

use crate::control::Put;
use crate::document::DocumentError;
use crate::gate::{Door, HostGate};
use crate::members::{self, Members};
use crate::network::{Network, Tcp};
use crate::pauses::Pauses;
use crate::plan::{Action, Engine, Event, Phase};
use crate::slice_link;
use crate::stack;
use crate::status::{self, Wire, Wires};

use anyhow::Context;
use control::Control;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::Disk;
use weft_spec::engine::{EngineDocument, EngineStatus};
use weft_spec::ids::{AttachGeneration, DocumentGeneration, FencePair};
use weft_transport::{AnaState, ConnectOptions, PathState, ReconnectingDisk, RemoteDisk};

/// Pause before the second inspection in a row, doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Documents that wait for the loop; the operator puts one at a time.
const PUTS: usize = 4;

/// How an engine ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Asked to end, nobody uses it any more.
    Left,
    /// Met a newer pair: nothing may start it again.
    Parked,
}

/// Serves the volume of this document until it is asked to end or fenced.
pub async fn run(document: EngineDocument) -> anyhow::Result<Outcome> {
    let terminate = signal(SignalKind::terminate())?;
    let terminate = stream::unfold(terminate, |mut terminate| async {
        terminate.recv().await.map(|()| ((), terminate))
    });
    let (puts, put) = mpsc::channel(PUTS);
    let (link, volume) = (document.control.clone(), document.volume);
    let process = Process::new(document, Arc::new(Tcp));
    let control = link.map(|link| Control::start(&link, volume, &process.status(), puts));
    let control = control.transpose()?;
    let outcome = process.run(put, terminate.boxed()).await?;
    if let Some(control) = control {
        control.end().await;
    }
    Ok(outcome)
}

/// An engine apart from the machine that it runs on.
pub struct Process {
    runner: Runner,
    first: Vec<Action>,
}

impl Process {
    /// With its first document.
    pub fn new(document: EngineDocument, network: Arc<dyn Network>) -> Self {
        let (engine, first) = Engine::new(document);
        let status = status::status(&engine, &Wires::One(&Wire::default()), &[]);
        let runner = Runner::new(engine, network, watch::Sender::new(status));
        Self { runner, first }
    }

    /// What it reports.
    pub fn status(&self) -> watch::Receiver<EngineStatus> {
        self.runner.status.subscribe()
    }

    /// Serves until it is asked to end or fenced.
    pub async fn run(
        self,
        mut put: mpsc::Receiver<Put>,
        mut terminate: BoxStream<'static, ()>,
    ) -> anyhow::Result<Outcome> {
        let Self { mut runner, first } = self;
        let mut ended = runner.perform(first).await?;
        while ended.is_none() {
            let happened = runner.wait(&mut put, &mut terminate).await;
            ended = runner.apply(happened).await?;
        }
        // A pod that is being deleted has done its duty once it is fenced.
        Ok(match ended {
            Some(Outcome::Parked) if !runner.engine.terminating() => Outcome::Parked,
            _ => Outcome::Left,
        })
    }
}

/// What the loop wakes up for.
enum Happened {
    Event(Event),
    Connected(Box<(FencePair, ConnectOptions, RemoteDisk)>),
    /// This end as the drive sees it, on the association with this local address.
    Seen(Option<SocketAddr>, Option<SocketAddr>),
    Path(Box<PathState>),
    Members(Box<members::State>),
    Put(Put),
    Associations,
}

struct Runner {
    engine: Engine,
    network: Arc<dyn Network>,
    /// Names this process at the slices; another start has another.
    process: Uuid,
    wire: Wire,
    status: watch::Sender<EngineStatus>,
    tasks: JoinSet<Happened>,
    inspection: Option<AbortHandle>,
    pauses: Pauses,
    fenced: CancellationToken,
    /// The slices of a mirror.
    members: Option<Members>,
    link: Option<Link>,
    export: Option<JoinHandle<std::io::Result<()>>>,
    waiting: VecDeque<(
        DocumentGeneration,
        oneshot::Sender<Result<(), DocumentError>>,
    )>,
}

/// What exists once the fence was raised.
struct Link {
    volume: stack::Volume,
    /// The one slice; a mirror's are with [`Members`].
    slice: Option<Slice>,
    gate: Arc<HostGate>,
    associations: watch::Receiver<()>,
}

impl Link {
    fn new(
        document: &EngineDocument,
        pair: FencePair,
        below: Arc<dyn Disk>,
        slice: Option<Slice>,
        loss: Option<AttachGeneration>,
        fenced: &CancellationToken,
    ) -> Self {
        let volume = stack::build(document, below, fenced);
        let gate = HostGate::new(document.volume, pair, volume.top.clone(), loss);
        Self {
            associations: gate.changed(),
            volume,
            slice,
            gate,
        }
    }
}

/// The one slice of a volume, over whatever association there is.
struct Slice {
    disk: Arc<ReconnectingDisk>,
    path: watch::Receiver<PathState>,
}

impl Runner {
    fn new(engine: Engine, network: Arc<dyn Network>, status: watch::Sender<EngineStatus>) -> Self {
        Self {
            engine,
            network,
            process: Uuid::new_v4(),
            wire: Wire::default(),
            status,
            tasks: JoinSet::new(),
            inspection: None,
            pauses: Pauses::new(FIRST_PAUSE, LONGEST_PAUSE),
            fenced: CancellationToken::new(),
            members: None,
            link: None,
            export: None,
            waiting: VecDeque::new(),
        }
    }

    async fn wait(
        &mut self,
        puts: &mut mpsc::Receiver<Put>,
        terminate: &mut BoxStream<'static, ()>,
    ) -> Happened {
        loop {
            // The fence first: it ends all answers. The same order each time, for simulations.
            tokio::select! {
                biased;
                () = self.fenced.cancelled() => return Happened::Event(Event::Fenced),
                Some(task) = self.tasks.join_next() => match task {
                    Ok(happened) => return happened,
                    // Given up for a newer one.
                    Err(error) if error.is_cancelled() => {}
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                },
                happened = changed(&mut self.link) => return happened,
                happened = told(&mut self.members) => return happened,
                Some(put) = puts.recv() => return Happened::Put(put),
                Some(()) = terminate.next() => return Happened::Event(Event::Terminate),
            }
        }
    }

    async fn apply(&mut self, happened: Happened) -> anyhow::Result<Option<Outcome>> {
        let actions = match happened {
            Happened::Event(event) => self.engine.step(event),
            Happened::Connected(connected) => self.connected(*connected),
            Happened::Seen(local, seen) => {
                // The answer may be about an association that is lost by now.
                if self.wire.path.as_ref().map(|path| path.local) == Some(local) {
                    self.wire.seen_by_drive = seen;
                }
                Vec::new()
            }
            Happened::Path(path) => self.path(*path),
            Happened::Members(state) => self.members(*state)?,
            Happened::Put(put) => self.put(put),
            Happened::Associations => {
                let live = self
                    .link
                    .as_ref()
                    .map_or(0, |link| link.gate.associations().len());
                self.engine.step(Event::Associations(live))
            }
        };
        self.perform(actions).await
    }

    async fn perform(&mut self, actions: Vec<Action>) -> anyhow::Result<Option<Outcome>> {
        let mut ended = None;
        for action in actions {
            match action {
                Action::Inspect => self.inspect(),
                Action::Connect(pair) => self.connect(pair),
                Action::Record(generation) => self.record(generation),
                Action::Admit => {
                    if let Some(link) = &self.link {
                        link.gate.admit(self.engine.admitted());
                    }
                }
                Action::Serve => self.serve().await?,
                Action::Measure => self.measure(),
                Action::Grow(size) => {
                    if let Some(link) = &self.link {
                        tracing::info!(size, "volume grown");
                        link.volume.grow(size);
                        link.gate.events().resized();
                    }
                }
                Action::Redirect(address) => {
                    if let Some(slice) = self.slice() {
                        slice.disk.set_address(address);
                    }
                }
                Action::Park => {
                    // From here on no answer leaves, and the hosts' connections just end.
                    self.fenced.cancel();
                    if let Some(export) = self.export.take() {
                        export.abort();
                    }
                    ended = Some(Outcome::Parked);
                }
                Action::Leave => ended = Some(Outcome::Left),
            }
        }
        if let Some(export) = &mut self.export
            && export.is_finished()
        {
            export.await?.context("the export ended")?;
        }
        self.answer_puts();
        self.report();
        Ok(ended)
    }

    fn slice(&self) -> Option<&Slice> {
        self.link.as_ref()?.slice.as_ref()
    }

    fn inspect(&mut self) {
        let Some(way) = self.way() else {
            return self.assemble();
        };
        let pause = self.pauses.next();
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(pause).await;
            Happened::Event(match slice_link::inspect(&way).await {
                Ok(inspection) => Event::Inspected(inspection),
                Err(error) => Event::Unreachable(error.to_string()),
            })
        });
        self.give_up(Some(task));
    }

    fn connect(&mut self, pair: FencePair) {
        let Some(way) = self.way() else { return };
        let task = self.tasks.spawn(async move {
            match slice_link::connect(&way, pair).await {
                Ok((options, disk)) => Happened::Connected(Box::new((pair, options, disk))),
                Err(error) => Happened::Event(Event::Unreachable(error.to_string())),
            }
        });
        self.give_up(Some(task));
    }

    /// An inspection or Connect under way has no say any more; `newer` takes its place.
    fn give_up(&mut self, newer: Option<AbortHandle>) {
        if let Some(older) = std::mem::replace(&mut self.inspection, newer) {
            older.abort();
        }
    }

    fn connected(
        &mut self,
        (pair, options, first): (FencePair, ConnectOptions, RemoteDisk),
    ) -> Vec<Action> {
        if *self.engine.phase() != Phase::Connecting || pair != self.engine.pair() {
            return Vec::new();
        }
        self.pauses.begin_anew();
        let disk = ReconnectingDisk::start(options, Some(first));
        let document = self.engine.document();
        let mut path = disk.state();
        // What it is now is news to the loop.
        path.mark_changed();
        let slice = Slice {
            disk: disk.clone(),
            path,
        };
        self.link = Some(Link::new(
            document,
            pair,
            disk,
            Some(slice),
            None,
            &self.fenced,
        ));
        tracing::info!(%pair, "fence raised");
        self.engine.step(Event::Connected)
    }

    fn record(&mut self, generation: DocumentGeneration) {
        let Some(slice) = self.slice() else {
            return self.assemble();
        };
        let recording = slice_link::record(slice.disk.clone(), generation);
        self.tasks.spawn(async move {
            Happened::Event(match recording.await {
                Ok(generation) => Event::Recorded(generation),
                Err(_fenced) => Event::Fenced,
            })
        });
    }

    fn measure(&mut self) {
        let disk = self.slice().map(|slice| slice.disk.clone());
        let mirror = self.members.as_ref().map(|members| members.mirror.clone());
        self.tasks.spawn(async move {
            let Some(disk) = disk else {
                let size = mirror.map_or(0, |mirror| mirror.measure());
                return Happened::Event(Event::SliceSize(size));
            };
            // An association that is lost meanwhile is followed by another, which is asked anew.
            let size = slice_link::size(&disk).await.unwrap_or(0);
            Happened::Event(Event::SliceSize(size))
        });
    }

    async fn serve(&mut self) -> anyhow::Result<()> {
        let Some(link) = &self.link else {
            return Ok(());
        };
        let port = self.engine.document().port;
        let door = Arc::new(Door(link.gate.clone()));
        self.export = Some(tokio::spawn(self.network.listen(port, door).await?));
        tracing::info!(port, "serving");
        Ok(())
    }

    fn path(&mut self, path: PathState) -> Vec<Action> {
        let was_up = self.wire.path.as_ref().is_some_and(|path| path.connected);
        let event = path_event(&path);
        let is_new = self.wire.took(path.clone());
        if is_new {
            self.pauses.begin_anew();
            if let Some(slice) = self.slice() {
                let (disk, local) = (slice.disk.clone(), path.local);
                self.tasks.spawn(async move {
                    Happened::Seen(local, slice_link::seen_by_drive(&disk).await)
                });
            }
        }
        // Without its slice the volume pauses: hosts keep their new commands instead of waiting for
        // answers until their own time is over (design section 6, rule 9).
        if let Some(link) = &self.link {
            let served = path.connected && path.ana == AnaState::Optimized;
            link.gate.events().set_ana(if served {
                AnaState::Optimized
            } else {
                AnaState::Inaccessible
            });
        }
        match (was_up, path.connected) {
            (false, true) => tracing::info!(address = %path.address, "drive connected"),
            (true, false) => {
                tracing::warn!(address = %path.address, reason = ?path.reason, "drive lost, I/O waits");
            }
            _ => {}
        }
        let mut actions = self.engine.step(Event::SliceSize(path.size));
        actions.extend(self.engine.step(event));
        actions
    }

    fn put(&mut self, put: Put) -> Vec<Action> {
        let generation = put.document.generation;
        match self.engine.offer(*put.document) {
            Ok(actions) => {
                tracing::info!(%generation, "document taken");
                // A new address deserves a try at once.
                self.pauses.begin_anew();
                self.waiting.push_back((generation, put.answer));
                actions
            }
            Err(refused) => {
                tracing::warn!(%generation, %refused, "document refused");
                let _asker_gone = put.answer.send(Err(refused));
                Vec::new()
            }
        }
    }

    /// Answers each document that is in force, once no host without a right is left.
    fn answer_puts(&mut self) {
        let settled = self.link.as_ref().is_none_or(|link| link.gate.settled());
        let parked = matches!(self.engine.phase(), Phase::Parked(_));
        for _ in 0..self.waiting.len() {
            let Some((generation, answer)) = self.waiting.pop_front() else {
                return;
            };
            if parked {
                let _asker_gone = answer.send(Err(DocumentError::Parked));
            } else if settled && self.engine.in_force(generation) {
                let _asker_gone = answer.send(Ok(()));
            } else if !answer.is_closed() {
                self.waiting.push_back((generation, answer));
            }
        }
    }

    fn report(&mut self) {
        let associations = self.link.as_ref().map(|link| link.gate.associations());
        let members = self
            .members
            .as_ref()
            .map(|members| members.state.borrow().clone());
        let wires = match &members {
            Some(members) => Wires::Many(members),
            None => Wires::One(&self.wire),
        };
        let newest = status::status(&self.engine, &wires, &associations.unwrap_or_default());
        self.status.send_if_modified(|present| {
            if present.state != newest.state || present.reason != newest.reason {
                tracing::info!(state = ?newest.state, reason = newest.reason, "{}", newest.message);
            }
            let differs = *present != newest;
            *present = newest;
            differs
        });
    }
}

async fn changed(link: &mut Option<Link>) -> Happened {
    let Some(link) = link else {
        return std::future::pending().await;
    };
    let path = async {
        let Some(slice) = &mut link.slice else {
            return std::future::pending().await;
        };
        match slice.path.changed().await {
            Ok(()) => slice.path.borrow_and_update().clone(),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        path = path => Happened::Path(Box::new(path)),
        Ok(()) = link.associations.changed() => Happened::Associations,
        else => std::future::pending().await,
    }
}

async fn told(members: &mut Option<Members>) -> Happened {
    let Some(members) = members else {
        return std::future::pending().await;
    };
    match members.state.changed().await {
        Ok(()) => Happened::Members(Box::new(members.state.borrow_and_update().clone())),
        Err(_) => std::future::pending().await,
    }
}

fn path_event(path: &PathState) -> Event {
    let reason = || {
        path.reason
            .clone()
            .unwrap_or_else(|| "the association ended".into())
    };
    match path {
        PathState {
            connected: true, ..
        } => Event::PathUp,
        PathState {
            invalid_host: true, ..
        } => Event::PathRefused(reason()),
        _ => Event::PathLost(reason()),
    }
}
