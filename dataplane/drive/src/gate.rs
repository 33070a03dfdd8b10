//! Who is admitted to a slice (design section 5, Fence).

use crate::fence::{Association, Fence, FencedDisk, InspectedDisk};
use crate::store::{AllocateError, Slice, Store};
use crate::vendor::SliceVendor;
use async_trait::async_trait;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use weft_block::{Disk, DiskError};
use weft_spec::drive::{RecordedSlice, SliceRequest, SliceStatus};
use weft_spec::ids::{FencePair, SliceUid};
use weft_spec::keys::Key;
use weft_spec::nqn::{self, HostNqn};
use weft_transport::target::{Admission, ConnectRequest, Export, Gate, Refusal, Vendor};

/// How long the connections of a fenced association may take to close. Its commands have ended
/// and none can begin, so this bounds a courtesy, not the fence.
const CLOSING: Duration = Duration::from_secs(2);
/// Controller identifiers (NVMe Base 2.0 section 3.1.1, FFF0h and above are reserved).
const FIRST_CONTROLLER: u16 = 1;

/// The slices of an open drive as the network meets them.
pub struct Slices {
    store: Arc<Store>,
    key: watch::Sender<Key>,
    fences: Mutex<HashMap<SliceUid, Arc<Fence>>>,
    /// Counts connects, ends, allocations: whatever a status would show.
    changes: watch::Sender<u64>,
    closing: CancellationToken,
}

impl Slices {
    /// Of this store; hosts prove themselves with this key.
    pub fn new(store: Arc<Store>, key: Key) -> Arc<Self> {
        Arc::new(Self {
            store,
            key: watch::Sender::new(key),
            fences: Mutex::default(),
            changes: watch::Sender::new(0),
            closing: CancellationToken::new(),
        })
    }

    /// The store.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Changes whenever a status would show something else (but for space).
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Hosts prove themselves with this key from now on.
    pub fn set_key(&self, key: Key) {
        self.key.send_replace(key);
    }

    /// Makes a slice.
    pub async fn allocate(
        &self,
        uid: SliceUid,
        request: SliceRequest,
    ) -> Result<SliceStatus, AllocateError> {
        let before = self.store.slice(uid).map(|slice| slice.size());
        let slice = self.store.allocate(uid, request).await?;
        if before.is_some_and(|before| before != slice.size()) {
            self.fence(uid).events.resized();
        }
        self.changed();
        Ok(self.status_of(&slice))
    }

    /// Ends the I/O of a slice and deletes it; false if there is none.
    pub async fn delete(&self, uid: SliceUid) -> Result<bool, DiskError> {
        let fence = self.fence(uid);
        let _deciding = fence.deciding.lock().await;
        end(&fence.shut()).await;
        let deleted = self.store.delete(uid).await?;
        self.fences
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&uid);
        self.changed();
        Ok(deleted)
    }

    /// Every slice.
    pub fn status(&self) -> Vec<SliceStatus> {
        self.store
            .slices()
            .iter()
            .map(|slice| self.status_of(slice))
            .collect()
    }

    /// Every slice with all that is recorded of it.
    pub fn recorded(&self) -> Vec<RecordedSlice> {
        let recorded = |slice: &Arc<Slice>| RecordedSlice {
            status: self.status_of(slice),
            document_generation: slice.row().generation,
            record: slice.record().map(Arc::unwrap_or_clone),
        };
        self.store.slices().iter().map(recorded).collect()
    }

    /// Admits nobody any more and ends everybody.
    pub async fn close(&self) {
        self.closing.cancel();
        for slice in self.store.slices() {
            let fence = self.fence(slice.uid());
            let _deciding = fence.deciding.lock().await;
            end(&fence.shut()).await;
        }
    }

    fn status_of(&self, slice: &Slice) -> SliceStatus {
        SliceStatus {
            slice: slice.uid(),
            volume: slice.volume(),
            size: slice.size(),
            allocated: self.store.allocated(slice),
            fence: slice.row().fence,
            connections: self.fence(slice.uid()).connections(),
        }
    }

    fn fence(&self, slice: SliceUid) -> Arc<Fence> {
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        fences.entry(slice).or_default().clone()
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Raises the fence to `pair` if it is higher, ends whoever was admitted before, admits.
    async fn admit_engine(
        self: &Arc<Self>,
        slice: Arc<Slice>,
        pair: FencePair,
        request: &ConnectRequest,
    ) -> Result<Admission, Refusal> {
        let fence = self.fence(slice.uid());
        let _deciding = fence.deciding.lock().await;
        let row = slice.row();
        let known = pair == row.fence && request.host_id == row.host_id;
        if request.host_id.is_nil() || (pair <= row.fence && !known) {
            tracing::warn!(slice = %slice.uid(), %pair, fence = %row.fence, peer = %request.peer, "refused: fenced");
            return Err(Refusal::InvalidHost);
        }
        if !known {
            let host_id = request.host_id;
            let recorded = self
                .store
                .record(&slice, |row| (row.fence, row.host_id) = (pair, host_id))
                .await;
            match recorded {
                Ok(true) => {}
                Ok(false) => return Err(Refusal::UnknownSubsystem),
                Err(error) => {
                    tracing::error!(slice = %slice.uid(), %error, "the fence cannot be raised");
                    return Err(Refusal::Busy);
                }
            }
        }
        end(&fence.shut()).await;
        if !known {
            self.store.new_engine(&slice);
        }
        if self.closing.is_cancelled() || self.store.slice(slice.uid()).is_none() {
            return Err(Refusal::Busy);
        }
        let slices = Arc::downgrade(self);
        let told = move || {
            if let Some(slices) = slices.upgrade() {
                slices.changed();
            }
        };
        let (association, ended) = fence.admit(pair, Arc::new(told));
        self.changed();
        tracing::info!(slice = %slice.uid(), %pair, peer = %request.peer, "engine admitted");
        Ok(self.admission(&slice, Some(association), Box::new(ended), request))
    }

    fn admission(
        &self,
        slice: &Arc<Slice>,
        association: Option<Arc<Association>>,
        ended: Box<dyn Send + Sync>,
        request: &ConnectRequest,
    ) -> Admission {
        let (store, uid) = (self.store.clone(), slice.uid().0);
        let revoke = match &association {
            Some(association) => association.revoke.clone(),
            None => self.closing.child_token(),
        };
        let vendor: Arc<dyn Vendor> = Arc::new(SliceVendor::new(
            store.clone(),
            slice.clone(),
            association.clone(),
            request.peer,
        ));
        let disk: Arc<dyn Disk> = match association {
            Some(association) => Arc::new(FencedDisk {
                store,
                slice: slice.clone(),
                association,
            }),
            None => Arc::new(InspectedDisk(slice.clone())),
        };
        let mut serial = uid.simple().to_string();
        serial.truncate(20);
        let export = Export {
            disk,
            uuid: uid,
            serial,
            first_controller: FIRST_CONTROLLER,
            read_only: false,
            events: self.fence(slice.uid()).events.clone(),
            vendor: Some(vendor),
        };
        Admission {
            export,
            revoke,
            ended,
        }
    }
}

/// Waits until no command of these runs, however long, and a little for their connections.
async fn end(associations: &[Arc<Association>]) {
    for association in associations {
        association.drained().await;
        if tokio::time::timeout(CLOSING, association.closed())
            .await
            .is_err()
        {
            tracing::warn!(pair = %association.pair(), "a fenced association's connections are slow to close");
        }
    }
}

/// What the target asks. Apart from [`Slices`] because an admission keeps a handle on it.
pub struct SliceGate(pub Arc<Slices>);

#[async_trait]
impl Gate for SliceGate {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        let slices = &self.0;
        if slices.closing.is_cancelled() {
            return Err(Refusal::Busy);
        }
        let uid = nqn::parse_slice(&request.subsystem).ok_or(Refusal::UnknownSubsystem)?;
        let name = HostNqn::from_wire(&request.host);
        let host = name
            .parse_at_slice()
            .filter(|host| host.proven(&slices.key.borrow(), uid));
        let Some(host) = host else {
            tracing::warn!(slice = %uid, host = %name, peer = %request.peer, "refused: the name proves nothing");
            return Err(Refusal::InvalidHost);
        };
        let slice = slices.store.slice(uid).ok_or(Refusal::UnknownSubsystem)?;
        if host.volume != slice.volume() {
            return Err(Refusal::InvalidHost);
        }
        match host.fence() {
            // Goes on to its end when the connection is closed meanwhile: a pair that is recorded
            // has ended the older ones, always.
            Some(pair) => {
                let slices = slices.clone();
                let admitted =
                    tokio::spawn(async move { slices.admit_engine(slice, pair, &request).await });
                admitted.await.unwrap_or(Err(Refusal::Busy))
            }
            None => Ok(slices.admission(&slice, None, Box::new(()), &request)),
        }
    }
}
