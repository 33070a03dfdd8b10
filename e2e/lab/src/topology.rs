//! The addresses of the lab: pure L3, one /24 per node behind one router.

/// The API server's node address.
pub(crate) const CONTROL_IP: &str = "172.30.0.2";
/// The router's address in the network of the control plane.
pub(crate) const CONTROL_GATEWAY: &str = "172.30.0.1";
/// The range of Service addresses.
pub(crate) const SERVICE_CIDR: &str = "10.211.0.0/16";
/// The API server's Service address.
pub(crate) const SERVICE_IP: &str = "10.211.0.1";
/// Nothing listens there: it only keeps the kubelet from warning about each pod.
pub(crate) const DNS_IP: &str = "10.211.0.10";
/// The range from which every node has its /24 of pod addresses.
pub(crate) const POD_CIDR: &str = "10.210.0.0/16";
/// The stable path of the block device of node n3.
pub const BLOCK_DRIVE: &str = "/dev/disk/by-id/weft-lab-n3";
/// The node that has a block device.
pub(crate) const BLOCK_DRIVE_NODE: &str = "n3";

/// What a node is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Namespaces of this machine's kernel.
    Namespace,
    /// A User-Mode Linux guest with its own kernel (nvme-tcp, cgroup v2).
    Guest,
}

/// One node as it was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// `n1` and so on.
    pub name: String,
    /// Namespaces or a guest.
    pub kind: NodeKind,
    index: u8,
}

impl NodeSpec {
    /// The node's own address.
    pub fn ip(&self) -> String {
        format!("172.30.{}.2", self.index)
    }

    /// The router's address in the node's network.
    pub fn gateway(&self) -> String {
        format!("172.30.{}.1", self.index)
    }

    /// The range of the addresses of its pods.
    pub fn pod_cidr(&self) -> String {
        format!("10.210.{}.0/24", self.index)
    }

    /// The value of `topology.kubernetes.io/zone`.
    pub fn zone(&self) -> String {
        format!("z{}", self.index)
    }

    /// The labels with which the kubelet registers.
    pub(crate) fn labels(&self) -> String {
        let mut labels = format!("topology.kubernetes.io/zone={}", self.zone());
        if self.kind == NodeKind::Guest {
            labels.push_str(",weft.storage/lab-kernel-host=true");
        }
        labels
    }
}

/// The nodes of a lab: `count` of namespaces, then the guest.
pub(crate) fn nodes(count: u8, guest: bool) -> Vec<NodeSpec> {
    let node = |index, kind| NodeSpec {
        name: format!("n{index}"),
        kind,
        index,
    };
    let mut nodes: Vec<_> = (1..=count).map(|i| node(i, NodeKind::Namespace)).collect();
    if guest {
        // Always n4: its address is the one that documents and tests name.
        nodes.push(node(count.max(3) + 1, NodeKind::Guest));
    }
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_n4_even_beside_fewer_nodes() {
        let names: Vec<_> = nodes(1, true).into_iter().map(|n| n.name).collect();
        assert_eq!(names, ["n1", "n4"]);
        let all = nodes(3, true);
        let guest = all.last().expect("four nodes");
        assert_eq!(guest.ip(), "172.30.4.2");
        assert_eq!(guest.kind, NodeKind::Guest);
        assert_eq!(
            guest.labels(),
            "topology.kubernetes.io/zone=z4,weft.storage/lab-kernel-host=true"
        );
    }
}
