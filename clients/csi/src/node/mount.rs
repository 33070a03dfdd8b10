//! The mount table, and the few mounts that the node service makes.
//!
//! Whether something is mounted is read from the kernel's table and never found out by
//! looking at the path: a mount whose device is gone answers every look with an error.

use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The mount table of this process.
const TABLE: &str = "/proc/self/mountinfo";
/// How many mounts may lie on one path before something is badly wrong.
const MOST_STACKED: usize = 32;

/// What went wrong with a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mount table cannot be read.
    #[error("cannot read the mount table: {0}")]
    Table(#[source] io::Error),
    /// The kernel refused a mount.
    #[error("mount of {what} at {target}: {source}")]
    Mount {
        /// Device or path.
        what: String,
        /// Where to.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused an unmount.
    #[error("unmount of {target}: {source}; a process on the node may still use it")]
    Unmount {
        /// Where.
        target: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A pod still uses the device.
    #[error("{device} is still mounted at {target}: it is disconnected when that is unpublished")]
    InUse {
        /// The device.
        device: String,
        /// One of its mounts.
        target: String,
    },
    /// A path could not be made or removed.
    #[error("{what} {path}: {source}")]
    Path {
        /// What was tried.
        what: &'static str,
        /// The path.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A mount option that Weft does not pass on.
    #[error("mount option {0:?} is not supported: it has a byte that no option has")]
    Option(String),
}

/// Number of a device, major and minor.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl DeviceNumber {
    /// From `st_dev` or `st_rdev`.
    pub fn from_raw(raw: u64) -> Self {
        Self {
            major: rustix::fs::major(raw),
            minor: rustix::fs::minor(raw),
        }
    }
}

impl std::fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One line of the mount table (proc_pid_mountinfo(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Device of the file system.
    pub device: DeviceNumber,
    /// What part of the file system is mounted.
    pub root: PathBuf,
    /// Where.
    pub target: PathBuf,
    /// Whether this mount (not the file system) is read-only.
    pub read_only: bool,
    /// Type of the file system.
    pub fs_type: String,
}

/// Reads the mount table as it is now.
pub fn table() -> Result<Vec<Entry>, MountError> {
    let text = fs::read_to_string(TABLE).map_err(MountError::Table)?;
    Ok(text.lines().filter_map(parse_line).collect())
}

/// The mount on top at `target`, if there is one.
pub fn at<'a>(table: &'a [Entry], target: &Path) -> Option<&'a Entry> {
    let target = resolve(target);
    table.iter().rev().find(|entry| entry.target == target)
}

fn parse_line(line: &str) -> Option<Entry> {
    let (front, back) = line.split_once(" - ")?;
    let mut fields = front.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let device = DeviceNumber {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
    };
    let (root, target) = (unescape(fields.next()?), unescape(fields.next()?));
    let read_only = fields.next()?.split(',').any(|option| option == "ro");
    let fs_type = back.split(' ').next()?.to_owned();
    Some(Entry {
        device,
        root,
        target,
        read_only,
        fs_type,
    })
}

/// Undoes the kernel's `\040` for blanks, tabs, newlines and backslashes.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// The path as the mount table names it: links in its parent resolved, its last part never
/// looked at, since that may be a dead mount.
fn resolve(path: &Path) -> PathBuf {
    match (
        path.parent()
            .and_then(|parent| fs::canonicalize(parent).ok()),
        path.file_name(),
    ) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// Mounts a file system of a device. `options` are as in fstab.
pub fn file_system(
    device: &Path,
    target: &Path,
    fs_type: &str,
    options: &[String],
) -> Result<(), MountError> {
    let (flags, data) = parse_options(options)?;
    rustix::mount::mount(device, target, fs_type, flags, data.as_c_str()).map_err(|errno| {
        MountError::Mount {
            what: format!("{} ({fs_type})", device.display()),
            target: target.display().to_string(),
            source: errno.into(),
        }
    })
}

/// Makes `target` another view of `source`.
pub fn bind(source: &Path, target: &Path, read_only: bool) -> Result<(), MountError> {
    let failed = |errno: rustix::io::Errno| MountError::Mount {
        what: source.display().to_string(),
        target: target.display().to_string(),
        source: errno.into(),
    };
    rustix::mount::mount_bind(source, target).map_err(failed)?;
    if read_only {
        // A bind mount takes flags only when it is mounted once more.
        let flags = MountFlags::BIND | MountFlags::RDONLY;
        rustix::mount::mount_remount(target, flags, c"").map_err(|errno| {
            let _ = rustix::mount::unmount(target, UnmountFlags::DETACH);
            failed(errno)
        })?;
    }
    Ok(())
}

/// Takes away whatever is mounted at `target`, also when several mounts lie on one another
/// or the device behind is gone. Nothing there is no error.
pub fn unmount(target: &Path) -> Result<(), MountError> {
    for _ in 0..MOST_STACKED {
        if at(&table()?, target).is_none() {
            return Ok(());
        }
        // Never follow a link that someone may have put there.
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Dead devices refuse to be written back to; what matters is to be rid of them.
            Err(rustix::io::Errno::IO | rustix::io::Errno::NOTCONN | rustix::io::Errno::STALE) => {
                detach(target)?;
            }
            Err(errno) => return Err(unmount_error(target, errno)),
        }
    }
    Err(unmount_error(target, rustix::io::Errno::BUSY))
}

/// Takes a mount out of the tree at once; the kernel ends it when its last user goes.
pub fn detach(target: &Path) -> Result<(), MountError> {
    rustix::mount::unmount(target, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
        .map_err(|errno| unmount_error(target, errno))
}

fn unmount_error(target: &Path, errno: rustix::io::Errno) -> MountError {
    MountError::Unmount {
        target: target.display().to_string(),
        source: errno.into(),
    }
}

/// Makes the directory that something will be mounted on.
pub fn make_directory(path: &Path) -> Result<(), MountError> {
    match fs::create_dir_all(path) {
        // A dead mount exists and is a directory, whatever it answers.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map_err(|source| path_error("cannot make directory", path, source)),
    }
}

/// Makes the file that a device will be mounted on, and its directory.
pub fn make_file(path: &Path) -> Result<(), MountError> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    match fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path)
    {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other
            .map(drop)
            .map_err(|source| path_error("cannot make file", path, source)),
    }
}

/// Removes the file or the empty directory that something was mounted on. Nothing there is
/// no error, and a directory with contents is left alone and is one.
pub fn remove(path: &Path) -> Result<(), MountError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| path_error("cannot remove", path, source)),
    }
}

fn path_error(what: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError::Path {
        what,
        path: path.display().to_string(),
        source,
    }
}

/// Splits fstab options into the kernel's flags and what the file system reads itself.
fn parse_options(options: &[String]) -> Result<(MountFlags, CString), MountError> {
    let mut flags = MountFlags::empty();
    let mut data: Vec<&str> = Vec::new();
    for option in options
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|o| !o.is_empty())
    {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "rw" => flags -= MountFlags::RDONLY,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "lazytime" => flags |= MountFlags::LAZYTIME,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            "defaults" | "suid" | "dev" | "exec" | "async" | "atime" => {}
            other => data.push(other),
        }
    }
    let data = data.join(",");
    let data = CString::new(data.as_bytes()).map_err(|_| MountError::Option(data))?;
    Ok((flags, data))
}

/// Whether the path's bytes can be handed to the kernel at all.
pub fn is_absolute(path: &str) -> bool {
    let path = Path::new(path);
    path.is_absolute()
        && !path.as_os_str().as_bytes().contains(&0)
        && path
            .components()
            .all(|part| part != std::path::Component::ParentDir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_mount_table_is_taken_apart() {
        let line = "36 35 7:3 / /var/lib/my\\040dir ro,noatime master:1 - ext4 /dev/loop3 rw";
        let entry = parse_line(line).unwrap();
        assert_eq!(entry.device, DeviceNumber { major: 7, minor: 3 });
        assert_eq!(entry.target, Path::new("/var/lib/my dir"));
        assert!(entry.read_only);
        assert_eq!(entry.fs_type, "ext4");
        assert_eq!(parse_line("nonsense"), None);
    }

    #[test]
    fn the_last_mount_on_a_path_counts() {
        let line = |id: u32| format!("{id} 1 7:{id} / /a rw - ext4 x rw");
        let table: Vec<_> = [line(1), line(2)]
            .iter()
            .filter_map(|l| parse_line(l))
            .collect();
        assert_eq!(at(&table, Path::new("/a")).unwrap().device.minor, 2);
        assert!(at(&table, Path::new("/b")).is_none());
    }

    #[test]
    fn escapes_are_undone_and_a_lonely_backslash_stays() {
        let table = [
            ("a\\134b", "a\\b"),
            ("a\\011", "a\t"),
            ("a\\", "a\\"),
            ("\\0", "\\0"),
        ];
        for (escaped, plain) in table {
            assert_eq!(unescape(escaped), Path::new(plain));
        }
    }

    #[test]
    fn options_become_flags_and_data() {
        let options = [
            "noatime,ro".to_owned(),
            "rw".to_owned(),
            "discard".to_owned(),
        ];
        let (flags, data) = parse_options(&options).unwrap();
        assert_eq!(flags, MountFlags::NOATIME);
        assert_eq!(data.to_str().unwrap(), "discard");
        assert!(parse_options(&["a\0b".to_owned()]).is_err());
    }

    #[test]
    fn a_path_must_be_absolute_and_without_a_way_up() {
        let table = [
            ("/a/b", true),
            ("a/b", false),
            ("", false),
            ("/a/../b", false),
            ("/a\0", false),
        ];
        for (path, good) in table {
            assert_eq!(is_absolute(path), good, "{path:?}");
        }
    }
}
