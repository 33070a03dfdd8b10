//! The fence of one slice: which association may do I/O, checked at each command.
//!
//! At most one association of a slice does I/O. One that is admitted ends the one before it,
//! also when both are of the same process: a command that lies in the old connection's socket
//! must not run after its repetition on the new one was acknowledged.

use crate::store::{Carried, Mark, Slice, Store};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_spec::drive::Config;
use weft_spec::ids::FencePair;
use weft_transport::Events;

/// No association may do I/O.
const NOBODY: u64 = 0;

/// The fence of one slice.
#[derive(Default)]
pub struct Fence {
    /// Serial number of the association that may do I/O; read at each command.
    active: AtomicU64,
    serial: AtomicU64,
    /// Associations that have not ended.
    live: Mutex<Vec<Arc<Association>>>,
    /// Through which the admitted engine hears of changes of the slice.
    pub(crate) events: Events,
    /// One Connect at a time decides.
    pub(crate) deciding: tokio::sync::Mutex<()>,
}

/// One admitted engine.
pub struct Association {
    serial: u64,
    pair: FencePair,
    fence: Arc<Fence>,
    /// Ends it in the target.
    pub(crate) revoke: CancellationToken,
    commands: AtomicU32,
    idle: Notify,
    closed: CancellationToken,
}

/// A command that runs. Dropped when nothing of it can touch the medium any more.
pub struct Permit(Arc<Association>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Dropped by the target when the association has ended.
pub struct Ended {
    association: Arc<Association>,
    told: Arc<dyn Fn() + Send + Sync>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let fence = &self.association.fence;
        fence
            .live()
            .retain(|live| live.serial != self.association.serial);
        self.association.closed.cancel();
        (self.told)();
    }
}

impl Fence {
    /// Lets nobody in any more: what runs goes on to its end, nothing begins. The associations
    /// that were live are revoked and handed back, to be waited for.
    pub fn shut(&self) -> Vec<Arc<Association>> {
        self.active.store(NOBODY, Ordering::SeqCst);
        let live = self.live().clone();
        live.iter()
            .for_each(|association| association.revoke.cancel());
        live
    }

    /// Lets a new association of this pair in. The caller has shut and drained the older ones.
    /// `told` is called when it has ended.
    pub fn admit(
        self: &Arc<Self>,
        pair: FencePair,
        told: Arc<dyn Fn() + Send + Sync>,
    ) -> (Arc<Association>, Ended) {
        let serial = self.serial.fetch_add(1, Ordering::SeqCst) + 1;
        let association = Arc::new(Association {
            serial,
            pair,
            fence: self.clone(),
            revoke: CancellationToken::new(),
            commands: AtomicU32::new(0),
            idle: Notify::new(),
            closed: CancellationToken::new(),
        });
        self.live().push(association.clone());
        self.active.store(serial, Ordering::SeqCst);
        let ended = Ended {
            association: association.clone(),
            told,
        };
        (association, ended)
    }

    /// Associations that may do I/O.
    pub fn connections(&self) -> u32 {
        let active = self.active.load(Ordering::SeqCst);
        self.live()
            .iter()
            .filter(|association| association.serial == active)
            .count() as u32
    }

    fn live(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Association>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Association {
    /// Begins a command, unless the fence has gone on. Counted before the check, so that who
    /// shuts the fence and then sees no command knows that none can begin.
    pub fn enter(self: &Arc<Self>) -> Result<Permit, DiskError> {
        self.commands.fetch_add(1, Ordering::SeqCst);
        let permit = Permit(self.clone());
        if self.fence.active.load(Ordering::SeqCst) == self.serial {
            return Ok(permit);
        }
        Err(DiskError::new(
            ErrorKind::Fenced,
            format!(
                "a newer engine than {} was admitted to the slice",
                self.pair
            ),
        ))
    }

    /// Until no command of it runs.
    pub async fn drained(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.commands.load(Ordering::SeqCst) == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Until its connections are closed.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// The pair it was admitted with.
    pub fn pair(&self) -> FencePair {
        self.pair
    }

    fn leave(&self) {
        if self.commands.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.idle.notify_waiters();
        }
    }
}

/// A slice as one association sees it.
pub struct FencedDisk {
    pub(crate) store: Arc<Store>,
    pub(crate) slice: Arc<Slice>,
    pub(crate) association: Arc<Association>,
}

impl FencedDisk {
    /// What a command says of itself. What it says of others holds already, and is taken in before
    /// it is run itself.
    fn carried(&self, stamp: Stamp) -> Carried {
        let pair = self.association.pair();
        if stamp.checkpoint != 0 {
            self.store.checkpoint(&self.slice, pair, stamp.checkpoint);
        }
        Carried {
            config: Config(stamp.config),
            mark: Mark {
                pair,
                number: stamp.number,
            },
        }
    }
}

#[async_trait]
impl Disk for FencedDisk {
    fn size(&self) -> u64 {
        self.slice.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let permit = self.association.enter()?;
        self.store.read(&self.slice, offset, into, permit).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let permit = self.association.enter()?;
        let carried = self.carried(stamp);
        self.store
            .write(&self.slice, offset, data, mode, carried, permit)
            .await
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        let permit = self.association.enter()?;
        self.carried(stamp);
        self.store.flush(permit).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let permit = self.association.enter()?;
        let carried = self.carried(stamp);
        self.store
            .zero(&self.slice, offset, length, carried, permit)
            .await
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.write_zeroes_stamped(offset, length, stamp).await
    }
}

/// A slice as an inspecting host sees it: it has a size, and nothing can be done to it.
pub struct InspectedDisk(pub(crate) Arc<Slice>);

fn only_inspected() -> DiskError {
    DiskError::new(ErrorKind::Fenced, "an inspecting host has no right to I/O")
}

#[async_trait]
impl Disk for InspectedDisk {
    fn size(&self) -> u64 {
        self.0.size()
    }

    async fn read(&self, _offset: u64, _into: &mut BytesMut) -> Result<(), DiskError> {
        Err(only_inspected())
    }

    async fn write_stamped(
        &self,
        _offset: u64,
        _data: Bytes,
        _mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        Err(only_inspected())
    }

    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Err(only_inspected())
    }

    async fn write_zeroes_stamped(
        &self,
        _offset: u64,
        _length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        Err(only_inspected())
    }

    async fn discard_stamped(&self, _offset: u64, _length: u64, _: Stamp) -> Result<(), DiskError> {
        Err(only_inspected())
    }
}
