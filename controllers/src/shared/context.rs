//! What every controller is given.

use super::errors::Backoffs;
use super::events::Events;
use super::keys::Keys;
use super::links::Links;
use super::settings::Settings;
use kube::Client;
use weft_crds::fabric::IpFamily;
use weft_spec::ids::ClusterUid;

/// What every controller is given; one per process, shared by `Arc`.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// From arguments and environment.
    pub settings: Settings,
    /// From the Fabric named `default`, read at start; none of it changes while a cluster lives.
    pub fabric: FabricFacts,
    /// The operator's secrets.
    pub keys: Keys,
    /// The pods, their statuses and how to talk to them.
    pub links: Links,
    /// Events.
    pub events: Events,
    /// Failures in a row, for the error policy.
    pub backoffs: Backoffs,
}

/// What the Fabric says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FabricFacts {
    /// Identity of the cluster.
    pub cluster: ClusterUid,
    /// Ports that pods listen on.
    pub ports: PortNumbers,
    /// Families that wires may use, the preferred first; empty: whatever the pod has first.
    pub families: Vec<IpFamily>,
}

/// TCP ports of the fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortNumbers {
    /// NVMe/TCP of drives.
    pub drive: u16,
    /// NVMe/TCP of engines.
    pub engine: u16,
    /// Control link in pods.
    pub control: u16,
    /// Where the operator takes pushes.
    pub operator: u16,
}
