//! What can be read off a Node, and a watch of Nodes that wakes only when that changes.

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Label that the scheduler and local PersistentVolumes place by.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Whether the kubelet reports.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Value of the host name label; the name when there is none.
pub fn hostname(node: &Node) -> String {
    node.labels()
        .get(HOSTNAME)
        .cloned()
        .unwrap_or_else(|| node.name_any())
}

/// Nodes as they come, go, change readiness or labels: never for a mere heartbeat.
pub fn watch(client: &Client) -> impl Stream<Item = Result<Node, watcher::Error>> + Send + 'static {
    let nodes: Api<Node> = Api::all(client.clone());
    let mut seen = HashMap::new();
    watcher(nodes, watcher::Config::default())
        .default_backoff()
        .filter_map(move |event| {
            std::future::ready(event.map(|event| news(&mut seen, event)).transpose())
        })
}

/// The node of an event, when what we care about has changed.
fn news(seen: &mut HashMap<String, u64>, event: Event<Node>) -> Option<Node> {
    match event {
        Event::Apply(node) | Event::InitApply(node) => {
            let facts = facts(&node);
            (seen.insert(node.name_any(), facts) != Some(facts)).then_some(node)
        }
        Event::Delete(node) => {
            seen.remove(&node.name_any());
            Some(node)
        }
        Event::Init | Event::InitDone => None,
    }
}

fn facts(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (is_ready(node), node.labels(), &node.metadata.uid).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(ready: &str, heartbeat: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {HOSTNAME: "host-1"}},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": heartbeat}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_heartbeat_is_no_news_but_readiness_and_deletion_are() {
        let mut seen = HashMap::new();
        let mut told = |event| news(&mut seen, event).is_some();
        assert!(told(Event::InitApply(node("True", "2026-01-01T00:00:00Z"))));
        assert!(!told(Event::Apply(node("True", "2026-01-01T00:05:00Z"))));
        assert!(told(Event::Apply(node("Unknown", "2026-01-01T00:05:00Z"))));
        assert!(told(Event::Delete(node("Unknown", "2026-01-01T00:05:00Z"))));
        assert!(told(Event::Apply(node("Unknown", "2026-01-01T00:05:00Z"))));
        assert_eq!(hostname(&node("True", "2026-01-01T00:00:00Z")), "host-1");
    }
}
