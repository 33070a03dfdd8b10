//! An API server in memory: get, list with selectors, create, replace, merge patch, apply,
//! status, delete with finalizers, conflicts by `resourceVersion`. It models neither field
//! ownership nor schema defaults; the cluster tier is there for those.
//!
//! It can be told to fall silent after the n-th write, the answer to that write included: what an
//! operator sees that dies there.

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

#[derive(Clone, Default)]
pub struct FakeApi(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    /// By collection, such as `/api/v1/namespaces/weft-engines/pods`, and name.
    pub objects: BTreeMap<(String, String), Value>,
    pub version: u64,
    /// Writes until silence.
    pub silent_after: Option<u32>,
    pub silent: bool,
    /// Every write, for messages of tests.
    pub log: Vec<String>,
}

struct Target {
    collection: String,
    name: Option<String>,
    status: bool,
}

type Answer = Result<Value, (StatusCode, &'static str)>;

impl FakeApi {
    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, std::io::Error>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let apply = parts
            .headers
            .get("content-type")
            .is_some_and(|kind| kind.to_str().unwrap().contains("apply-patch"));
        let query = parts.uri.query().unwrap_or_default().to_owned();
        let answer = self.answer(&parts.method, parts.uri.path(), &query, body, apply);
        let (code, body) = match answer {
            Ok(body) => (StatusCode::OK, body),
            Err((code, reason)) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": code.as_u16(), "reason": reason, "message": reason});
                (code, status)
            }
        };
        let body = Body::from(serde_json::to_vec(&body).unwrap());
        Response::builder().status(code).body(body).unwrap()
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: Value, apply: bool) -> Answer {
        let mut state = self.state();
        if path.contains("/events") {
            return Ok(body);
        }
        if state.silent {
            return Err((StatusCode::INTERNAL_SERVER_ERROR, "Silent"));
        }
        let target = parse(path);
        if method == Method::GET {
            return match &target.name {
                Some(name) => state.get(&target.collection, name).cloned(),
                None => Ok(state.list(&target.collection, query)),
            };
        }
        let answer = state.write(method, &target, body, apply);
        if answer.is_ok() {
            state.log.push(format!("{method} {path}"));
            if let Some(left) = &mut state.silent_after {
                *left -= 1;
                if *left == 0 {
                    (state.silent, state.silent_after) = (true, None);
                    return Err((StatusCode::INTERNAL_SERVER_ERROR, "Silent"));
                }
            }
        }
        answer
    }
}

fn parse(path: &str) -> Target {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let group = if parts[0] == "api" { 2 } else { 3 };
    let at = if parts.get(group) == Some(&"namespaces") && parts.len() > group + 2 {
        group + 2
    } else {
        group
    };
    Target {
        collection: format!("/{}", parts[..=at].join("/")),
        name: parts.get(at + 1).map(|name| (*name).to_owned()),
        status: parts.get(at + 2) == Some(&"status"),
    }
}

const NOT_FOUND: (StatusCode, &str) = (StatusCode::NOT_FOUND, "NotFound");
const CONFLICT: (StatusCode, &str) = (StatusCode::CONFLICT, "Conflict");

impl State {
    fn get(&self, collection: &str, name: &str) -> Result<&Value, (StatusCode, &'static str)> {
        self.objects
            .get(&(collection.to_owned(), name.to_owned()))
            .ok_or(NOT_FOUND)
    }

    fn list(&self, collection: &str, query: &str) -> Value {
        let query = query
            .replace("%3D", "=")
            .replace("%2F", "/")
            .replace("%2C", ",");
        let wanted = |key: &str| {
            let found = query
                .split('&')
                .find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
            found
                .unwrap_or_default()
                .split(',')
                .filter_map(|term| term.split_once('='))
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect::<Vec<_>>()
        };
        let (labels, fields) = (wanted("labelSelector"), wanted("fieldSelector"));
        let selected = |object: &Value| {
            labels
                .iter()
                .all(|(k, v)| object["metadata"]["labels"][k] == **v)
                && fields.iter().all(|(k, v)| {
                    let found = object.pointer(&format!("/{}", k.replace('.', "/")));
                    found.is_some_and(|found| *found == **v || (*found == true && v == "true"))
                })
        };
        let items: Vec<&Value> = self
            .of(collection)
            .filter(|object| selected(object))
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    pub fn of<'a>(&'a self, collection: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .iter()
            .filter(move |((c, _), _)| c == collection)
            .map(|(_, object)| object)
    }

    fn write(&mut self, method: &Method, target: &Target, body: Value, apply: bool) -> Answer {
        let collection = &target.collection;
        match (method.as_str(), &target.name) {
            ("POST", _) => {
                let name = body["metadata"]["name"].as_str().unwrap().to_owned();
                if self.get(collection, &name).is_ok() {
                    return Err((StatusCode::CONFLICT, "AlreadyExists"));
                }
                Ok(self.store(collection, &name, body))
            }
            ("DELETE", Some(name)) => self.delete(collection, name, &body),
            (_, Some(name)) => {
                let old = match self.get(collection, name) {
                    Ok(old) => old.clone(),
                    Err(_) if apply && !target.status => json!({}),
                    Err(error) => return Err(error),
                };
                let claimed = &body["metadata"]["resourceVersion"];
                if claimed.is_string() && *claimed != old["metadata"]["resourceVersion"] {
                    return Err(CONFLICT);
                }
                let new = match (target.status, method.as_str()) {
                    (true, _) => with(old, "status", body["status"].clone()),
                    (false, "PUT") => with(body, "status", old["status"].clone()),
                    (false, _) => merged(old, body),
                };
                Ok(self.store(collection, name, new))
            }
            _ => Err((StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed")),
        }
    }

    /// Puts an object in as a write would, or takes it away when nothing holds it any more.
    pub fn store(&mut self, collection: &str, name: &str, mut object: Value) -> Value {
        self.version += 1;
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.insert("resourceVersion".into(), json!(self.version.to_string()));
        meta.entry("uid")
            .or_insert_with(|| json!(uuid::Uuid::new_v4().to_string()));
        meta.entry("generation").or_insert_with(|| json!(1));
        let held = meta
            .get("finalizers")
            .and_then(Value::as_array)
            .is_some_and(|f| !f.is_empty());
        let gone = meta.contains_key("deletionTimestamp") && !held;
        let key = (collection.to_owned(), name.to_owned());
        if gone {
            self.objects.remove(&key);
        } else {
            self.objects.insert(key, object.clone());
        }
        object
    }

    fn delete(&mut self, collection: &str, name: &str, options: &Value) -> Answer {
        let mut object = self.get(collection, name)?.clone();
        let meta = object["metadata"].as_object_mut().unwrap();
        meta.entry("deletionTimestamp")
            .or_insert_with(|| json!("2026-01-01T00:00:00Z"));
        if collection.ends_with("/pods") {
            // Pods end when their kubelet says so, or when nobody shall wait for it.
            let forced = options["gracePeriodSeconds"] == 0;
            let kubelet = if forced {
                json!([])
            } else {
                json!(["test/kubelet"])
            };
            meta.insert("finalizers".into(), kubelet);
        }
        Ok(self.store(collection, name, object))
    }
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    if value.is_null() {
        object.as_object_mut().unwrap().remove(key);
    } else {
        object[key] = value;
    }
    object
}

fn merged(mut old: Value, patch: Value) -> Value {
    match (&mut old, patch) {
        (Value::Object(fields), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    fields.remove(&key);
                } else {
                    let before = fields.remove(&key).unwrap_or(Value::Null);
                    fields.insert(key, merged(before, value));
                }
            }
            old
        }
        (_, patch) => patch,
    }
}
