//! The life of a drive process: open the medium, serve, close.

use crate::adopt::{self, Decision, Refused};
use crate::document::{self, DocumentError};
use crate::gate::{SliceGate, Slices};
use crate::session;
use crate::store::{Store, StoreError, chain};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use weft_block::{DiskError, FileMedium, Io, Medium, OpenError};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{DriveDocument, DriveHealth, DriveState, DriveStatus, Medium as Place};
use weft_spec::ids::DocumentGeneration;
use weft_transport::target::{self, Limits};

/// Between two tries of a medium that is not there or fails.
const RETRY: Duration = Duration::from_secs(10);
/// For commands in flight to end at the end.
const CLOSING: Duration = Duration::from_secs(10);
/// Reason while the document is older than one that the medium has seen.
const OUTDATED: &str = "DocumentOutdated";
/// Share of the capacity that must be given or freed before that alone is told to the operator.
const TOLD_SHARE: u64 = 100;

/// A drive process.
pub struct Process {
    documents: watch::Sender<DriveDocument>,
    status: watch::Sender<DriveStatus>,
    slices: Mutex<Option<Arc<Slices>>>,
    io: Io,
}

/// Why the medium is not served (yet).
enum Unopened {
    /// A person must act.
    Refused(Refused),
    /// A newer document must come.
    Outdated(DocumentGeneration),
    /// It may be there later.
    Unavailable(String),
}

impl From<DiskError> for Unopened {
    fn from(error: DiskError) -> Self {
        Self::Unavailable(chain(&error))
    }
}

impl From<OpenError> for Unopened {
    fn from(error: OpenError) -> Self {
        Self::Unavailable(chain(&error))
    }
}

impl From<StoreError> for Unopened {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Disk(error) => error.into(),
            other => Self::Refused(Refused {
                reason: "MetadataDamaged",
                message: format!("{}; nothing was changed. Replace the drive", chain(&other)),
            }),
        }
    }
}

impl Process {
    /// Of this document, with this back-end for the medium.
    pub fn new(document: DriveDocument, io: Io) -> Arc<Self> {
        let status = DriveStatus {
            version: DOCUMENT_VERSION,
            drive: document.drive,
            document_generation: DocumentGeneration(0),
            document_tried: document.generation,
            state: DriveState::Starting,
            reason: "Opening".into(),
            message: "the medium is being opened".into(),
            capacity: 0,
            free: 0,
            slices: vec![],
            health: DriveHealth::default(),
        };
        Arc::new(Self {
            documents: watch::Sender::new(document),
            status: watch::Sender::new(status),
            slices: Mutex::new(None),
            io,
        })
    }

    /// The newest document.
    pub fn document(&self) -> DriveDocument {
        self.documents.borrow().clone()
    }

    /// What it reports when something worth telling changes.
    pub fn reports(&self) -> watch::Receiver<DriveStatus> {
        self.status.subscribe()
    }

    /// The status at this moment.
    pub fn status(&self) -> DriveStatus {
        let mut status = self.status.borrow().clone();
        self.refresh(&mut status);
        status
    }

    /// The slices, while the medium is served.
    pub fn slices(&self) -> Option<Arc<Slices>> {
        self.opened().clone()
    }

    fn opened(&self) -> MutexGuard<'_, Option<Arc<Slices>>> {
        self.slices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until something must be started again; waits for whatever is lacking.
    pub async fn serve(self: &Arc<Self>) -> anyhow::Result<()> {
        let slices = self.open_in_the_end().await;
        *self.opened() = Some(slices.clone());
        let document = self.document();
        self.grant(&slices, &document).await;
        let listener = listen(document.port).await?;
        self.report(
            DriveState::Serving,
            "Serving",
            format!("serves NVMe/TCP on port {}", document.port),
        );
        tracing::info!(drive = %document.drive, port = document.port, slices = slices.status().len(), "serving");
        let mut failure = slices.store().failure();
        tokio::select! {
            ended = target::serve(listener, Arc::new(SliceGate(slices.clone())), Limits::default()) => Ok(ended?),
            () = self.follow(&slices) => Ok(()),
            () = slices.store().scrub() => Ok(()),
            failed = failure.wait_for(Option::is_some) => {
                let reason = failed.ok().and_then(|reason| reason.clone()).unwrap_or_default();
                anyhow::bail!("the store must be opened again: {reason}")
            }
        }
    }

    /// Ends all I/O; the medium may be taken by another process after this.
    pub async fn close(&self) {
        let Some(slices) = self.slices() else { return };
        if tokio::time::timeout(CLOSING, slices.close()).await.is_err() {
            tracing::warn!("commands in flight do not end; leaving them");
            return;
        }
        if let Err(error) = slices.store().close().await {
            tracing::warn!(error = chain(&error), "not closed in order");
        }
    }

    /// Takes a document in the place of the present one; the answer is an error that says why
    /// not. `Ok` once it is durable on the medium.
    pub async fn accept(&self, bytes: &[u8]) -> Result<(), String> {
        let next = document::read(bytes).map_err(|error: DocumentError| error.to_string())?;
        let open = self.slices();
        if let Some(reason) = document::conflict(&self.document(), &next, open.is_some()) {
            return Err(reason);
        }
        let generation = next.generation;
        let Some(slices) = open else {
            return self.accept_unopened(next).await;
        };
        slices
            .store()
            .accept_document(generation)
            .await
            .map_err(|error| chain(&error))?;
        slices.set_key(next.key.clone());
        self.grant(&slices, &next).await;
        self.documents.send_replace(next);
        self.tell();
        tracing::info!(%generation, "document accepted");
        Ok(())
    }

    /// A document may be what an unopened medium waits for: hands it on and waits for the result.
    async fn accept_unopened(&self, next: DriveDocument) -> Result<(), String> {
        let mut reports = self.reports();
        self.documents.send_replace(next);
        self.report(
            DriveState::Starting,
            "Opening",
            "the medium is being opened".into(),
        );
        let decided = reports
            .wait_for(|status| status.state != DriveState::Starting || status.reason == OUTDATED);
        let decided = tokio::time::timeout(CLOSING, decided).await;
        match decided {
            Ok(Ok(status)) if status.state == DriveState::Serving => Ok(()),
            _ => Err(format!(
                "the document was taken but is not durable: {}",
                self.status().message
            )),
        }
    }

    /// Makes the slices that the document demands.
    async fn grant(&self, slices: &Slices, document: &DriveDocument) {
        for grant in &document.slices {
            if let Err(error) = slices.allocate(grant.slice, grant.request).await {
                tracing::error!(slice = %grant.slice, error = chain(&error), "a slice of the document is not there");
            }
        }
    }

    async fn open_in_the_end(self: &Arc<Self>) -> Arc<Slices> {
        let mut documents = self.documents.subscribe();
        loop {
            let document = documents.borrow_and_update().clone();
            let unopened = match self.open(document.clone()).await {
                Ok(store) => return Slices::new(store, document.key),
                Err(unopened) => unopened,
            };
            let mut patience = None;
            match unopened {
                Unopened::Refused(Refused { reason, message }) => {
                    tracing::error!(
                        reason,
                        message,
                        "the medium is not used; waiting for a newer document"
                    );
                    self.report(DriveState::Failed, reason, message);
                }
                Unopened::Outdated(known) => {
                    let message = format!(
                        "document generation {} is older than {known}, which this drive has accepted; waiting for it",
                        document.generation
                    );
                    tracing::warn!(message, "the document is outdated");
                    // The operator may have lost what it once wrote: this tells it where to go on.
                    self.status
                        .send_modify(|status| status.document_generation = known);
                    self.report(DriveState::Starting, OUTDATED, message);
                }
                Unopened::Unavailable(message) => {
                    tracing::error!(message, "the medium cannot be opened; trying on");
                    self.report(DriveState::Failed, "MediumUnavailable", message);
                    patience = Some(RETRY);
                }
            }
            match patience {
                // An error means that nobody can send a document; neither can it come then.
                Some(patience) => drop(tokio::time::timeout(patience, documents.changed()).await),
                None => drop(documents.changed().await),
            }
        }
    }

    async fn open(self: &Arc<Self>, document: DriveDocument) -> Result<Arc<Store>, Unopened> {
        let generation = document.generation;
        let this = self.clone();
        let opened = tokio::task::spawn_blocking(move || this.open_blocking(&document)).await;
        let store = opened.unwrap_or_else(|error| Err(Unopened::Unavailable(error.to_string())))?;
        store.accept_document(generation).await?;
        Ok(store)
    }

    fn open_blocking(&self, document: &DriveDocument) -> Result<Arc<Store>, Unopened> {
        let waiting = || {
            let message = "another process holds the medium; waiting until it is gone".to_owned();
            tracing::warn!("{message}");
            self.report(DriveState::Starting, "WaitingForHold", message);
        };
        let (mut medium, wanted) = match &document.medium {
            Place::File { path, size } => {
                (FileMedium::open_file(path, *size, self.io, waiting)?, *size)
            }
            Place::Device { path } => (FileMedium::open_device(path, self.io, waiting)?, 0),
        };
        let superblock = match adopt::decide(
            adopt::look(&medium)?,
            wanted.max(medium.size()),
            document,
        ) {
            Decision::Open(superblock) => superblock,
            Decision::Format(geometry) => {
                tracing::info!(drive = %document.drive, size = medium.size(), "formatting a blank medium");
                medium.extend(wanted)?;
                adopt::format(&medium, geometry, document)?
            }
            Decision::Refuse(refused) => return Err(Unopened::Refused(refused)),
        };
        if superblock.document_generation > document.generation {
            return Err(Unopened::Outdated(superblock.document_generation));
        }
        let (Place::File { path, .. } | Place::Device { path }) = &document.medium;
        let opening = session::opening(path);
        Ok(Store::open(Arc::new(medium), superblock, opening)?)
    }

    fn report(&self, state: DriveState, reason: &str, message: String) {
        self.status.send_modify(|status| {
            (status.state, status.reason, status.message) = (state, reason.to_owned(), message);
            self.refresh(status);
        });
    }

    fn refresh(&self, status: &mut DriveStatus) {
        status.document_tried = self.documents.borrow().generation;
        let Some(slices) = self.slices() else { return };
        let store = slices.store();
        status.document_generation = store.superblock().document_generation;
        (status.capacity, status.free) = (store.capacity(), store.free());
        status.slices = slices.status();
        status.health = DriveHealth {
            incarnation: store.superblock().incarnation,
            corrupt: store.corrupt_blocks(),
            scrub: store.scrub_progress(),
        };
    }

    fn tell(&self) {
        self.status.send_modify(|status| self.refresh(status));
    }

    /// Tells when slices, fences or connections change, when a block is found corrupt or is
    /// mended, and when much space was given or freed.
    async fn follow(&self, slices: &Slices) {
        let (mut changes, mut progress) = (slices.changes(), slices.store().progress());
        loop {
            let changed = tokio::select! {
                changed = changes.changed() => changed.map(|()| true),
                moved = progress.changed() => moved.map(|()| false),
            };
            let Ok(worth_telling) = changed else { return };
            let store = slices.store();
            let news = {
                let told = self.status.borrow();
                told.health.corrupt != store.corrupt_blocks()
                    || store.free().abs_diff(told.free) >= store.capacity() / TOLD_SHARE
            };
            if worth_telling || news {
                self.tell();
            }
        }
    }
}

/// All addresses of both families where there are both.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let any = [
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    ];
    let listener = TcpListener::bind(&any[..]).await;
    listener.map_err(|error| anyhow::anyhow!("cannot listen on port {port}: {error}"))
}
