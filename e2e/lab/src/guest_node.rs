//! The node with a kernel of its own: a User-Mode Linux guest on a tap of the router.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::Signal;
use weft_guest::{INIT_SCRIPT, Link, Machine};

use crate::node::Node;
use crate::{network, process, tools};

/// MiB: kubelet, containerd and a few pods take a quarter of it.
const MEMORY: u32 = 2048;

/// Sparse: only what is written takes room.
const DISK_SIZE: u64 = 8 << 30;

/// The kernel's process. Programs of the guest are processes below it with the same words.
pub(crate) fn find(node: &Node<'_>) -> Option<i32> {
    let kernel = weft_guest::kernel_path(node.paths.cache()).ok()?;
    let kernel = kernel.to_string_lossy();
    let all = process::tree(node.sandbox.pid());
    let guests: Vec<_> = all.iter().filter(|p| p.runs(&[&kernel])).collect();
    guests
        .iter()
        .find(|p| !guests.iter().any(|other| other.pid == p.parent))
        .map(|p| p.pid)
}

/// Makes the tap and the disk, and starts the kernel.
pub(crate) fn boot(node: &Node<'_>) -> Result<()> {
    network::boot_guest(node.sandbox, &node.spec)?;
    let bin = node.paths.bin();
    for (name, text) in [
        ("guest-init", INIT_SCRIPT),
        ("guest-node", include_str!("../scripts/guest-node.sh")),
        ("guest-agent", include_str!("../scripts/guest-agent.sh")),
        ("guest-exec", include_str!("../scripts/guest-exec.sh")),
    ] {
        let path = bin.join(name);
        tools::replace(&path, text.as_bytes())?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let machine = Machine {
        kernel: weft_guest::kernel(node.paths.cache())?,
        name: node.spec.name.clone(),
        init: bin.join("guest-init"),
        script: bin.join("guest-node"),
        memory: MEMORY,
        shares: vec![node.paths.state().to_owned()],
        link: Some(Link {
            tap: node.spec.name.clone(),
            address: format!("{}/24", node.spec.ip()),
            gateway: Some(node.spec.gateway()),
        }),
        disk: Some(disk(node)?),
        environment: vec![(
            "WEFT_STATE".to_owned(),
            node.paths.state().to_string_lossy().into_owned(),
        )],
    };
    // The guest's memory is a file, which must be in memory.
    let mut argv = vec!["env".to_owned(), "TMPDIR=/dev/shm".to_owned()];
    argv.extend(machine.argv());
    let log = node.paths.node(&node.spec.name).join("log/console.log");
    node.sandbox.spawn(None, &log, &argv)
}

/// Stops the kernel itself: no program of the guest gets anything from it any more, and nothing
/// on the wire is acknowledged.
pub(crate) fn freeze(pid: i32) {
    process::signal(pid, Signal::STOP);
}

/// Lets it go on.
pub(crate) fn thaw(pid: i32) {
    process::signal(pid, Signal::CONT);
}

/// A program on the guest, by its agent.
pub(crate) fn command(node: &Node<'_>, argv: &[&str]) -> Command {
    let mut command = node.sandbox.net_command("bash");
    command
        .arg(node.paths.bin().join("guest-exec"))
        .arg(node.spec.ip())
        .arg(node.paths.node(&node.spec.name).join("exec"))
        .args(argv);
    command
}

/// The guest's disk, which keeps its data when the power goes.
fn disk(node: &Node<'_>) -> Result<PathBuf> {
    let file = node.paths.node(&node.spec.name).join("disk.img");
    if !file.exists() {
        let unfinished = file.with_extension("new");
        fs::File::create(&unfinished)?.set_len(DISK_SIZE)?;
        process::run(Command::new("mkfs.ext4").arg("-q").arg(&unfinished))
            .context("cannot make the guest's disk")?;
        fs::rename(&unfinished, &file)?;
    }
    Ok(file)
}
