//! One association: the controller that an admin queue made, shared by the connections of its queues.

use super::events::Seen;
use super::{Admission, ConnectRequest, Discovery, Export};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use weft_nvme::BLOCK;
use weft_nvme::command::Sqe;
use weft_nvme::command::fabrics::ConnectData;
use weft_nvme::identify::{ControllerType, Shape};
use weft_nvme::log::AnaState;
use weft_nvme::target::{Controller, Notice, Now, Reply};

/// Controllers that one process may have for one subsystem at a time (`Export::first_controller`).
const CONTROLLERS: u16 = 16;
/// First controller identifier of a discovery subsystem.
const FIRST_DISCOVERY: u16 = 1;

/// What an association is for.
pub(super) enum Served {
    Namespace(Export),
    /// The discovery log, asked for at this address.
    Discovery(Arc<dyn Discovery>, SocketAddr),
}

/// What the host was told of, or could have read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    Namespace(Seen),
    Discovery(u64),
}

impl Served {
    fn now(&self) -> Told {
        match self {
            Self::Namespace(export) => Told::Namespace(export.events.seen()),
            Self::Discovery(discovery, _) => Told::Discovery(*discovery.generation().borrow()),
        }
    }
}

/// What all queues of one association share. When the last connection has let go of it, nothing of
/// it runs or can ever start, and `ended` is dropped with it.
pub(super) struct Association {
    pub id: u16,
    pub served: Served,
    pub ending: CancellationToken,
    host: ConnectRequest,
    controller: Mutex<Controller>,
    /// What the controller says of itself, for every I/O command to read.
    ready: AtomicBool,
    told: Mutex<Told>,
    queues: Mutex<HashSet<u16>>,
    /// When something came last, in milliseconds after `since`.
    heard: AtomicU64,
    since: Instant,
    /// Queues that have commands, or answers that have not left.
    busy: watch::Sender<usize>,
    _ended: Box<dyn Send + Sync>,
}

impl Association {
    /// The namespace, which a discovery controller does not have.
    pub fn export(&self) -> Option<&Export> {
        match &self.served {
            Served::Namespace(export) => Some(export),
            Served::Discovery(..) => None,
        }
    }

    /// HOSTNQN.
    pub fn host(&self) -> &str {
        &self.host.host
    }

    /// What the controller says of its namespace, as of now.
    pub fn now(&self) -> Now {
        let export = self.export();
        let seen = export.map(|export| export.events.seen());
        Now {
            blocks: export.map_or(0, |export| export.disk.size() / BLOCK),
            ana: seen.map_or(AnaState::Optimized, |seen| seen.ana),
            ana_changes: seen.map_or(0, |seen| seen.ana_changes),
        }
    }

    /// Hands what happened since the last call to the controller, and gives what is to be told now.
    pub fn notices(&self) -> Vec<Notice> {
        let now = self.served.now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *told, now);
        drop(told);
        let mut controller = self.controller();
        match (before, now) {
            (Told::Namespace(before), Told::Namespace(now)) => {
                if before.sizes != now.sizes {
                    controller.raise(Notice::Namespace);
                }
                if before.ana_changes != now.ana_changes {
                    controller.raise(Notice::Ana);
                }
            }
            (before, now) if before != now => controller.raise(Notice::Discovery),
            _ => {}
        }
        std::iter::from_fn(|| controller.next_notice()).collect()
    }

    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        // A panic under this lock leaves numbers, not broken invariants.
        self.controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The controller's answer to an admin command.
    pub fn answer(&self, sqe: &Sqe, now: Now) -> Reply {
        let mut controller = self.controller();
        let reply = controller.answer(sqe, now);
        // Under the lock: what is written last is what was decided last.
        self.ready.store(controller.is_ready(), Ordering::Release);
        reply
    }

    /// Whether I/O commands are served.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Takes an I/O queue's number; false if it is in use.
    pub fn take_queue(&self, queue: u16) -> bool {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(queue)
    }

    pub fn free_queue(&self, queue: u16) {
        self.queues
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&queue);
    }

    /// A queue begins.
    pub fn begin(&self) {
        self.busy.send_modify(|busy| *busy += 1);
    }

    /// A queue has nothing to do any more and never will.
    pub fn settle(&self) {
        self.busy.send_modify(|busy| *busy = busy.saturating_sub(1));
    }

    /// Waits until all queues have settled. A host gives all of them up when it loses one, so the
    /// idle ones are kept open until the last command was answered.
    pub async fn settled(&self) {
        // The sender lives in `self`, so there is always an answer.
        let mut busy = self.busy.subscribe();
        let _settled = busy.wait_for(|busy| *busy == 0).await;
    }

    /// Something came from the host, on any queue.
    pub fn hear(&self, now: Instant) {
        let after = now.duration_since(self.since).as_millis();
        let after = u64::try_from(after).unwrap_or(u64::MAX);
        self.heard.fetch_max(after, Ordering::Relaxed);
    }

    /// When something came last.
    pub fn heard(&self) -> Instant {
        self.since + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }

    /// Whether this Connect of an I/O queue comes from the host of the admin queue.
    pub fn is_host(&self, data: &ConnectData) -> bool {
        self.host.host == data.host && self.host.host_id == data.host_id
    }
}

/// All associations of one listener, by subsystem and controller.
#[derive(Default)]
pub(super) struct Associations(Mutex<HashMap<(String, u16), Weak<Association>>>);

impl Associations {
    /// The association that an I/O queue names.
    pub fn find(&self, subsystem: &str, controller: u16) -> Option<Arc<Association>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(&(subsystem.to_owned(), controller))?.upgrade()
    }

    /// Makes the controller of an admitted host; `None` if all controller identifiers are in use.
    pub fn admit(
        &self,
        request: ConnectRequest,
        admission: Admission,
        queue_size: u16,
        io_queues: u16,
        kato_ms: u32,
    ) -> Option<Arc<Association>> {
        let Admission {
            export,
            revoke,
            ended,
        } = admission;
        let first = export.first_controller;
        let served = Served::Namespace(export);
        let made = Made {
            served,
            revoke,
            ended,
        };
        self.make(request, made, first, queue_size, io_queues, kato_ms)
    }

    /// Makes the controller of a host that wants to discover.
    pub fn admit_discovery(
        &self,
        request: ConnectRequest,
        discovery: Arc<dyn Discovery>,
        local: SocketAddr,
        queue_size: u16,
        kato_ms: u32,
    ) -> Option<Arc<Association>> {
        let made = Made {
            served: Served::Discovery(discovery, local),
            revoke: CancellationToken::new(),
            ended: Box::new(()),
        };
        self.make(request, made, FIRST_DISCOVERY, queue_size, 0, kato_ms)
    }

    fn make(
        &self,
        request: ConnectRequest,
        made: Made,
        first: u16,
        queue_size: u16,
        io_queues: u16,
        kato_ms: u32,
    ) -> Option<Arc<Association>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, association| association.strong_count() > 0);
        let id = (0..CONTROLLERS)
            .filter_map(|k| first.checked_add(k))
            .find(|id| !all.contains_key(&(request.subsystem.clone(), *id)))?;
        let shape = made.shape(&request.subsystem, id, queue_size);
        let association = Arc::new(Association {
            id,
            told: Mutex::new(made.served.now()),
            served: made.served,
            ending: made.revoke,
            controller: Mutex::new(Controller::new(shape, io_queues, kato_ms)),
            ready: AtomicBool::new(false),
            queues: Mutex::default(),
            heard: AtomicU64::new(0),
            since: Instant::now(),
            busy: watch::Sender::new(0),
            _ended: made.ended,
            host: request.clone(),
        });
        all.insert((request.subsystem, id), Arc::downgrade(&association));
        Some(association)
    }
}

/// An association that was decided upon.
struct Made {
    served: Served,
    revoke: CancellationToken,
    ended: Box<dyn Send + Sync>,
}

impl Made {
    fn shape(&self, subsystem: &str, controller: u16, queue_size: u16) -> Shape {
        let nothing = Shape {
            kind: ControllerType::Discovery,
            subsystem: subsystem.to_owned(),
            serial: "discovery".to_owned(),
            controller,
            uuid: uuid::Uuid::nil(),
            blocks: 0,
            read_only: false,
            queue_size,
        };
        match &self.served {
            Served::Discovery(..) => nothing,
            Served::Namespace(export) => Shape {
                kind: ControllerType::Io,
                serial: export.serial.clone(),
                uuid: export.uuid,
                blocks: export.disk.size() / BLOCK,
                read_only: export.read_only,
                ..nothing
            },
        }
    }
}
