//! What a target tells of its namespace while it is used: size and ANA state.

use super::ConnectError;
use super::handshake::{identify, read_log};
use super::queue::Queue;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use weft_nvme::command::AdminCommand;
use weft_nvme::initiator::{ControllerFacts, Demands, NamespaceFacts};
use weft_nvme::log::{self, AnaState};
use weft_nvme::target::Notice;
use weft_nvme::{NSID, feature, identify};

/// The namespace as it is now.
pub(super) struct Live {
    admin: Arc<Queue>,
    subsystem: String,
    controller: u16,
    namespace: NamespaceFacts,
    ana_log: u32,
    size: AtomicU64,
    ana: watch::Sender<AnaState>,
    changed: watch::Sender<()>,
    /// One reading of the ANA log at a time: an older one must not overwrite a newer.
    reading: Mutex<()>,
}

impl Live {
    /// Reads what there is to read now.
    pub async fn start(
        admin: Arc<Queue>,
        demands: &Demands<'_>,
        facts: &ControllerFacts,
        namespace: NamespaceFacts,
    ) -> Result<Arc<Self>, ConnectError> {
        let live = Arc::new(Self {
            admin,
            subsystem: demands.subsystem.to_owned(),
            controller: demands.controller,
            namespace,
            ana_log: facts.ana_log,
            size: AtomicU64::new(namespace.size),
            ana: watch::Sender::new(AnaState::Optimized),
            changed: watch::Sender::new(()),
            reading: Mutex::default(),
        });
        live.read_ana().await?;
        Ok(live)
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub fn ana(&self) -> AnaState {
        *self.ana.borrow()
    }

    /// Told when size or state has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Waits until commands are served.
    pub async fn accessible(&self) {
        if self.ana() == AnaState::Optimized {
            return;
        }
        let mut state = self.ana.subscribe();
        // The sender lives in `self`, so there is always an answer.
        let _served = state.wait_for(|now| *now == AnaState::Optimized).await;
    }

    /// Reads the ANA log; false if the target has none.
    pub async fn read_ana(&self) -> Result<bool, ConnectError> {
        if self.ana_log == 0 {
            return Ok(false);
        }
        let _one = self.reading.lock().await;
        let page = read_log(&self.admin, log::ANA, self.ana_log).await?;
        let state = log::parse_ana(&page, self.namespace.ana_group)
            .ok_or_else(|| ConnectError::Protocol("its ANA log lacks the namespace".to_owned()))?;
        let before = self.ana.send_replace(state);
        if before != state {
            tracing::info!(?state, "ANA state changed");
            self.changed.send_replace(());
        }
        Ok(true)
    }

    /// Leaves a request with the target, and does what its answers say, as long as the association
    /// lives. A target that breaks the rules is left.
    pub async fn follow(self: Arc<Self>, events: u32, closed: CancellationToken) {
        let followed = tokio::select! {
            () = closed.cancelled() => return,
            followed = self.follow_notices(events & feature::EVENTS) => followed,
        };
        if let Err(error) = followed {
            tracing::warn!(%error, "the target cannot be followed");
            closed.cancel();
        }
    }

    async fn follow_notices(&self, events: u32) -> Result<(), ConnectError> {
        if events == 0 {
            return std::future::pending().await;
        }
        let mask = AdminCommand::SetFeatures {
            feature: feature::ASYNC_EVENTS,
            value: events,
            save: false,
        };
        super::handshake::step(self.admin.ask(mask.to_sqe(), 0)).await?;
        loop {
            // Without a time limit: it is answered when there is something to tell.
            let request = AdminCommand::AsyncEvent.to_sqe();
            let Some(done) = self.admin.leave(request).await else {
                return Ok(());
            };
            let status = done.cqe.status();
            if !status.is_success() {
                let refused = format!("Asynchronous Event Request: status {status:?}");
                return Err(ConnectError::Protocol(refused));
            }
            match Notice::parse(done.cqe.result.get()) {
                Some(Notice::Ana) => drop(self.read_ana().await?),
                Some(Notice::Namespace) => self.read_size().await?,
                // Nothing that was asked for: another is asked for all the same.
                Some(Notice::Discovery) | None => {}
            }
        }
    }

    async fn read_size(&self) -> Result<(), ConnectError> {
        // Reading the list is what makes the target tell the next change.
        read_log(&self.admin, log::CHANGED_NAMESPACES, CHANGED_LIST).await?;
        let bytes = identify(&self.admin, identify::CNS_NAMESPACE, NSID).await?;
        let descriptors = identify(&self.admin, identify::CNS_DESCRIPTORS, NSID).await?;
        let demands = Demands {
            subsystem: &self.subsystem,
            controller: self.controller,
        };
        let now = demands
            .namespace(&bytes, &descriptors)
            .map_err(|unfit| ConnectError::Protocol(unfit.to_string()))?;
        let (was, is) = (self.size(), now.size);
        if now.uuid != self.namespace.uuid || is < was {
            let text = format!("its namespace was {was} bytes and is another or {is} bytes now");
            return Err(ConnectError::Protocol(text));
        }
        if is > was {
            self.size.store(is, Ordering::Release);
            tracing::info!(was, is, "namespace has grown");
            self.changed.send_replace(());
        }
        Ok(())
    }
}

/// Bytes of the Changed Namespace List.
const CHANGED_LIST: u32 = 4096;
