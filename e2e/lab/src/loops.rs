//! Loop devices. They belong to the machine's kernel and outlive whoever attached them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::paths::Paths;
use crate::process;

/// The size of the block device that one node has.
const DRIVE_SIZE: u64 = 1 << 30;

/// A loop device and the file behind it, as `losetup` tells.
#[derive(Debug, Deserialize)]
struct Loop {
    name: String,
    #[serde(rename = "back-ino")]
    inode: u64,
    /// Padded with spaces.
    #[serde(rename = "back-maj:min")]
    device: String,
    #[serde(rename = "back-file")]
    file: Option<PathBuf>,
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
    if let Some(existing) = attached()?.into_iter().find(|l| l.has_file(&file)) {
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
/// asked of a FUSE file system, whose server may be frozen: its device number is unique.
pub(crate) fn of_node(paths: &Paths, init: i32) -> Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{init}/mountinfo")).unwrap_or_default();
    let mounts = mounts(&text);
    let own = attached()?.into_iter().filter(|device| {
        let Some(file) = device.file.as_deref() else {
            return false;
        };
        let Some(mount) = mount_of(&mounts, file) else {
            return false;
        };
        if file.starts_with(paths.drives()) || mount.device != device.device.trim() {
            return false;
        }
        if mount.kind.starts_with("fuse") {
            return true;
        }
        let inside = format!("/proc/{init}/root{}", file.display());
        fs::metadata(inside).is_ok_and(|meta| meta.ino() == device.inode) && !device.reachable()
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

/// Detaches what a dead lab left: devices on files of the state directory, and those whose file
/// cannot be reached by its name (it was seen only inside a node) and which nobody has mounted.
pub(crate) fn detach_leftovers(paths: &Paths) -> Result<()> {
    let Ok(foreign) = fs::read_to_string(paths.state().join("foreign-loops")) else {
        return Ok(());
    };
    for device in attached()? {
        let is_foreign = foreign.lines().any(|name| name == device.name);
        let is_own = device
            .file
            .as_ref()
            .is_some_and(|file| file.starts_with(paths.state()));
        if is_own || !(is_foreign || device.reachable() || device.mounted()) {
            detach(&device.name)?;
        }
    }
    Ok(())
}

/// The loop devices on files of the state directory.
pub(crate) fn own(paths: &Paths) -> Vec<(String, PathBuf)> {
    let all = attached().unwrap_or_default().into_iter();
    all.filter_map(|device| Some((device.name, device.file?)))
        .filter(|(_, file)| file.starts_with(paths.state()))
        .collect()
}

impl Loop {
    fn has_file(&self, file: &Path) -> bool {
        self.file.as_deref() == Some(file)
    }

    /// Whether its name leads to the file from here.
    fn reachable(&self) -> bool {
        self.file
            .as_ref()
            .and_then(|file| fs::metadata(file).ok())
            .is_some_and(|meta| {
                let (major, minor) = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
                meta.ino() == self.inode && self.device.trim() == format!("{major}:{minor}")
            })
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

fn attached() -> Result<Vec<Loop>> {
    #[derive(Deserialize)]
    struct List {
        loopdevices: Vec<Loop>,
    }
    let text = process::run(Command::new("losetup").args([
        "--list",
        "--json",
        "--output",
        "NAME,BACK-INO,BACK-MAJ:MIN,BACK-FILE",
    ]))
    .context("cannot list the loop devices")?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let list: List = serde_json::from_str(&text).context("losetup answered something else")?;
    Ok(list.loopdevices)
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
    fn a_path_lies_in_the_innermost_mount() {
        let mounts = mounts(MOUNTINFO);
        let device = |path: &str| mount_of(&mounts, Path::new(path)).map(|m| m.device);
        assert_eq!(device("/var/lib/weft/attachments/a/volume"), Some("0:55"));
        assert_eq!(device("/var/lib/weft/attachments/abc"), Some("254:0"));
    }
}
