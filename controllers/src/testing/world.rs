//! A small cluster around the API server in memory: four drives and engines that answer on the real
//! control link (loopback, one address an engine), a kubelet, a garbage collector, and a node
//! plugin, each a function that does all it can at once.

use super::api::FakeApi;
use super::book::Book;
use crate::shared::context::{Context, FabricFacts};
use crate::shared::documents;
use crate::shared::errors::Backoffs;
use crate::shared::events::Events;
use crate::shared::keys::Keys;
use crate::shared::links::{Links, Peer};
use async_trait::async_trait;
use bytes::Bytes;
use http::Method;
use k8s_openapi::api::core::v1::Secret;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio_util::task::AbortOnDropHandle;
use weft_control::server::{self, Handler, Reply, Request};
use weft_control::tls::{Fingerprint, Identity, fingerprint};
use weft_spec::drive::{DriveState, DriveStatus, MemberState, SliceRequest, SliceStatus};
use weft_spec::engine::{
    DriveWire, EngineDocument, EngineState, EngineStatus, HostStatus, MemberStatus, SliceMember,
    Stack,
};
use weft_spec::ids::{Boot, DocumentGeneration, DriveUid, FencePair, Term};
use weft_spec::keys::Key;
use weft_spec::nqn;

/// Drives `d0` to `d2`, each on a node of its own, and a smaller one beside `d1`.
const DRIVES: [(&str, &str, &str); 4] = [
    ("33333333-3333-4333-8333-333333333330", "n1", "8Gi"),
    ("33333333-3333-4333-8333-333333333331", "n2", "8Gi"),
    ("33333333-3333-4333-8333-333333333332", "n3", "8Gi"),
    ("33333333-3333-4333-8333-333333333333", "n2", "4Gi"),
];
pub const NODES: &str = "/api/v1/nodes";
pub const VOLUMES: &str = "/apis/weft.storage/v1alpha1/volumes";
pub const SLICES: &str = "/apis/weft.storage/v1alpha1/slices";
pub const ATTACHMENTS: &str = "/apis/weft.storage/v1alpha1/attachments";
pub const ENGINES: &str = "/api/v1/namespaces/weft-engines/pods";
pub const ENGINE_SECRETS: &str = "/api/v1/namespaces/weft-engines/secrets";
pub const INITIATORS: &str = "/api/v1/namespaces/weft-system/pods";
pub const HOST_SECRETS: &str = "/api/v1/namespaces/weft-system/secrets";
pub const BUDGETS: &str = "/apis/policy/v1/namespaces/weft-system/poddisruptionbudgets";

pub struct World {
    pub api: FakeApi,
    drives: Vec<DrivePod>,
    keys: Keys,
    fabric: FabricFacts,
    engines: BTreeMap<String, Engine>,
    /// Every term that a kubelet was ever given a pod of.
    pub terms: BTreeSet<i64>,
    next: u8,
}

struct DrivePod {
    name: String,
    uid: DriveUid,
    content: Arc<Mutex<FakeDrive>>,
    identity: Identity,
    address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

impl DrivePod {
    async fn start(number: usize) -> Self {
        let name = format!("d{number}");
        let content = Arc::new(Mutex::new(FakeDrive::default()));
        let identity = Identity::generate(&name).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let uid = DRIVES[number].0.parse().unwrap();
        let handler = Arc::new(DriveHandler(uid, content.clone()));
        let (address, server) = serve(any, identity.clone(), handler).await;
        Self {
            name,
            uid,
            content,
            identity,
            address,
            _server: server,
        }
    }
}

#[derive(Default)]
pub struct FakeDrive {
    pub slices: BTreeMap<String, SliceRequest>,
    /// The greatest term heard.
    pub fence: u64,
    /// What engines have recorded.
    pub book: Book,
}

struct Engine {
    document: Arc<Mutex<EngineDocument>>,
    identity: Identity,
    address: SocketAddr,
    _server: AbortOnDropHandle<()>,
}

struct DriveHandler(DriveUid, Arc<Mutex<FakeDrive>>);

#[async_trait]
impl Handler for DriveHandler {
    async fn handle(&self, request: Request) -> Reply {
        let mut drive = self.1.lock().unwrap();
        if (&request.method, request.path.as_str()) == (&Method::GET, "/slices") {
            let all = drive.slices.iter();
            let recorded = |(s, r): (&String, _)| drive.book.of(slice_status(s, r, drive.fence));
            return Reply::json(200, &all.map(recorded).collect::<Vec<_>>());
        }
        let slice = request
            .path
            .strip_prefix("/slices/")
            .unwrap_or_default()
            .to_owned();
        match (request.method.clone(), slice.is_empty()) {
            (Method::PUT, false) => {
                let wanted: SliceRequest = serde_json::from_slice(&request.body).unwrap();
                let before = drive.slices.get(&slice).map_or(0, |slice| slice.size);
                assert!(wanted.size >= before, "a slice is asked to shrink");
                drive.slices.insert(slice.clone(), wanted);
                Reply::json(200, &slice_status(&slice, &wanted, drive.fence))
            }
            (Method::DELETE, false) => {
                drive.slices.remove(&slice);
                Reply::text(200, "")
            }
            (Method::GET, true) => Reply::json(200, &drive_status(self.0, &drive)),
            _ => Reply::text(404, ""),
        }
    }

    fn accepts(&self, _: &Fingerprint) -> bool {
        true
    }
}

type Contents = BTreeMap<DriveUid, Arc<Mutex<FakeDrive>>>;

/// What a real engine would refuse to start with; and it raises the fence.
fn start_with(document: &EngineDocument, drives: &Contents) {
    fits(document, drives);
    for member in document.stack.slices() {
        let mut drive = drives[&member.drive].lock().unwrap();
        drive.fence = drive.fence.max(document.term.0);
        drive.book.write(document);
    }
}

fn fits(document: &EngineDocument, drives: &Contents) {
    let data = match &document.stack {
        Stack::Slice(member) => std::slice::from_ref(member),
        Stack::Mirror(mirror) => {
            let voters = mirror.members.len() + mirror.witnesses.len();
            assert!(!voters.is_multiple_of(2), "{voters} votes can be a tie");
            &mirror.members
        }
    };
    for member in data {
        let drive = drives[&member.drive].lock().unwrap();
        let size = drive.slices[&member.slice.to_string()].size;
        assert!(
            document.size <= size,
            "{} bytes of a slice of {size}",
            document.size
        );
    }
}

fn slice_status(slice: &str, request: &SliceRequest, fence: u64) -> SliceStatus {
    SliceStatus {
        slice: slice.parse().unwrap(),
        volume: request.volume,
        size: request.size,
        allocated: 0,
        fence: FencePair {
            term: Term(fence),
            boot: Boot(1),
        },
        connections: 0,
    }
}

fn drive_status(uid: DriveUid, drive: &FakeDrive) -> DriveStatus {
    DriveStatus {
        version: 1,
        drive: uid,
        document_generation: DocumentGeneration(1),
        document_tried: DocumentGeneration(1),
        state: DriveState::Serving,
        reason: "Serving".into(),
        message: String::new(),
        capacity: 4 << 30,
        free: 4 << 30,
        slices: drive
            .slices
            .iter()
            .map(|(s, r)| slice_status(s, r, drive.fence))
            .collect(),
        health: weft_spec::drive::DriveHealth::default(),
    }
}

/// An engine, and the drives that hold its slices.
struct EngineHandler(Arc<Mutex<EngineDocument>>, Contents);

#[async_trait]
impl Handler for EngineHandler {
    async fn handle(&self, request: Request) -> Reply {
        if request.method != Method::PUT {
            return Reply::text(404, "");
        }
        let new: EngineDocument = serde_json::from_slice(&request.body).unwrap();
        fits(&new, &self.1);
        let mut document = self.0.lock().unwrap();
        if new.term != document.term || new.generation < document.generation {
            return Reply::text(409, "not newer");
        }
        assert!(new.size >= document.size, "a volume is told to shrink");
        for member in new.stack.slices() {
            self.1[&member.drive].lock().unwrap().book.write(&new);
        }
        *document = new;
        Reply::text(200, "")
    }

    fn accepts(&self, _: &Fingerprint) -> bool {
        true
    }
}

async fn serve(
    address: SocketAddr,
    identity: Identity,
    handler: Arc<dyn Handler>,
) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let task =
        tokio::spawn(async move { server::serve(listener, &identity, handler).await.unwrap() });
    (address, AbortOnDropHandle::new(task))
}

impl World {
    pub async fn new() -> Self {
        let mut drives = Vec::new();
        for number in 0..DRIVES.len() {
            drives.push(DrivePod::start(number).await);
        }
        let mut fabric = super::fabric();
        // Engines have addresses of their own; a drive's port is surely free there.
        fabric.ports.control = drives[0].address.port();
        let world = Self {
            api: FakeApi::default(),
            drives,
            keys: Keys {
                master: Key::random(),
                operator: Identity::generate("weft-operator").unwrap(),
            },
            fabric,
            engines: BTreeMap::new(),
            terms: BTreeSet::new(),
            next: 1,
        };
        world.furnish();
        world
    }

    /// The API server is another, with nothing but what people apply again; all pods went with it.
    pub fn lose_everything(&mut self) {
        self.api.state().objects.clear();
        self.engines.clear();
        self.furnish();
    }

    fn furnish(&self) {
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        for node in ["n1", "n2", "n3"] {
            self.put(NODES, json!({"metadata": {"name": node, "labels": {"kubernetes.io/hostname": node}}, "spec": {}, "status": ready}));
        }
        let group = "/apis/weft.storage/v1alpha1";
        self.put(&format!("{group}/pools"), json!({"metadata": {"name": "fast"},
            "spec": {"selector": {}, "spreadBy": ["kubernetes.io/hostname"], "overcommit": "100%"}}));
        for (number, drive) in self.drives.iter().enumerate() {
            let (_, node, size) = DRIVES[number];
            let address = format!("10.0.0.{}:4421", number + 1);
            self.put(&format!("{group}/drives"), json!({"metadata": {"name": drive.name},
                "spec": {"uid": drive.uid, "hostExport": {"node": node, "file": {"path": "/d", "size": size}}, "adoption": "IfBlank"},
                "status": {"phase": "Ready", "size": size, "address": address, "documentGeneration": 1}}));
        }
    }

    /// How many slices the drives themselves hold.
    pub fn slices_at_drives(&self) -> usize {
        let held = |drive: &DrivePod| drive.content.lock().unwrap().slices.len();
        self.drives.iter().map(held).sum()
    }

    fn contents(&self) -> Contents {
        let content = |drive: &DrivePod| (drive.uid, drive.content.clone());
        self.drives.iter().map(content).collect()
    }

    pub fn put(&self, collection: &str, mut object: Value) {
        let kind = match collection.rsplit('/').next().unwrap() {
            "nodes" => "Node",
            "pools" => "Pool",
            "drives" => "Drive",
            "volumes" => "Volume",
            "attachments" => "Attachment",
            other => panic!("{other}"),
        };
        object["apiVersion"] = json!(if collection.starts_with("/apis/weft") {
            "weft.storage/v1alpha1"
        } else {
            "v1"
        });
        object["kind"] = json!(kind);
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.state().store(collection, &name, object);
    }

    /// A person changes one field of the spec.
    pub fn set(&self, collection: &str, name: &str, field: &str, value: Value) {
        let mut state = self.api.state();
        let key = (collection.to_owned(), name.to_owned());
        let mut object = state.objects[&key].clone();
        object["spec"][field] = value;
        state.store(collection, name, object);
    }

    pub fn delete(&self, collection: &str, name: &str) {
        let mut state = self.api.state();
        let key = (collection.to_owned(), name.to_owned());
        let Some(mut object) = state.objects.get(&key).cloned() else {
            return;
        };
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        state.store(collection, name, object);
    }

    pub fn all(&self, collection: &str) -> Vec<Value> {
        self.api.state().of(collection).cloned().collect()
    }

    pub fn names(&self, collection: &str) -> Vec<String> {
        self.all(collection)
            .iter()
            .map(|o| o["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }

    /// A process of the operator: it knows nothing but what the API server and the pods tell it.
    pub fn operator(&self) -> Arc<Context> {
        let client = self.api.client();
        let links = Links::new(self.keys.operator.clone());
        for drive in &self.drives {
            let (name, certificate) = (&drive.name, &drive.identity.certificate);
            links
                .register(name, Peer::Drive(drive.uid), name, certificate)
                .unwrap();
            links.set_address(name, drive.address).unwrap();
        }
        Arc::new(Context {
            client: client.clone(),
            settings: super::settings(),
            fabric: self.fabric.clone(),
            keys: self.keys.clone(),
            links,
            events: Events::new(client, "test"),
            backoffs: Backoffs::default(),
        })
    }

    /// A person says that a node is out of service, or takes that back.
    pub fn taint(&self, node: &str, is_gone: bool) {
        let taint = json!([{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]);
        let taints = if is_gone { taint } else { json!([]) };
        self.set(NODES, node, "taints", taints);
    }

    fn is_gone(&self, node: &str) -> bool {
        let nodes = self.all(NODES);
        let node = nodes.iter().find(|n| n["metadata"]["name"] == node);
        node.is_none_or(|n| {
            n["spec"]["taints"]
                .as_array()
                .is_some_and(|t| !t.is_empty())
        })
    }

    /// Pods get an address and run; pods being deleted end. Not where the node is gone.
    pub async fn kubelet(&mut self) {
        let place = if self.is_gone("n2") { "n1" } else { "n2" };
        for collection in [ENGINES, INITIATORS] {
            for mut pod in self.all(collection) {
                let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
                let bound = pod["spec"]["nodeName"].as_str();
                if bound.is_some_and(|node| self.is_gone(node)) {
                    continue;
                }
                if pod["metadata"].get("deletionTimestamp").is_some() {
                    self.engines.remove(&name);
                    pod["metadata"]["finalizers"] = json!([]);
                    self.api.state().store(collection, &name, pod);
                } else if pod.get("status").is_none() {
                    let ip = self.start(collection, &name, &pod).await;
                    pod["spec"]["nodeName"] = json!(place);
                    pod["status"] =
                        json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
                    self.api.state().store(collection, &name, pod);
                }
            }
        }
    }

    async fn start(&mut self, collection: &str, name: &str, pod: &Value) -> IpAddr {
        self.next += 1;
        let ip = IpAddr::from(Ipv4Addr::new(127, 77, 0, self.next));
        if collection != ENGINES {
            return ip;
        }
        let term = pod["metadata"]["labels"]["weft.storage/term"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(self.terms.insert(term), "term {term} has a second pod");
        let key = (ENGINE_SECRETS.to_owned(), name.to_owned());
        let secret = self
            .api
            .state()
            .objects
            .get(&key)
            .cloned()
            .expect("a pod's Secret is there before it");
        let secret: Secret = serde_json::from_value(secret).unwrap();
        let document: EngineDocument = documents::read(&secret).unwrap();
        let identity = documents::identity(document.control.as_ref().unwrap());
        start_with(&document, &self.contents());
        let document = Arc::new(Mutex::new(document));
        let port = self.fabric.ports.control;
        let handler = Arc::new(EngineHandler(document.clone(), self.contents()));
        let (address, server) = serve(SocketAddr::new(ip, port), identity.clone(), handler).await;
        self.engines.insert(
            name.to_owned(),
            Engine {
                document,
                identity,
                address,
                _server: server,
            },
        );
        ip
    }

    /// Drives and engines push what they have to say.
    pub async fn push(&self, operator: &Context) {
        for drive in &self.drives {
            let status = drive_status(drive.uid, &drive.content.lock().unwrap());
            let path = format!("/status/drive/{}", status.drive);
            push(operator, &drive.identity, path, &status).await;
        }
        let contents = self.contents();
        for engine in self.engines.values() {
            let ip = engine.address.ip();
            let status = engine_status(&engine.document.lock().unwrap(), ip, &contents);
            let path = format!("/status/engine/{}", status.volume);
            push(operator, &engine.identity, path, &status).await;
        }
    }

    /// What has a controller that is gone goes too.
    pub fn collect(&self) {
        let mut state = self.api.state();
        let uids: BTreeSet<String> = state
            .objects
            .values()
            .filter_map(|o| o["metadata"]["uid"].as_str().map(str::to_owned))
            .collect();
        let orphaned = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|o| o.iter().all(|o| !uids.contains(o["uid"].as_str().unwrap())))
        };
        let gone: Vec<_> = state
            .objects
            .iter()
            .filter(|(_, o)| orphaned(o))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            state.objects.remove(&key);
        }
    }

    /// The node plugin writes what it has observed, and nothing else.
    pub fn observe(&self, attachment: &str, staged: bool) {
        let mut state = self.api.state();
        let key = (ATTACHMENTS.to_owned(), attachment.to_owned());
        let Some(mut object) = state.objects.get(&key).cloned() else {
            return;
        };
        let observed =
            json!({"staged": staged, "source": "172.30.3.2:40000", "initiator": "UserSpace"});
        if object["status"]["observed"] != observed {
            object["status"]["observed"] = observed;
            state.store(ATTACHMENTS, attachment, object);
        }
    }
}

async fn push(operator: &Context, identity: &Identity, path: String, status: &impl Serialize) {
    let request = Request {
        method: Method::POST,
        path,
        body: Bytes::from(serde_json::to_vec(status).unwrap()),
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        peer_fingerprint: fingerprint(&identity.certificate).unwrap(),
    };
    operator.links.handle(request).await;
}

fn engine_status(document: &EngineDocument, ip: IpAddr, drives: &Contents) -> EngineStatus {
    let host = |host: &weft_spec::engine::AllowedHost| HostStatus {
        attachment: host.attachment.clone(),
        generation: host.generation,
        associations: 0,
        source: None,
    };
    let slices = document.stack.slices();
    let fence = |member: &&SliceMember| drives[&member.drive].lock().unwrap().fence;
    let fence = slices.iter().map(fence).max().unwrap_or(0);
    EngineStatus {
        version: 1,
        volume: document.volume,
        term: document.term,
        boot: Boot(1),
        document_generation: document.generation,
        state: if fence > document.term.0 {
            EngineState::Parked
        } else {
            EngineState::Serving
        },
        reason: "Serving".into(),
        message: String::new(),
        size: document.size,
        hosts: document.hosts.iter().map(host).collect(),
        members: in_sync(&document.stack),
        drives: slices.iter().map(|member| wire(member, ip)).collect(),
    }
}

fn in_sync(stack: &Stack) -> Vec<MemberStatus> {
    let Stack::Mirror(mirror) = stack else {
        return Vec::new();
    };
    let current = |member: &SliceMember| MemberStatus {
        slice: member.slice,
        state: MemberState::Current,
    };
    // A copy takes no time here.
    let data = mirror.members.iter().chain(&mirror.joining);
    data.map(current).collect()
}

fn wire(member: &SliceMember, ip: IpAddr) -> DriveWire {
    let own = SocketAddr::new(ip, 50000);
    DriveWire {
        slice: member.slice,
        drive_name: member.drive_name.clone(),
        connected: true,
        address: member.address,
        local: Some(own),
        seen_by_drive: Some(own),
        identity: Some(nqn::slice(member.slice)),
        reason: String::new(),
    }
}
