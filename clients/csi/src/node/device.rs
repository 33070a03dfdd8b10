//! Which block device is staged where, read from the kernel alone.
//!
//! A staged file system is mounted at the staging path itself; a staged raw block volume is
//! its device node mounted on the file `device` below that path. So the mount table says
//! what is staged, and a restarted plugin knows all that the one before knew.

use super::mount::{self, DeviceNumber, Entry};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Name of the file below a staging path that a raw block device is mounted on.
const BLOCK: &str = "device";

/// A block device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its number.
    pub number: DeviceNumber,
    /// Its name: `loop3`, `nvme0n1`.
    pub name: String,
}

impl Device {
    /// By its number.
    pub fn of(sys: &Path, number: DeviceNumber) -> Option<Self> {
        let link = std::fs::read_link(sys.join(format!("dev/block/{number}"))).ok()?;
        Some(Self {
            number,
            name: link.file_name()?.to_str()?.to_owned(),
        })
    }

    /// By a device node, or a mount of one.
    pub fn at(sys: &Path, node: &Path) -> Option<Self> {
        let meta = std::fs::metadata(node).ok()?;
        let number = DeviceNumber::from_raw(meta.rdev());
        meta.file_type()
            .is_block_device()
            .then(|| Self::of(sys, number))?
    }

    /// The device node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Whether a mount shows this device: its file system, or its node.
    fn is_shown_by(&self, entry: &Entry) -> bool {
        let node = entry.fs_type == "devtmpfs" || entry.fs_type == "tmpfs";
        entry.device == self.number
            || (node
                && entry
                    .root
                    .file_name()
                    .is_some_and(|name| name == self.name.as_str()))
    }

    /// Every path where it is mounted.
    pub fn users<'a>(&'a self, table: &'a [Entry]) -> impl Iterator<Item = &'a Entry> {
        table.iter().filter(|entry| self.is_shown_by(entry))
    }
}

/// Where a raw block volume is kept below its staging path.
pub fn block_path(staging: &Path) -> PathBuf {
    staging.join(BLOCK)
}

/// The device staged at a path, if there is one.
pub fn staged(sys: &Path, table: &[Entry], staging: &Path) -> Option<Device> {
    match mount::at(table, staging) {
        Some(entry) => Device::of(sys, entry.device),
        None => {
            let block = block_path(staging);
            mount::at(table, &block).and_then(|_| Device::at(sys, &block))
        }
    }
}

/// The device that a published path shows, whether as a file system or as a device node.
pub fn published(sys: &Path, table: &[Entry], target: &Path) -> Option<Device> {
    let entry = mount::at(table, target)?;
    // Never looked at when it is a file system: a dead one may not answer.
    Device::of(sys, entry.device).or_else(|| Device::at(sys, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(device: DeviceNumber, root: &str, fs_type: &str) -> Entry {
        let (root, target) = (root.into(), "/t".into());
        Entry {
            device,
            root,
            target,
            read_only: false,
            fs_type: fs_type.to_owned(),
        }
    }

    #[test]
    fn a_device_is_in_use_by_its_file_system_and_by_its_node() {
        let number = DeviceNumber { major: 7, minor: 3 };
        let other = DeviceNumber { major: 0, minor: 5 };
        let device = Device {
            number,
            name: "loop3".to_owned(),
        };
        let table = [
            (entry(number, "/", "ext4"), true),
            (entry(other, "/loop3", "devtmpfs"), true),
            (entry(other, "/loop4", "devtmpfs"), false),
            (entry(other, "/loop3", "ext4"), false),
        ];
        for (entry, shown) in table {
            assert_eq!(device.is_shown_by(&entry), shown, "{entry:?}");
        }
    }
}
