//! A disk that outlives its associations.

use super::{ConnectOptions, RemoteDisk};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use tokio::sync::watch;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_nvme::log::AnaState;

/// What a [`ReconnectingDisk`] knows about its path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathState {
    /// Whether there is an association now.
    pub connected: bool,
    /// Where it connects to.
    pub address: SocketAddr,
    /// Local address of the admin queue of the newest association.
    pub local: Option<SocketAddr>,
    /// SUBNQN that the target last answered.
    pub subsystem: Option<String>,
    /// UUID of the namespace.
    pub namespace_uuid: Option<Uuid>,
    /// Bytes, as the target last told; 0 until the first association.
    pub size: u64,
    /// ANA state on the association of now: requests wait while it is not optimized.
    pub ana: AnaState,
    /// The newest attempt was refused with Connect Invalid Host: this host has lost its right.
    pub invalid_host: bool,
    /// Why there is no association.
    pub reason: Option<String>,
}

/// Holds requests while there is no association, connects again without limit, and sends again
/// what was not answered.
pub struct ReconnectingDisk {
    state: watch::Sender<PathState>,
    current: watch::Sender<Option<Arc<RemoteDisk>>>,
    address: watch::Sender<SocketAddr>,
    stopped: CancellationToken,
}

/// An association that lived shorter than this counts as a failed attempt: a target that takes
/// every Connect and serves nothing must not be asked without pause.
const SETTLED: Duration = Duration::from_secs(1);

/// Waits between attempts: at once, then ever longer. A bound on how often, never on how long.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        n => {
            (Duration::from_millis(25) * 2u32.saturating_pow(n.min(6))).min(Duration::from_secs(1))
        }
    }
}

impl ReconnectingDisk {
    /// Starts connecting; `first` is an association that exists already, made with these options.
    /// Dropping the last `Arc`, or [`ReconnectingDisk::stop`], ends it.
    pub fn start(options: ConnectOptions, first: Option<RemoteDisk>) -> Arc<Self> {
        let state = PathState {
            connected: false,
            address: options.address,
            local: None,
            subsystem: None,
            namespace_uuid: None,
            size: 0,
            ana: AnaState::Optimized,
            invalid_host: false,
            reason: None,
        };
        let disk = Arc::new(Self {
            state: watch::Sender::new(state),
            current: watch::Sender::new(None),
            address: watch::Sender::new(options.address),
            stopped: CancellationToken::new(),
        });
        let first = first.map(Arc::new);
        if let Some(first) = &first {
            disk.connected(options.address, first.clone());
        }
        tokio::spawn(keep_connected(
            Arc::downgrade(&disk),
            disk.stopped.clone(),
            options,
            first,
        ));
        disk
    }

    /// From now on connects there; an association with another address is given up.
    pub fn set_address(&self, address: SocketAddr) {
        self.address
            .send_if_modified(|old| std::mem::replace(old, address) != address);
    }

    /// The path's state, told at each change.
    pub fn state(&self) -> watch::Receiver<PathState> {
        self.state.subscribe()
    }

    /// The association of now, for vendor specific commands.
    pub fn current(&self) -> Option<Arc<RemoteDisk>> {
        self.current.borrow().clone()
    }

    /// Ends it: requests held or sent later fail with [`ErrorKind::Gone`], the association is
    /// ended in order.
    pub async fn stop(&self) {
        self.stopped.cancel();
        let current = self.current.send_replace(None);
        if let Some(remote) = current {
            remote.disconnect().await;
        }
    }

    fn connected(&self, address: SocketAddr, remote: Arc<RemoteDisk>) {
        // Before the state, so that whoever is told finds it.
        self.current.send_replace(Some(remote.clone()));
        self.state.send_modify(|state| {
            state.connected = true;
            state.address = address;
            state.local = Some(remote.local());
            state.subsystem = Some(remote.subsystem().to_owned());
            state.namespace_uuid = Some(remote.namespace_uuid());
            state.size = remote.size();
            state.ana = remote.ana();
            state.invalid_host = false;
            state.reason = None;
        });
    }

    /// The target has told something about its namespace.
    fn told(&self, remote: &RemoteDisk) {
        let (size, ana) = (remote.size(), remote.ana());
        self.state.send_if_modified(|state| {
            let differs = (state.size, state.ana) != (size, ana);
            (state.size, state.ana) = (size, ana);
            differs
        });
    }

    /// Why an association must not take the place of earlier ones: requests that were promised of
    /// one namespace would go to another.
    fn objection(&self, remote: &RemoteDisk) -> Option<String> {
        let state = self.state.borrow();
        let (known, uuid) = (state.namespace_uuid?, remote.namespace_uuid());
        if known != uuid {
            return Some(format!("namespace {uuid} answers in the place of {known}"));
        }
        let (was, is) = (state.size, remote.size());
        (is < was).then(|| format!("the namespace shrank from {was} to {is} bytes"))
    }

    fn disconnected(&self, address: SocketAddr, reason: String, invalid_host: bool) {
        self.current.send_replace(None);
        self.state.send_if_modified(|state| {
            let next = PathState {
                connected: false,
                address,
                invalid_host,
                reason: Some(reason),
                ..state.clone()
            };
            std::mem::replace(state, next.clone()) != next
        });
    }

    /// The next association that is not `than`.
    async fn other(&self, than: Option<&Arc<RemoteDisk>>) -> Result<Arc<RemoteDisk>, DiskError> {
        let is_fresh = |now: &Arc<RemoteDisk>| {
            !now.is_closed() && than.is_none_or(|than| !Arc::ptr_eq(now, than))
        };
        // Nearly always; waiting costs locks and a place in two lists.
        if !self.stopped.is_cancelled()
            && let Some(now) = self.current().filter(is_fresh)
        {
            return Ok(now);
        }
        let mut current = self.current.subscribe();
        let fresh = current.wait_for(|now| now.as_ref().is_some_and(is_fresh));
        tokio::select! {
            biased;
            () = self.stopped.cancelled() => Err(gone()),
            remote = fresh => remote.ok().and_then(|now| now.clone()).ok_or_else(gone),
        }
    }
}

impl Drop for ReconnectingDisk {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

/// Connects, waits for the loss, and begins again, until nobody holds the disk any more.
async fn keep_connected(
    disk: Weak<ReconnectingDisk>,
    stopped: CancellationToken,
    mut options: ConnectOptions,
    mut remote: Option<Arc<RemoteDisk>>,
) {
    let Some(mut address) = disk.upgrade().map(|disk| disk.address.subscribe()) else {
        return;
    };
    let mut failures = 0u32;
    loop {
        if let Some(remote) = remote.take() {
            let since = Instant::now();
            let mut changes = remote.changes();
            // What was told between the Connect and now.
            changes.mark_changed();
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    () = remote.closed() => {}
                    Ok(()) = changes.changed() => {
                        let Some(disk) = disk.upgrade() else { return };
                        disk.told(&remote);
                        continue;
                    }
                    // An error says that the disk is gone, and with it the token is cancelled.
                    _ = address.changed() => remote.disconnect().await,
                }
                break;
            }
            if since.elapsed() >= SETTLED {
                failures = 0;
            } else {
                failures = failures.saturating_add(1);
            }
            let Some(disk) = disk.upgrade() else { return };
            disk.disconnected(options.address, "the connection was lost".to_owned(), false);
        }
        options.address = *address.borrow_and_update();
        let attempt = async {
            sleep(pause(failures)).await;
            RemoteDisk::connect(options.clone()).await
        };
        let attempt = tokio::select! {
            () = stopped.cancelled() => return,
            _ = address.changed() => { failures = 0; continue }
            attempt = attempt => attempt,
        };
        let Some(disk) = disk.upgrade() else { return };
        let (reason, invalid_host) = match attempt {
            Ok(connected) => match disk.objection(&connected) {
                None => {
                    let connected = Arc::new(connected);
                    disk.connected(options.address, connected.clone());
                    remote = Some(connected);
                    continue;
                }
                Some(objection) => (objection, false),
            },
            Err(error) => (error.to_string(), error.is_invalid_host()),
        };
        failures = failures.saturating_add(1);
        disk.disconnected(options.address, reason, invalid_host);
    }
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "stopped")
}

/// Runs a request on the association of now, and again on the next one as long as it is lost.
macro_rules! persist {
    ($disk:ident, $remote:ident, $request:expr) => {{
        let mut last = None;
        loop {
            let $remote = $disk.other(last.as_ref()).await?;
            match $request.await {
                Err(error) if error.kind() == ErrorKind::Gone => last = Some($remote),
                result => return result,
            }
        }
    }};
}

#[async_trait]
impl Disk for ReconnectingDisk {
    fn size(&self) -> u64 {
        self.state.borrow().size
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        persist!(self, remote, remote.read(offset, into))
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        persist!(
            self,
            remote,
            remote.write_stamped(offset, data.clone(), mode, stamp)
        )
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        persist!(self, remote, remote.flush_stamped(stamp))
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        persist!(
            self,
            remote,
            remote.write_zeroes_stamped(offset, length, stamp)
        )
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        persist!(self, remote, remote.discard_stamped(offset, length, stamp))
    }
}
