//! One association: the controller that an admin queue made, shared by the connections of its queues.

use super::{Admission, ConnectRequest, Export};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use weft_nvme::BLOCK;
use weft_nvme::command::fabrics::ConnectData;
use weft_nvme::identify::Shape;
use weft_nvme::target::Controller;

/// Controllers that one process may have for one subsystem at a time (`Export::first_controller`).
const CONTROLLERS: u16 = 16;

/// What all queues of one association share. When the last connection has let go of it, nothing of
/// it runs or can ever start, and `ended` is dropped with it.
pub(super) struct Association {
    pub id: u16,
    pub export: Export,
    pub ending: CancellationToken,
    host: ConnectRequest,
    controller: Mutex<Controller>,
    queues: Mutex<HashSet<u16>>,
    /// When something came last, in milliseconds after `since`.
    heard: AtomicU64,
    since: Instant,
    /// Queues that have commands, or answers that have not left.
    busy: watch::Sender<usize>,
    _ended: Box<dyn Send + Sync>,
}

impl Association {
    /// Size of the namespace in blocks, as of now.
    pub fn blocks(&self) -> u64 {
        self.export.disk.size() / BLOCK
    }

    pub fn controller(&self) -> MutexGuard<'_, Controller> {
        // A panic under this lock leaves numbers, not broken invariants.
        self.controller
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, association| association.strong_count() > 0);
        let id = (0..CONTROLLERS)
            .filter_map(|k| export.first_controller.checked_add(k))
            .find(|id| !all.contains_key(&(request.subsystem.clone(), *id)))?;
        let shape = Shape {
            subsystem: request.subsystem.clone(),
            serial: export.serial.clone(),
            controller: id,
            uuid: export.uuid,
            blocks: export.disk.size() / BLOCK,
            read_only: export.read_only,
            queue_size,
        };
        let association = Arc::new(Association {
            id,
            export,
            ending: revoke,
            controller: Mutex::new(Controller::new(shape, io_queues, kato_ms)),
            queues: Mutex::default(),
            heard: AtomicU64::new(0),
            since: Instant::now(),
            busy: watch::Sender::new(0),
            _ended: ended,
            host: request.clone(),
        });
        all.insert((request.subsystem, id), Arc::downgrade(&association));
        Some(association)
    }
}
