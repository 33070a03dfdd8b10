//! A node made of namespaces of this machine's kernel.

use std::process::Command;

use anyhow::Result;
use rustix::process::Signal;

use crate::loops;
use crate::node::Node;
use crate::process::{self, Process};
use crate::topology::BLOCK_DRIVE_NODE;

/// The node's first process. It is found by its words, so nothing has to be remembered.
pub(crate) fn find(node: &Node<'_>) -> Option<i32> {
    let script = script(node);
    process::tree(node.sandbox.pid())
        .into_iter()
        .find(|p| p.is_init() && p.runs(&["bash", &script, &node.spec.name]))
        .map(|p| p.pid)
}

/// Starts it in a network namespace that exists already.
pub(crate) fn boot(node: &Node<'_>) -> Result<()> {
    let drive = if node.spec.name == BLOCK_DRIVE_NODE {
        loops::block_drive(node.paths)?
    } else {
        String::new()
    };
    let argv = [
        "unshare",
        "--mount",
        "--uts",
        "--ipc",
        "--pid",
        "--fork",
        "--kill-child=SIGKILL",
        "bash",
        &script(node),
        &node.spec.name,
        &node.paths.state().to_string_lossy(),
        &drive,
    ]
    .map(str::to_owned);
    let log = node.paths.node(&node.spec.name).join("log/init.log");
    // nsenter, not `ip netns exec`: that one mounts a new /sys and the cgroups are gone.
    node.sandbox.spawn(Some(&node.spec.name), &log, &argv)
}

/// SIGSTOP to all processes, until a look finds none that was not there before.
pub(crate) fn freeze(init: i32) {
    let mut stopped = Vec::new();
    loop {
        let fresh: Vec<Process> = process::tree(init)
            .into_iter()
            .filter(|p| !stopped.contains(&p.pid))
            .collect();
        if fresh.is_empty() {
            return;
        }
        for process in fresh {
            process::signal(process.pid, Signal::STOP);
            stopped.push(process.pid);
        }
    }
}

/// SIGCONT to all, the first process last.
pub(crate) fn thaw(init: i32) {
    for process in process::tree(init).into_iter().rev() {
        process::signal(process.pid, Signal::CONT);
    }
}

/// A program in all namespaces of the node.
pub(crate) fn command(node: &Node<'_>, init: i32, argv: &[&str]) -> Command {
    let bin = node.paths.bin();
    let mut command = Command::new("nsenter");
    command
        .args(["-t", &init.to_string(), "-n", "-m", "-p", "-u", "-i", "--"])
        .args(argv)
        .env(
            "PATH",
            format!(
                "{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                bin.display()
            ),
        );
    command
}

fn script(node: &Node<'_>) -> String {
    node.paths
        .bin()
        .join("node-init")
        .to_string_lossy()
        .into_owned()
}
