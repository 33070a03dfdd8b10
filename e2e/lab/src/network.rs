//! Links and routes. The router has one /24 per node and a route per range of pods: pods of
//! different nodes talk without translation and without an overlay.

use anyhow::{Context, Result};

use crate::sandbox::Sandbox;
use crate::topology::{CONTROL_GATEWAY, CONTROL_IP, NodeSpec};

/// The network namespace of the control plane, if it is not there yet.
pub(crate) fn control(sandbox: &Sandbox) -> Result<()> {
    let link = link("cp", CONTROL_GATEWAY, CONTROL_IP);
    sandbox
        .script(&format!("[ ! -e /run/netns/cp ] || exit 0\n{link}"))
        .context("cannot make the network of the control plane")?;
    Ok(())
}

/// A new network namespace for a node that boots, in place of an older one.
pub(crate) fn boot(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let (name, ip, cidr) = (&node.name, node.ip(), node.pod_cidr());
    let link = link(name, &node.gateway(), &ip);
    let script = format!(
        "ip link del {name} 2>/dev/null || true\n\
         ip netns del {name} 2>/dev/null || true\n\
         {link}\
         ip route replace {cidr} via {ip}\n"
    );
    sandbox
        .script(&script)
        .with_context(|| format!("cannot make the network of {name}"))?;
    Ok(())
}

/// Pulls the plug on the router's side: to the others the node is silent from now on.
pub(crate) fn unplug(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let name = &node.name;
    sandbox
        .script(&format!("ip link set {name} down 2>/dev/null || true"))
        .map(drop)
}

/// Puts it in again.
pub(crate) fn plug(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let (name, ip, cidr) = (&node.name, node.ip(), node.pod_cidr());
    sandbox
        .script(&format!(
            "ip link set {name} up; ip route replace {cidr} via {ip}"
        ))
        .map(drop)
}

/// What is left of a dead node's network.
pub(crate) fn remove(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let name = &node.name;
    sandbox
        .script(&format!(
            "ip link del {name} 2>/dev/null || true\nip netns del {name} 2>/dev/null || true\n"
        ))
        .map(drop)
}

fn link(name: &str, gateway: &str, ip: &str) -> String {
    format!(
        "ip netns add {name}\n\
         ip link add {name} type veth peer name eth0 netns {name}\n\
         ip addr add {gateway}/24 dev {name}\n\
         ip link set {name} up\n\
         ip -n {name} link set lo up\n\
         ip -n {name} addr add {ip}/24 dev eth0\n\
         ip -n {name} link set eth0 up\n\
         ip -n {name} route add default via {gateway}\n\
         nsenter --net=/run/netns/{name} sysctl -qw net.ipv4.ip_forward=1\n"
    )
}
