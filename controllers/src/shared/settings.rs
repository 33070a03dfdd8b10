//! What whoever installs the operator decides.

use std::path::PathBuf;

/// Settings of the operator, from its arguments and environment.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where pods of each kind live.
    pub namespaces: Namespaces,
    /// What pods run.
    pub images: Images,
    /// File-backed drives must lie below this directory of the node.
    pub drives_root: PathBuf,
    /// Block devices must begin with one of these.
    pub device_prefixes: Vec<String>,
    /// Where pods push their status: `address:port`, a Service's.
    pub push_address: String,
    /// `RUST_LOG` of the pods.
    pub pod_log: String,
}

/// Where pods of each kind live.
#[derive(Clone, Debug)]
pub struct Namespaces {
    /// Operator and user-space initiators.
    pub system: String,
    /// Drives, and the operator's own keys.
    pub drives: String,
    /// Engines.
    pub engines: String,
}

/// What pods run.
#[derive(Clone, Debug)]
pub struct Images {
    /// Of drive pods.
    pub drive: String,
    /// Of engine pods.
    pub engine: String,
    /// Of user-space initiator pods.
    pub initiator: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub pull_policy: String,
}
