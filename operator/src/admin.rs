//! Admin HTTP: whether it lives, whether it is ready, a few numbers, and what it knows.

use crate::fault::ExitAfterWrites;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use weft_controllers::shared::Context;
use weft_controllers::shared::links::{Link, Peer};

/// What the admin server can tell; filled in as the start goes on.
#[derive(Clone, Default)]
pub struct Shared {
    checked: Arc<OnceLock<()>>,
    leading: Arc<OnceLock<Arc<Context>>>,
}

impl Shared {
    /// The checks at start have passed: it leads or follows from here on.
    pub fn checked(&self) {
        let _ = self.checked.set(());
    }

    /// It leads.
    pub fn leading(&self, context: Arc<Context>) {
        let _ = self.leading.set(context);
    }
}

/// The routes; with `fault` also the one of the test instrument.
pub fn routes(shared: Shared, fault: Option<ExitAfterWrites>) -> Router {
    let mut router = Router::new();
    if let Some(fault) = fault {
        let arm = move |body: String| async move {
            let writes = body.trim().parse().map_err(|_| StatusCode::BAD_REQUEST)?;
            Ok::<_, StatusCode>(format!("{}\n", fault.arm(writes)))
        };
        router = router.route("/debug/exit-after-writes", post(arm));
    }
    router
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/debug/state", get(state))
        .with_state(shared)
}

async fn ready(State(shared): State<Shared>) -> (StatusCode, &'static str) {
    match (shared.checked.get(), shared.leading.get()) {
        (_, Some(_)) => (StatusCode::OK, "leads\n"),
        (Some(()), None) => (StatusCode::OK, "follows\n"),
        (None, None) => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
    }
}

async fn metrics(State(shared): State<Shared>) -> String {
    let mut text = String::new();
    let mut gauge = |name: &str, help: &str, value: usize| {
        let _ = write!(
            text,
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"
        );
    };
    let context = shared.leading.get();
    gauge(
        "weft_operator_leading",
        "Whether this operator holds the lease.",
        usize::from(context.is_some()),
    );
    if let Some(context) = context {
        let links = context.links.all();
        let heard = links
            .iter()
            .filter(|(_, link)| link.status.is_some())
            .count();
        gauge(
            "weft_operator_pods",
            "Drive and engine pods known.",
            links.len(),
        );
        gauge(
            "weft_operator_pods_heard",
            "Those of them that have said their status.",
            heard,
        );
        let failing = context.backoffs.failing().len();
        gauge(
            "weft_operator_objects_failing",
            "Objects whose last pass failed.",
            failing,
        );
    }
    text
}

async fn state(State(shared): State<Shared>) -> Json<Value> {
    let Some(context) = shared.leading.get() else {
        return Json(json!({"leading": false}));
    };
    let pods: serde_json::Map<_, _> = context
        .links
        .all()
        .into_iter()
        .map(|(pod, link)| (pod, told(&link)))
        .collect();
    let failing: Vec<_> = context.backoffs.failing().into_iter()
        .map(|(object, times, category)| json!({"object": object, "timesInARow": times, "category": category}))
        .collect();
    Json(json!({
        "leading": true,
        "cluster": context.fabric.cluster.to_string(),
        "pushAddress": context.settings.push_address,
        "pods": pods,
        "failing": failing,
    }))
}

/// A link for people: no certificate, no key.
fn told(link: &Link) -> Value {
    let kind = match link.peer {
        Peer::Drive(_) => "drive",
        Peer::Engine(_) => "engine",
    };
    let mut told = json!({"kind": kind, "owner": link.owner, "address": link.address});
    if let Some(status) = link.drive_status() {
        told["status"] = serde_json::to_value(status.as_ref()).unwrap_or_default();
    }
    if let Some(status) = link.engine_status() {
        told["status"] = serde_json::to_value(status.as_ref()).unwrap_or_default();
    }
    told
}
