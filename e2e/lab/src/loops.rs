//! Loop devices. They belong to the machine's kernel and outlive whoever attached them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::process;

/// The size of the block device that one node has.
const DRIVE_SIZE: u64 = 1 << 30;

/// How deep below `nodes/` a file of a node may lie to be recognized after a crash: node,
/// directory of its disk, and a few of Weft's own.
const NODE_FILE_DEPTH: u32 = 6;

/// A loop device, and the name of its file as the kernel tells it: from the root of whoever has
/// it mounted, be that a node, and cut short when that one is dead.
#[derive(Debug)]
struct Loop {
    name: String,
    file: PathBuf,
}

/// What lies behind a loop device.
#[derive(Debug, PartialEq, Eq)]
enum Backing {
    /// Device and inode number.
    File(u64, u64),
    /// A file system whose server is dead: nothing can be had from it any more.
    Dead,
    /// No answer in time: a file system whose server is frozen. It is somebody's.
    Silent,
}

/// A line of `/proc/PID/mountinfo`.
struct Mount<'a> {
    device: &'a str,
    target: &'a str,
    kind: &'a str,
}

/// The block device of the node that has one: a loop device on a file of the state directory.
pub(crate) fn block_drive(paths: &Paths) -> Result<String> {
    let file = paths.drives().join("n3.img");
    if let Some(existing) = attached()?.into_iter().find(|l| l.file == file) {
        return Ok(existing.name);
    }
    fs::create_dir_all(paths.drives())?;
    fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)?
        .set_len(DRIVE_SIZE)?;
    let device = process::run(
        Command::new("losetup")
            .args(["--direct-io=on", "--find", "--show"])
            .arg(&file),
    )
    .context("cannot attach the block device of n3")?;
    Ok(device.trim().to_owned())
}

/// Notes which loop devices were there before the lab: those are never touched.
pub(crate) fn remember(paths: &Paths) -> Result<()> {
    let file = paths.state().join("foreign-loops");
    if file.exists() {
        return Ok(());
    }
    let names: Vec<_> = attached()?.into_iter().map(|l| l.name).collect();
    fs::write(&file, names.join("\n")).context("cannot note the loop devices of the machine")
}

/// The devices whose file is one that this node sees, by the node's first process. Nothing is
/// asked of a FUSE file system, whose server may be frozen: its mount point tells enough.
pub(crate) fn of_node(paths: &Paths, init: i32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap_or_default();
    let mounts = mounts(&text);
    let own = attached()?.into_iter().filter(|device| {
        let Some(mount) = mount_of(&mounts, &device.file) else {
            return false;
        };
        if device.file.starts_with(paths.state()) {
            return false;
        }
        if mount.kind.starts_with("fuse") {
            return true;
        }
        let inside = format!("/proc/{init}/root{}", device.file.display());
        let seen = identity(Path::new(&inside));
        seen.is_some() && device.backing() == seen && identity(&device.file) != seen
    });
    Ok(own.map(|device| device.name).collect())
}

/// Detaches devices by name and waits until they are free: the kernel takes a dead node's mounts
/// away a moment after its processes. One that is gone already is no error.
pub(crate) fn detach_all(names: &[String]) -> Result<()> {
    let is_left = |device: &Loop| names.contains(&device.name);
    for device in attached()?.iter().filter(|d| is_left(d)) {
        detach(&device.name)?;
    }
    let what = format!("the kernel to free {}", names.join(" "));
    process::wait(&what, Duration::from_secs(30), || {
        Ok((!attached()?.iter().any(is_left)).then_some(()))
    })
}

/// Detaches what a dead lab left: devices on files of the state directory, under whatever name,
/// and those on a file system that died with its server and which nobody has mounted. What was
/// there before the lab is never touched.
pub(crate) fn detach_leftovers(paths: &Paths) -> Result<()> {
    let Ok(foreign) = fs::read_to_string(paths.state().join("foreign-loops")) else {
        return Ok(());
    };
    let mut files = Vec::new();
    collect(&paths.state().join("nodes"), NODE_FILE_DEPTH, &mut files);
    for device in attached()? {
        let is_own = device.file.starts_with(paths.state())
            || match device.backing() {
                Some(Backing::Dead) => !device.mounted(),
                Some(backing) => files.contains(&backing),
                None => false,
            };
        if is_own && !foreign.lines().any(|name| name == device.name) {
            detach(&device.name)?;
        }
    }
    Ok(())
}

/// The loop devices on files of the state directory.
pub(crate) fn own(paths: &Paths) -> Vec<(String, PathBuf)> {
    let all = attached().unwrap_or_default().into_iter();
    all.map(|device| (device.name, device.file))
        .filter(|(_, file)| file.starts_with(paths.state()))
        .collect()
}

/// The identity of every file below a node's own data, images and logs left out.
fn collect(dir: &Path, depth: u32, files: &mut Vec<Backing>) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_file() {
            files.extend(identity(&entry.path()));
        } else if kind.is_dir() && depth > 0 && entry.file_name() != "containerd" {
            collect(&entry.path(), depth - 1, files);
        }
    }
}

fn identity(file: &Path) -> Option<Backing> {
    let meta = fs::metadata(file).ok()?;
    Some(Backing::File(meta.dev(), meta.ino()))
}

impl Loop {
    /// What lies behind it, or nothing when it was detached meanwhile. Asked by another process,
    /// with a limit: a frozen FUSE server would hold the one who asks for ever.
    fn backing(&self) -> Option<Backing> {
        let output = process::output(
            Command::new("timeout")
                .args(["--signal=KILL", "3", "losetup", "--list", "--noheadings"])
                .args(["--output", "BACK-MAJ:MIN,BACK-INO", &self.name]),
        )
        .ok()?;
        if output.status.code().is_none_or(|code| code >= 124) {
            return Some(Backing::Silent);
        }
        parse_backing(&String::from_utf8_lossy(&output.stdout))
    }

    /// Whether any process still has it mounted.
    fn mounted(&self) -> bool {
        let name = self.name.trim_start_matches("/dev/");
        let Ok(number) = fs::read_to_string(format!("/sys/block/{name}/dev")) else {
            return false;
        };
        process::all().iter().any(|p| {
            fs::read_to_string(format!("/proc/{}/mountinfo", p.pid))
                .is_ok_and(|text| mounts(&text).iter().any(|m| m.device == number.trim()))
        })
    }
}

/// `254:0 1459736`, or blanks when the file system does not answer any more.
fn parse_backing(line: &str) -> Option<Backing> {
    if line.is_empty() {
        return None;
    }
    let fields: Vec<_> = line
        .split([':', ' ', '\n'])
        .filter(|f| !f.is_empty())
        .collect();
    let numbers: Vec<u64> = fields.iter().filter_map(|f| f.parse().ok()).collect();
    Some(match numbers.as_slice() {
        [major, minor, inode] => {
            let (major, minor) = (u32::try_from(*major).ok()?, u32::try_from(*minor).ok()?);
            Backing::File(rustix::fs::makedev(major, minor), *inode)
        }
        _ => Backing::Dead,
    })
}

/// From sysfs, which asks no file system: `losetup --list` would hang with a frozen FUSE server.
fn attached() -> Result<Vec<Loop>> {
    let entries = fs::read_dir("/sys/block").context("cannot list the block devices")?;
    Ok(entries
        .flatten()
        .filter_map(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            Some(Loop {
                name: format!("/dev/{}", entry.file_name().to_string_lossy()),
                file: PathBuf::from(file.trim_end_matches('\n')),
            })
        })
        .collect())
}

fn detach(device: &str) -> Result<()> {
    let result = process::run(Command::new("losetup").args(["-d", device]));
    // It may have been freed by itself in the meantime.
    if result.is_err() && !attached()?.iter().any(|l| l.name == device) {
        return Ok(());
    }
    result
        .with_context(|| format!("cannot detach {device}"))
        .map(drop)
}

fn mounts(mountinfo: &str) -> Vec<Mount<'_>> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, source) = line.split_once(" - ")?;
            let mut fields = mount.split(' ');
            Some(Mount {
                device: fields.nth(2)?,
                target: fields.nth(1)?,
                kind: source.split(' ').next()?,
            })
        })
        .collect()
}

/// The mount in which a path lies: the longest one, and of those the last, which lies on top.
fn mount_of<'a, 'b>(mounts: &'b [Mount<'a>], path: &Path) -> Option<&'b Mount<'a>> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(mount.target))
        .max_by_key(|mount| mount.target.len())
}

/// Stops the file systems of the node's volumes as a power cut does. Without it the death of the
/// node's mount namespace writes their dirty pages back, as a clean unmount would.
pub(crate) fn crash_file_systems(init: i32) {
    // EXT4_IOC_SHUTDOWN, which xfs has under the same number, with "do not flush the log".
    const PROGRAM: &str = "open(my $d, '<', $ARGV[0]) or die; my $how = pack('I', 2); \
        ioctl($d, 0x8004587D, $how) or die";
    let text = fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap_or_default();
    for mount in volume_mounts(&mounts(&text)) {
        // Reached from outside; a failure only makes the crash a gentler one.
        let root = format!("/proc/{init}/root{}", mount.target);
        let _ = process::run(Command::new("timeout").args(["5", "perl", "-e", PROGRAM, &root]));
    }
}

/// Mounts of ext4 and xfs on loop devices (block major 7).
fn volume_mounts<'a, 'b>(mounts: &'b [Mount<'a>]) -> Vec<&'b Mount<'a>> {
    mounts
        .iter()
        .filter(|m| m.device.starts_with("7:") && matches!(m.kind, "ext4" | "xfs"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
36 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
90 36 7:3 / /var/lib/kubelet/plugins/x/mount rw shared:9 - ext4 /dev/loop3 rw
91 36 7:4 / /var/lib/kubelet/plugins/y rw - squashfs /dev/loop4 ro
92 36 0:55 / /var/lib/weft/attachments/a rw - fuse weft rw";

    #[test]
    fn only_file_systems_on_loop_devices_are_crashed() {
        let mounts = mounts(MOUNTINFO);
        let targets: Vec<_> = volume_mounts(&mounts).iter().map(|m| m.target).collect();
        assert_eq!(targets, ["/var/lib/kubelet/plugins/x/mount"]);
    }

    #[test]
    fn a_dead_file_system_is_told_from_a_file() {
        let file = Backing::File(rustix::fs::makedev(254, 0), 1459736);
        assert_eq!(parse_backing("     254:0    1459736\n"), Some(file));
        assert_eq!(parse_backing(" \n"), Some(Backing::Dead));
        assert_eq!(parse_backing(""), None);
    }

    #[test]
    fn a_path_lies_in_the_innermost_mount() {
        let mounts = mounts(MOUNTINFO);
        let device = |path: &str| mount_of(&mounts, Path::new(path)).map(|m| m.device);
        assert_eq!(device("/var/lib/weft/attachments/a/volume"), Some("0:55"));
        assert_eq!(device("/var/lib/weft/attachments/abc"), Some("254:0"));
    }
}
