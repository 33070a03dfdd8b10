//! An engine process between a scripted drive and scripted hosts, with an operator beside it.

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;
use weft_block::{Disk, DiskError, ErrorKind, MemoryDisk, Stamp, Write};
use weft_control::client::Client;
use weft_control::server::{Handler, Reply, Request};
use weft_control::tls::{Fingerprint, Identity, fingerprint};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::control::ControlLink;
use weft_spec::drive::{DocumentMark, SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION};
use weft_spec::engine::{AllowedHost, EngineDocument, EngineStatus, SliceMember, Stack};
use weft_spec::ids::{
    AttachGeneration, ClusterUid, DocumentGeneration, DriveUid, FencePair, SliceUid, Term,
    VolumeUid,
};
use weft_spec::keys::Key;
use weft_spec::nqn::{self, HostNqn};
use weft_transport::{
    Admission, ConnectOptions, ConnectRequest, Events, Export, Gate, Limits, Refusal, Vendor,
    VendorError,
};

const DEADLINE: Duration = Duration::from_secs(20);
pub const SIZE: u64 = 1 << 20;
/// What a scripted slice may grow to.
pub const MOST: u64 = 2 << 20;

/// Awaits, but not for ever.
pub async fn within<T>(what: &str, waiting: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, waiting).await {
        Ok(value) => value,
        Err(_) => panic!("not in time: {what}"),
    }
}

/// What a scripted drive remembers; more than one listener may serve it.
pub struct Slice {
    slice: SliceUid,
    volume: VolumeUid,
    bytes: MemoryDisk,
    /// Bytes that it has, of [`MOST`].
    pub size: watch::Sender<u64>,
    heard: Mutex<FencePair>,
    /// Greatest generation recorded.
    pub generation: watch::Sender<DocumentGeneration>,
    /// While true, writes stay without an answer.
    pub holds: watch::Sender<bool>,
    /// Answers everything with the fence.
    pub fenced: watch::Sender<bool>,
}

impl Slice {
    pub fn new(setup: &Setup) -> Arc<Self> {
        Arc::new(Self {
            slice: setup.slice,
            volume: setup.volume,
            bytes: MemoryDisk::new(MOST),
            size: watch::Sender::new(SIZE),
            heard: Mutex::default(),
            generation: watch::Sender::default(),
            holds: watch::Sender::default(),
            fenced: watch::Sender::default(),
        })
    }

    /// Serves it at an address of its own, until dropped.
    pub async fn serve(self: &Arc<Self>) -> (SocketAddr, AbortOnDropHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let gate = Arc::new(DriveGate(self.clone()));
        let serving = tokio::spawn(async move {
            weft_transport::serve(listener, gate, Limits::default())
                .await
                .unwrap();
        });
        (address, AbortOnDropHandle::new(serving))
    }

    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes.to_bytes()[offset]
    }

    fn answer(&self) -> Result<(), DiskError> {
        if *self.fenced.borrow() {
            return Err(DiskError::new(ErrorKind::Fenced, "a newer pair"));
        }
        Ok(())
    }
}

struct DriveGate(Arc<Slice>);

#[async_trait]
impl Gate for DriveGate {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        let slice = &self.0;
        if nqn::parse_slice(&request.subsystem) != Some(slice.slice) {
            return Err(Refusal::UnknownSubsystem);
        }
        let host = HostNqn::from_wire(&request.host).parse_at_slice();
        let host = host.ok_or(Refusal::InvalidHost)?;
        if let Some(pair) = host.fence() {
            let mut heard = slice.heard.lock().unwrap();
            if pair < *heard {
                return Err(Refusal::InvalidHost);
            }
            *heard = pair;
        }
        let vendor = DriveVendor(slice.clone(), request.peer);
        let export = Export {
            disk: Arc::new(DriveDisk(slice.clone())),
            uuid: slice.slice.0,
            serial: "scripted".into(),
            first_controller: 1,
            read_only: false,
            events: Events::new(),
            vendor: Some(Arc::new(vendor)),
        };
        Ok(Admission {
            export,
            revoke: CancellationToken::new(),
            ended: Box::new(()),
        })
    }
}

struct DriveVendor(Arc<Slice>, SocketAddr);

#[async_trait]
impl Vendor for DriveVendor {
    async fn put(&self, opcode: u8, _cdw10: u32, data: Bytes) -> Result<(), VendorError> {
        if opcode != VENDOR_PUT_GENERATION {
            return Err(VendorError::InvalidOpcode);
        }
        let end = data
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |end| end + 1);
        let mark: DocumentMark = serde_json::from_slice(&data[..end]).unwrap();
        self.0
            .generation
            .send_modify(|known| *known = mark.generation.max(*known));
        Ok(())
    }

    async fn get(&self, opcode: u8, _cdw10: u32, _length: u32) -> Result<Bytes, VendorError> {
        if opcode != VENDOR_INSPECT {
            return Err(VendorError::InvalidOpcode);
        }
        let inspection = SliceInspection {
            volume: self.0.volume,
            slice: self.0.slice,
            size: *self.0.size.borrow(),
            fence: *self.0.heard.lock().unwrap(),
            host_id: Uuid::nil(),
            document_generation: *self.0.generation.borrow(),
            peer: self.1,
            incarnation: Uuid::nil(),
            hot: weft_spec::drive::HotCount::default(),
        };
        Ok(serde_json::to_vec(&inspection).unwrap().into())
    }
}

struct DriveDisk(Arc<Slice>);

#[async_trait]
impl Disk for DriveDisk {
    fn size(&self) -> u64 {
        *self.0.size.borrow()
    }
    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.0.answer()?;
        Disk::read(&self.0.bytes, offset, into).await
    }
    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.0
            .holds
            .subscribe()
            .wait_for(|holds| !holds)
            .await
            .unwrap();
        self.0.answer()?;
        Disk::write(&self.0.bytes, offset, data, mode).await
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        self.0.answer()
    }
    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), DiskError> {
        self.0.answer()?;
        Disk::write_zeroes(&self.0.bytes, offset, length).await
    }
    async fn discard_stamped(&self, offset: u64, length: u64, _: Stamp) -> Result<(), DiskError> {
        self.0.answer()?;
        Disk::discard(&self.0.bytes, offset, length).await
    }
}

/// The operator: takes pushes, and asks.
pub struct Operator {
    pushed: mpsc::UnboundedReceiver<EngineStatus>,
    client: Client,
    _server: AbortOnDropHandle<()>,
}

struct Pushes {
    engine: Fingerprint,
    path: String,
    pushed: mpsc::UnboundedSender<EngineStatus>,
}

#[async_trait]
impl Handler for Pushes {
    async fn handle(&self, request: Request) -> Reply {
        assert_eq!(request.path, self.path);
        self.pushed
            .send(serde_json::from_slice(&request.body).unwrap())
            .ok();
        Reply::text(200, "")
    }
    fn accepts(&self, peer: &Fingerprint) -> bool {
        *peer == self.engine
    }
}

impl Operator {
    /// Waits for a pushed status that is like this.
    pub async fn told(&mut self, what: &str, like: impl Fn(&EngineStatus) -> bool) -> EngineStatus {
        let waiting = async {
            loop {
                let status = self.pushed.recv().await.unwrap();
                if like(&status) {
                    return status;
                }
            }
        };
        within(what, waiting).await
    }

    pub async fn put(&self, document: &EngineDocument) -> (u16, String) {
        put(self.client.clone(), document.clone()).await
    }

    /// Puts in the background.
    pub fn putting(&self, document: &EngineDocument) -> tokio::task::JoinHandle<(u16, String)> {
        tokio::spawn(put(self.client.clone(), document.clone()))
    }

    pub async fn status(&self) -> EngineStatus {
        let answer = self
            .client
            .request(http::Method::GET, "/status", Vec::new())
            .await;
        serde_json::from_slice(&answer.unwrap().1).unwrap()
    }
}

async fn put(client: Client, document: EngineDocument) -> (u16, String) {
    let body = serde_json::to_vec(&document).unwrap();
    let answer = client.request(http::Method::PUT, "/document", body).await;
    let (status, body) = answer.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The engine's process; killed when dropped.
pub struct Engine(Child);

impl Engine {
    pub async fn end(&mut self) -> ExitStatus {
        // Listened to before the first look, so that an end in between is not missed.
        let mut children = signal(SignalKind::child()).unwrap();
        let waiting = async {
            loop {
                if let Some(status) = self.0.try_wait().unwrap() {
                    return status;
                }
                children.recv().await;
            }
        };
        within("the end of the engine", waiting).await
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Identities and ports of one test.
pub struct Setup {
    directory: TempDir,
    volume: VolumeUid,
    slice: SliceUid,
    port: u16,
    control_port: u16,
    operator: Identity,
    engine: Identity,
}

impl Setup {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            volume: VolumeUid::random(),
            slice: SliceUid::random(),
            port: free_port(),
            control_port: free_port(),
            operator: Identity::generate("operator").unwrap(),
            engine: Identity::generate("engine").unwrap(),
        }
    }

    /// The volume.
    pub fn volume(&self) -> VolumeUid {
        self.volume
    }

    /// A document of term 1 for these hosts; the operator's address is set by [`Setup::start`].
    pub fn document(
        &self,
        generation: u64,
        drive: SocketAddr,
        hosts: &[AllowedHost],
    ) -> EngineDocument {
        EngineDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(generation),
            cluster: ClusterUid(Uuid::nil()),
            volume: self.volume,
            name: "v0".into(),
            term: Term(1),
            size: SIZE,
            stack: Stack::Slice(SliceMember {
                slice: self.slice,
                drive: DriveUid(Uuid::nil()),
                drive_name: "d0".into(),
                address: drive,
                key: Key::from_bytes([1; 32]),
            }),
            hosts: hosts.to_vec(),
            port: self.port,
            control: None,
        }
    }

    pub fn host(&self, node: &str, generation: u64) -> AllowedHost {
        let generation = AttachGeneration(generation);
        AllowedHost {
            attachment: format!("v0-{node}"),
            node: node.into(),
            generation,
            nqn: HostNqn::host(&Key::from_bytes([2; 32]), self.volume, node, generation),
            read_only: false,
        }
    }

    /// How a host connects to the engine.
    pub fn options(&self, host: &AllowedHost) -> ConnectOptions {
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        let (name, id) = (host.nqn.expose(), host.nqn.host_id());
        ConnectOptions::new(address, nqn::volume(self.volume), name, id)
    }

    /// Starts an engine with this document, and an operator for it.
    pub async fn start(&self, document: &EngineDocument) -> (Engine, Operator) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut document = document.clone();
        document.control = Some(ControlLink {
            port: self.control_port,
            certificate: self.engine.certificate.clone(),
            key: self.engine.key.clone(),
            operator_certificate: self.operator.certificate.clone(),
            operator: listener.local_addr().unwrap().to_string(),
        });
        let (sender, pushed) = mpsc::unbounded_channel();
        let handler = Arc::new(Pushes {
            engine: fingerprint(&self.engine.certificate).unwrap(),
            path: format!("/status/engine/{}", self.volume),
            pushed: sender,
        });
        let identity = self.operator.clone();
        let server = tokio::spawn(async move {
            weft_control::server::serve(listener, &identity, handler)
                .await
                .unwrap();
        });
        let address = format!("127.0.0.1:{}", self.control_port);
        let operator = Operator {
            pushed,
            client: Client::new(&self.operator, &self.engine.certificate, address).unwrap(),
            _server: AbortOnDropHandle::new(server),
        };
        (self.spawn(&document), operator)
    }

    fn spawn(&self, document: &EngineDocument) -> Engine {
        let path = self.directory.path().join("engine.json");
        std::fs::write(&path, serde_json::to_vec(document).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft-engine"));
        command.arg("--document").arg(path).stdin(Stdio::null());
        Engine(command.spawn().unwrap())
    }
}

/// A port below those that the kernel gives to connections, where no other test takes it.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        let spread = (std::process::id() as u16).wrapping_mul(32);
        let port = 20_000 + spread.wrapping_add(next) % 12_000;
        if StdListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
