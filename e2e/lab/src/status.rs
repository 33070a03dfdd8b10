//! What the lab looks like now, for a person.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use crate::lab::Lab;
use crate::node::Node;
use crate::topology::NodeKind;
use crate::{loops, process};

/// A picture of the lab: control plane, nodes, devices, and what to type next.
pub fn status(lab: &Lab) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = picture(lab, &mut text);
    text
}

fn picture(lab: &Lab, out: &mut String) -> std::fmt::Result {
    let paths = lab.paths();
    writeln!(
        out,
        "Weft lab in {} (sandbox pid {}), {} MiB in all\n",
        paths.state().display(),
        lab.sandbox_pid(),
        memory(lab.sandbox_pid()),
    )?;

    let programs = lab.control().programs();
    let ready = if programs.iter().any(|(_, pid)| pid.is_none()) {
        "stopped"
    } else if lab.control().running() {
        "ready"
    } else {
        "not ready"
    };
    writeln!(out, "CONTROL PLANE  {ready}")?;
    for (program, pid) in programs {
        match pid {
            Some(pid) => writeln!(out, "  {program:<25} pid {pid:<7} {:>5} MiB", memory(pid))?,
            None => writeln!(out, "  {program:<25} stopped")?,
        }
    }

    let seen = if ready == "ready" {
        Seen::ask(lab)
    } else {
        Seen::default()
    };
    writeln!(
        out,
        "\nNODE  ADDRESS      POD RANGE      ZONE  KIND       POWER    LINK  KUBERNETES  PODS     MIB"
    )?;
    for node in lab.nodes() {
        let spec = node.spec();
        let name = &spec.name;
        writeln!(
            out,
            "{name:<5} {:<12} {:<14} {:<5} {:<10} {:<8} {:<5} {:<11} {:>4} {:>7}",
            spec.ip(),
            spec.pod_cidr(),
            spec.zone(),
            match spec.kind {
                NodeKind::Namespace => "namespaces",
                NodeKind::Guest => "guest",
            },
            power(&node),
            if node.is_cut() { "cut" } else { "up" },
            seen.ready.get(name).map_or("unknown", String::as_str),
            seen.pods.get(name).copied().unwrap_or(0),
            node.pid().map_or(0, memory),
        )?;
    }

    for (device, file) in loops::own(paths) {
        writeln!(out, "\nDEVICE  {device} on {}", file.display())?;
    }
    writeln!(
        out,
        "\nweft-lab kubectl get pods -A -o wide   weft-lab exec NODE CMD   weft-lab down\n\
         logs: {0}/logs/*.log {0}/nodes/NODE/log/*.log",
        paths.state().display()
    )
}

fn power(node: &Node<'_>) -> &'static str {
    match node.pid() {
        None => "off",
        Some(pid) if process::is_stopped(pid) => "frozen",
        Some(_) => "on",
    }
}

/// What the API server says about the nodes.
#[derive(Default)]
struct Seen {
    ready: BTreeMap<String, String>,
    pods: BTreeMap<String, usize>,
}

impl Seen {
    fn ask(lab: &Lab) -> Self {
        let mut seen = Self::default();
        for spec in lab.nodes().iter().map(Node::spec) {
            seen.ready.insert(spec.name.clone(), "NotReady".to_owned());
        }
        for name in lab.ready_nodes().unwrap_or_default() {
            seen.ready.insert(name, "Ready".to_owned());
        }
        let template = r#"jsonpath={range .items[*]}{.spec.nodeName}{"\n"}{end}"#;
        let pods = lab
            .kubectl(&["--request-timeout=5s", "get", "pods", "-A", "-o", template])
            .unwrap_or_default();
        for node in pods.lines().filter(|line| !line.is_empty()) {
            *seen.pods.entry(node.to_owned()).or_default() += 1;
        }
        seen
    }
}

/// MiB of a process and all below it, each page that several share counted once.
fn memory(pid: i32) -> u64 {
    let kib: u64 = process::tree(pid)
        .iter()
        .filter_map(|p| fs::read_to_string(format!("/proc/{}/smaps_rollup", p.pid)).ok())
        .filter_map(|text| {
            let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        })
        .sum();
    kib / 1024
}
