//! An API server in memory, as much of one as the driver meets: get, list and watch with
//! field selectors, create, patch and delete. It knows no schema and no field ownership.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    clippy::unwrap_used,
    reason = "a test that meets a surprise has failed"
)]
#![allow(
    clippy::allow_attributes,
    reason = "expect would not hold in every test program"
)]

pub mod host;

use futures::{Stream, StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// How long anything in a test may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What the server answers: one object, or a watch without end.
type Answer = Response<UnsyncBoxBody<bytes::Bytes, Infallible>>;
/// Plural of a kind and name of an object.
type Key = (String, String);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Value>,
    /// Every change: its version, the plural, the event.
    log: Vec<(u64, String, Value)>,
    calls: Vec<String>,
}

/// The server. Cloned freely; all clones are one.
#[derive(Clone)]
pub struct Api {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

impl Api {
    pub fn new() -> Self {
        Self {
            state: Arc::default(),
            version: watch::Sender::new(1),
        }
    }

    pub fn client(&self) -> kube::Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Puts an object there, new or changed.
    pub fn put(&self, plural: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let key = (plural.to_owned(), name);
        let new = !self.state.lock().unwrap().objects.contains_key(&key);
        self.store(key, object, if new { "ADDED" } else { "MODIFIED" });
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        let key = (plural.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).cloned()
    }

    pub fn names(&self, plural: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let of_kind = state.objects.keys().filter(|(kind, _)| kind == plural);
        of_kind.map(|(_, name)| name.clone()).collect()
    }

    /// Every write so far: `POST volumes`.
    pub fn writes(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// Plays the operator: whenever `act` returns a changed object of the kind, it is stored.
    pub fn operate(
        &self,
        plural: &'static str,
        act: impl Fn(&Value) -> Option<Value> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        let api = self.clone();
        let mut version = self.version.subscribe();
        tokio::spawn(async move {
            loop {
                for name in api.names(plural) {
                    let object = api.get(plural, &name);
                    if let Some(changed) = object.as_ref().and_then(&act)
                        && object.as_ref() != Some(&changed)
                    {
                        api.put(plural, changed);
                    }
                }
                if version.changed().await.is_err() {
                    return;
                }
            }
        })
    }

    fn store(&self, key: Key, mut object: Value, kind: &str) -> Value {
        let mut state = self.state.lock().unwrap();
        let version = *self.version.borrow() + 1;
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.insert("resourceVersion".to_owned(), version.to_string().into());
        meta.entry("uid")
            .or_insert_with(|| uuid::Uuid::new_v4().to_string().into());
        let event = json!({"type": kind, "object": object});
        state.log.push((version, key.0.clone(), event));
        match kind {
            "DELETED" => _ = state.objects.remove(&key),
            _ => _ = state.objects.insert(key, object.clone()),
        }
        drop(state);
        self.version.send_replace(version);
        object
    }

    async fn serve(&self, request: Request<Body>) -> Answer {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let query: HashMap<String, String> = query(parts.uri.query().unwrap_or_default());
        let mut path = parts
            .uri
            .path()
            .trim_start_matches('/')
            .split('/')
            .peekable();
        let skipped = if path.next() == Some("api") { 1 } else { 2 };
        let mut path = path.skip(skipped).peekable();
        if path.next_if_eq(&"namespaces").is_some() {
            path.next();
        }
        let plural = path.next().unwrap().to_owned();
        let name = path.next().map(str::to_owned);
        if parts.method != Method::GET {
            self.state
                .lock()
                .unwrap()
                .calls
                .push(format!("{} {plural}", parts.method));
        }
        match (parts.method, name) {
            (Method::GET, None) if query.contains_key("watch") => self.watch(plural, &query),
            (Method::GET, None) => self.list(&plural, &query),
            (Method::GET, Some(name)) => match self.get(&plural, &name) {
                Some(object) => answer(200, &object),
                None => not_found(&plural, &name),
            },
            (Method::POST, None) => self.create(plural, body),
            (Method::PATCH, Some(name)) => self.patch(plural, name, &body),
            (Method::DELETE, Some(name)) => self.delete(plural, name),
            other => panic!("{other:?} is not served"),
        }
    }

    fn list(&self, plural: &str, query: &HashMap<String, String>) -> Answer {
        let start = match query.get("continue").map(|token| token.parse::<usize>()) {
            None => 0,
            Some(Ok(start)) => start,
            Some(Err(_)) => return failure(400, "BadRequest", "continue key is not valid"),
        };
        let limit = query
            .get("limit")
            .map_or(usize::MAX, |limit| limit.parse().unwrap());
        let state = self.state.lock().unwrap();
        let all: Vec<_> = state
            .objects
            .iter()
            .filter(|((kind, _), object)| kind == plural && selected(object, query))
            .map(|(_, object)| object.clone())
            .collect();
        let page: Vec<_> = all.iter().skip(start).take(limit).cloned().collect();
        let end = start + page.len();
        let more = if end < all.len() {
            end.to_string()
        } else {
            String::new()
        };
        let metadata =
            json!({"resourceVersion": self.version.borrow().to_string(), "continue": more});
        answer(
            200,
            &json!({"apiVersion": "v1", "kind": "List", "metadata": metadata, "items": page}),
        )
    }

    fn watch(&self, plural: String, query: &HashMap<String, String>) -> Answer {
        let since: u64 = query
            .get("resourceVersion")
            .map_or(0, |v| v.parse().unwrap());
        let query = query.clone();
        let lines = self.changes(since).filter_map(move |(kind, event)| {
            let wanted = kind == plural && selected(&event["object"], &query);
            std::future::ready(wanted.then(|| format!("{event}\n")))
        });
        let frames =
            lines.map(|line| Ok::<_, Infallible>(http_body::Frame::data(bytes::Bytes::from(line))));
        Response::new(StreamBody::new(frames.boxed()).boxed_unsync())
    }

    fn changes(&self, since: u64) -> impl Stream<Item = (String, Value)> + Send + 'static {
        let start = (self.clone(), self.version.subscribe(), since);
        let batches = stream::unfold(start, |(api, mut version, since)| async move {
            loop {
                let newest = *version.borrow_and_update();
                let log = api.state.lock().unwrap().log.clone();
                let new: Vec<_> = log
                    .into_iter()
                    .filter(|(v, ..)| *v > since && *v <= newest)
                    .collect();
                if !new.is_empty() {
                    let events: Vec<_> = new.into_iter().map(|(_, kind, e)| (kind, e)).collect();
                    return Some((stream::iter(events), (api, version, newest)));
                }
                version.changed().await.ok()?;
            }
        });
        batches.flatten()
    }

    fn create(&self, plural: String, mut object: Value) -> Answer {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        if self.get(&plural, &name).is_some() {
            return failure(409, "AlreadyExists", "it exists already");
        }
        object["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
        answer(201, &self.store((plural, name), object, "ADDED"))
    }

    fn patch(&self, plural: String, name: String, patch: &Value) -> Answer {
        let Some(mut object) = self.get(&plural, &name) else {
            return not_found(&plural, &name);
        };
        let applied = patch["status"].get("observed").cloned();
        merge(&mut object, patch);
        if let Some(observed) = applied {
            // The owner's own fields are replaced as a whole by an apply.
            object["status"]["observed"] = observed;
        }
        answer(200, &self.store((plural, name), object, "MODIFIED"))
    }

    fn delete(&self, plural: String, name: String) -> Answer {
        let Some(mut object) = self.get(&plural, &name) else {
            return not_found(&plural, &name);
        };
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty());
        if held {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let kind = if held { "MODIFIED" } else { "DELETED" };
        answer(200, &self.store((plural, name), object, kind))
    }

    /// Ends a deletion that a finalizer held up.
    pub fn release(&self, plural: &str, name: &str) {
        let object = self.get(plural, name).unwrap();
        self.store((plural.to_owned(), name.to_owned()), object, "DELETED");
    }
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn selected(object: &Value, query: &HashMap<String, String>) -> bool {
    let selector = query.get("fieldSelector").map_or("", String::as_str);
    selector
        .split(',')
        .filter(|part| !part.is_empty())
        .all(|part| {
            let (field, value) = part.split_once('=').unwrap();
            let found = field.split('.').fold(object, |object, key| &object[key]);
            found.as_str() == Some(value)
        })
}

fn query(text: &str) -> HashMap<String, String> {
    let decode = |text: &str| {
        text.replace("%3D", "=")
            .replace("%2C", ",")
            .replace("%2F", "/")
    };
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::from(serde_json::to_vec(body).unwrap());
    Response::builder()
        .status(code)
        .body(body.boxed_unsync())
        .unwrap()
}

fn failure(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "code": code, "reason": reason, "message": message,
    });
    answer(code, &status)
}

fn not_found(plural: &str, name: &str) -> Answer {
    failure(404, "NotFound", &format!("{plural} {name:?} not found"))
}

/// Polls until something holds, with an end.
pub async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(
            tokio::time::Instant::now() < end,
            "{what} within {PATIENCE:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
