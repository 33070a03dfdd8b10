//! What can be read off a Node, and a watch of Nodes that wakes only when that changes.

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Taint with which a person says that a node is gone, and that nothing runs there any more.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

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

/// Whether a person has said that the node is out of service.
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    taints
        .into_iter()
        .flatten()
        .any(|t| t.key == OUT_OF_SERVICE)
}

/// Whether the node is gone by a person's word: the taint, or the Node object deleted. Silence alone
/// is no such word.
pub fn is_gone(node: Option<&Node>) -> bool {
    node.is_none_or(is_out_of_service)
}

/// Whether the scheduler puts nothing there any more: so a drain begins.
pub fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.is_some_and(|spec| spec.unschedulable == Some(true))
}

/// Whether a node that [`watch`] has given is gone, as [`is_gone`] has it: one that was deleted comes with
/// a time of deletion.
pub fn was_last_seen(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_some() || is_out_of_service(node)
}

/// Value of the host name label; the name when there is none.
pub fn hostname(node: &Node) -> String {
    node.labels()
        .get(HOSTNAME)
        .cloned()
        .unwrap_or_else(|| node.name_any())
}

/// Nodes as they come, go, change readiness, labels, taints or are cordoned: never for a mere
/// heartbeat.
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
        Event::Delete(mut node) => {
            seen.remove(&node.name_any());
            let deleted = &mut node.metadata.deletion_timestamp;
            deleted.get_or_insert(Time(Timestamp::UNIX_EPOCH));
            Some(node)
        }
        Event::Init | Event::InitDone => None,
    }
}

fn facts(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    (is_ready(node), is_out_of_service(node), is_cordoned(node)).hash(&mut hasher);
    (node.labels(), &node.metadata.uid).hash(&mut hasher);
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
        let mut tainted = node("Unknown", "2026-01-01T00:05:00Z");
        tainted.spec = serde_json::from_value(
            json!({"taints": [{"key": OUT_OF_SERVICE, "effect": "NoExecute", "value": "nodeshutdown"}]}),
        )
        .unwrap();
        assert!(told(Event::Apply(tainted.clone())));
        assert!(!told(Event::Apply(tainted.clone())));
        assert!(is_gone(Some(&tainted)) && is_gone(None));
        assert!(!is_gone(Some(&node("Unknown", "2026-01-01T00:05:00Z"))));
        assert_eq!(hostname(&node("True", "2026-01-01T00:00:00Z")), "host-1");
    }
}
