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
    let link = link(&node.name, &node.gateway(), &node.ip());
    boot_with(sandbox, node, &link)
}

/// A tap for a guest that boots, in the router itself.
pub(crate) fn boot_guest(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let (name, gateway) = (&node.name, node.gateway());
    let link = format!(
        "ip tuntap add {name} mode tap vnet_hdr\n\
         ip addr add {gateway}/24 dev {name}\n\
         ip link set {name} up\n"
    );
    boot_with(sandbox, node, &link)
}

fn boot_with(sandbox: &Sandbox, node: &NodeSpec, link: &str) -> Result<()> {
    let (name, ip, cidr) = (&node.name, node.ip(), node.pod_cidr());
    let script = format!(
        "{}{link}ip route replace {cidr} via {ip} dev {name} onlink\n",
        remains(name)
    );
    sandbox
        .script(&script)
        .with_context(|| format!("cannot make the network of {name}"))?;
    Ok(())
}

/// Cuts the node's link without a word: the router drops what comes from it and goes to it. The
/// link stays up on both sides, so that nobody learns of it but by silence.
pub(crate) fn unplug(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let name = &node.name;
    let chains: String = [
        ("forward", vec!["iifname", "oifname"]),
        ("input", vec!["iifname"]),
        ("output", vec!["oifname"]),
    ]
    .into_iter()
    .map(|(hook, sides)| {
        let rules: String = sides
            .into_iter()
            .map(|side| format!("{side} {name} drop; "))
            .collect();
        format!("chain {hook} {{ type filter hook {hook} priority -200; {rules} }}\n")
    })
    .collect();
    sandbox
        .script(&format!(
            "nft delete table inet cut-{name} 2>/dev/null || true\n\
             nft 'table inet cut-{name} {{\n{chains}}}'\n"
        ))
        .with_context(|| format!("cannot cut the link of {name}"))?;
    Ok(())
}

/// Mends it.
pub(crate) fn plug(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    let name = &node.name;
    sandbox
        .script(&format!(
            "nft delete table inet cut-{name} 2>/dev/null || true"
        ))
        .map(drop)
}

/// Whether the link is cut.
pub(crate) fn is_cut(sandbox: &Sandbox, node: &NodeSpec) -> bool {
    sandbox
        .script(&format!("nft list table inet cut-{}", node.name))
        .is_ok()
}

/// What is left of a dead node's network. The router's last resort for addresses of the lab is a
/// black hole, so the others go on meeting silence instead of an error.
pub(crate) fn remove(sandbox: &Sandbox, node: &NodeSpec) -> Result<()> {
    sandbox.script(&remains(&node.name)).map(drop)
}

fn remains(name: &str) -> String {
    format!(
        "ip link del {name} 2>/dev/null || true\n\
         ip netns del {name} 2>/dev/null || true\n\
         nft delete table inet cut-{name} 2>/dev/null || true\n"
    )
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
         nsenter --net=/run/netns/{name} bash -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'\n"
    )
}
