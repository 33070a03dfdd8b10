//! The dependency arrows of the house: who may depend on whom, read from `cargo metadata`.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Each crate of the product and the workspace crates that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("weft-spec", &[]),
    ("weft-nvme", &[]),
    ("weft-block", &[]),
    ("weft-transport", &["weft-nvme", "weft-block"]),
    ("weft-control", &[]),
    (
        "weft-drive",
        &[
            "weft-spec",
            "weft-block",
            "weft-transport",
            "weft-nvme",
            "weft-control",
        ],
    ),
    (
        "weft-engine",
        &[
            "weft-spec",
            "weft-block",
            "weft-transport",
            "weft-nvme",
            "weft-control",
        ],
    ),
    (
        "weft-initiator",
        &[
            "weft-spec",
            "weft-block",
            "weft-transport",
            "weft-nvme",
            "weft-control",
        ],
    ),
    ("weft-crds", &[]),
    (
        "weft-controllers",
        &["weft-crds", "weft-spec", "weft-control"],
    ),
    (
        "weft-operator",
        &["weft-controllers", "weft-crds", "weft-control"],
    ),
    ("weft-csi-proto", &[]),
    ("weft-csi", &["weft-crds", "weft-spec", "weft-csi-proto"]),
];

/// Packages that nothing under `dataplane/` may reach, at any depth.
const KUBERNETES: &[&str] = &[
    "kube",
    "kube-core",
    "kube-client",
    "kube-runtime",
    "k8s-openapi",
];

struct Metadata {
    packages: BTreeMap<String, Value>,
    nodes: BTreeMap<String, Value>,
}

fn metadata() -> Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version=1",
            "--locked",
            "--offline",
            // A build for this platform does not download what others need.
            "--filter-platform",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
            "--manifest-path",
            manifest,
        ])
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let whole: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let by_id = |items: &Value| -> BTreeMap<String, Value> {
        let items = items.as_array().expect("a list").iter();
        items
            .map(|item| (item["id"].as_str().expect("an id").to_owned(), item.clone()))
            .collect()
    };
    Metadata {
        packages: by_id(&whole["packages"]),
        nodes: by_id(&whole["resolve"]["nodes"]),
    }
}

impl Metadata {
    fn name(&self, id: &str) -> &str {
        self.packages[id]["name"].as_str().expect("a name")
    }

    fn is_ours(&self, id: &str) -> bool {
        self.packages[id]["source"].is_null()
    }

    /// Direct dependencies that are not only for tests.
    fn direct(&self, id: &str) -> Vec<&str> {
        let deps = self.nodes[id]["deps"].as_array().expect("a list").iter();
        deps.filter(|dep| {
            dep["dep_kinds"]
                .as_array()
                .expect("a list")
                .iter()
                .any(|kind| kind["kind"] != "dev")
        })
        .map(|dep| dep["pkg"].as_str().expect("an id"))
        .collect()
    }

    fn reached_from<'a>(&'a self, id: &'a str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![id];
        while let Some(next) = todo.pop() {
            if seen.insert(next) {
                todo.extend(self.direct(next));
            }
        }
        seen
    }
}

#[test]
fn each_crate_depends_only_on_what_its_arrows_allow() {
    let metadata = metadata();
    let mut seen = BTreeSet::new();
    for id in metadata.packages.keys().filter(|id| metadata.is_ours(id)) {
        let path = metadata.packages[id]["manifest_path"]
            .as_str()
            .expect("a path");
        if path.contains("/e2e/") {
            continue;
        }
        let name = metadata.name(id);
        let (_, allowed) = ARROWS
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .unwrap_or_else(|| {
                panic!("{name} has no row in ARROWS: add one, and say why the crate exists")
            });
        seen.insert(name.to_owned());
        for dep in metadata
            .direct(id)
            .into_iter()
            .filter(|dep| metadata.is_ours(dep))
        {
            let dep = metadata.name(dep);
            assert!(
                allowed.contains(&dep),
                "{name} must not depend on {dep}: allowed are {allowed:?}"
            );
        }
    }
    let rows: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(seen, rows, "a row of ARROWS names a crate that is gone");
}

#[test]
fn nothing_in_the_data_plane_reaches_kubernetes() {
    let metadata = metadata();
    for id in metadata.packages.keys().filter(|id| metadata.is_ours(id)) {
        let path = metadata.packages[id]["manifest_path"]
            .as_str()
            .expect("a path");
        if !path.contains("/dataplane/") {
            continue;
        }
        for reached in metadata.reached_from(id) {
            let reached = metadata.name(reached);
            assert!(
                !KUBERNETES.contains(&reached),
                "{} reaches {reached}",
                metadata.name(id)
            );
        }
    }
}

#[test]
fn one_cryptography_provider_is_in_the_graph() {
    let metadata = metadata();
    let names: BTreeSet<&str> = metadata.nodes.keys().map(|id| metadata.name(id)).collect();
    for other in ["aws-lc-rs", "openssl", "openssl-sys"] {
        assert!(
            !names.contains(other),
            "{other} is in the graph: rustls must have ring alone"
        );
    }
}
