//! Loop devices: how the file of a user-space initiator becomes a block device.
//!
//! Nothing about them is remembered: a loop device carries its [`Tag`] in `lo_file_name`, so
//! a restarted plugin finds its own again and never takes one that is not its own. The tag
//! names the node too, since nodes in containers of one machine share its loop devices.
//!
//! Reading `lo_file_name` makes the kernel ask the file behind for its attributes, and the
//! process that should answer may be dead or frozen, on another node even. So a hash of the
//! tag stands in `lo_sizelimit` as well, far above any size and therefore without effect:
//! sysfs shows it without asking anyone, and only devices with the right one are looked at.

use super::ioctl;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};
use uuid::Uuid;

const CONTROL: &str = "/dev/loop-control";
/// Logical block size of every Weft volume.
const BLOCK_SIZE: u32 = 4096;
/// How long others may have a device open that was just let go, such as udev.
const LINGER: Duration = Duration::from_secs(2);
/// Others may take the device that was free a moment ago; so many times in a row is odd.
const ATTEMPTS: u32 = 64;
/// Name space for the short hashes in a tag (UUIDv5).
const TAG_SPACE: Uuid = Uuid::from_u128(0x7d0c_1f60_6b1e_4a53_9c58_7765_6674_6c70);

/// What went wrong with a loop device.
#[derive(Debug, thiserror::Error)]
pub enum LoopError {
    /// A file or device could not be opened.
    #[error("cannot open {path}: {source}")]
    Open {
        /// Which.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("loop device {device} for {file}: {source}")]
    Request {
        /// The loop device.
        device: String,
        /// The file behind it, or its tag.
        file: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The file does not take direct I/O.
    #[error(
        "{file} does not take direct I/O, without which a volume would be cached twice and \
         could hang when memory is short"
    )]
    NotDirect {
        /// The file.
        file: String,
    },
    /// Every free device was taken by someone else.
    #[error("no loop device could be had in {ATTEMPTS} attempts: too many are in use on the node")]
    Crowded,
    /// It holds a device that is in use.
    #[error("loop device {0} is still in use; a process on the node has it open")]
    InUse(String),
    /// Its tag is another volume's.
    #[error("loop device {device} belongs to {tag}, not to this volume; it is left alone")]
    Foreign {
        /// The loop device.
        device: String,
        /// What it calls itself.
        tag: String,
    },
}

/// What identifies a loop device as Weft's: a volume on a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tag(String);

impl Tag {
    /// The tag of a volume of this name and uid on a node: 55 of the 63 bytes there are.
    pub fn new(node: &str, volume: &str, uid: Uuid) -> Self {
        Self(format!("{}{}", Self::prefix(node, volume), uid.simple()))
    }

    /// What the tags of all volumes of this name on this node begin with: enough to find
    /// them when the Volume object is gone and nobody can tell the uid.
    fn prefix(node: &str, volume: &str) -> String {
        format!("weft:{}:{}:", short(node), short(volume))
    }

    /// The prefix as a size limit: 62 bits of its hash, above 4 EiB.
    fn mark(node: &str, volume: &str) -> u64 {
        let hash = Uuid::new_v5(&TAG_SPACE, Self::prefix(node, volume).as_bytes());
        (1 << 62) | (hash.as_u64_pair().0 >> 2)
    }
}

fn short(name: &str) -> String {
    let hash = Uuid::new_v5(&TAG_SPACE, name.as_bytes())
        .simple()
        .to_string();
    hash.split_at(8).0.to_owned()
}

/// A loop device of Weft's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loop {
    /// Name of the device, `loop3`.
    pub name: String,
    tag: String,
}

impl Loop {
    /// The device node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Whether it is the device of exactly this volume.
    pub fn has(&self, tag: &Tag) -> bool {
        self.tag == tag.0
    }

    /// Lets the device be as large as the file behind it is now. To read the device's status
    /// makes the kernel ask the file for its attributes, and only then it knows a new size.
    pub fn follow_size(&self) -> Result<(), LoopError> {
        let failed = |errno| request(&self.name, &self.tag, errno);
        let device = open(&self.path(), false, 0)?;
        let status = ioctl::status(&device).map_err(failed)?;
        if status.name != self.tag {
            return Err(LoopError::Foreign {
                device: self.name.clone(),
                tag: status.name,
            });
        }
        ioctl::set_capacity(&device).map_err(failed)
    }

    /// Lets go of the file. The tag is looked at once more on the very descriptor, so that a
    /// device which changed hands in between is left alone.
    pub fn detach(&self) -> Result<(), LoopError> {
        let device = match open(&self.path(), false, 0) {
            Ok(device) => device,
            Err(LoopError::Open { source, .. }) if is_gone(&source) => return Ok(()),
            Err(error) => return Err(error),
        };
        match ioctl::status(&device) {
            Ok(status) if status.name == self.tag => {}
            Ok(status) => {
                return Err(LoopError::Foreign {
                    device: self.name.clone(),
                    tag: status.name,
                });
            }
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            // The file behind is dead and cannot be asked; the size limit has spoken.
            Err(_) => {}
        }
        ioctl::clear(&device).map_err(|errno| request(&self.name, &self.tag, errno))?;
        drop(device);
        self.wait_until_free()
    }

    /// While others have it open the kernel frees it only later, and until then the
    /// initiator behind must not be told that it may go.
    fn wait_until_free(&self) -> Result<(), LoopError> {
        let end = Instant::now() + LINGER;
        while Path::new("/sys/block")
            .join(&self.name)
            .join("loop")
            .exists()
        {
            if Instant::now() > end {
                return Err(LoopError::InUse(self.name.clone()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

/// The loop devices of volumes of this name on this node.
pub fn find(node: &str, volume: &str) -> Vec<Loop> {
    let mark = Tag::mark(node, volume).to_string();
    let block = fs::read_dir("/sys/block").into_iter().flatten().flatten();
    block
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let limit = fs::read_to_string(entry.path().join("loop/sizelimit")).ok()?;
            (limit.trim() == mark).then(|| read(name, node, volume))
        })
        .collect()
}

/// The device with its tag, or with only the beginning of one if the file behind is dead.
fn read(name: String, node: &str, volume: &str) -> Loop {
    let tag = open(&Path::new("/dev").join(&name), false, 0)
        .ok()
        .and_then(|device| ioctl::status(device).ok())
        .map_or_else(|| Tag::prefix(node, volume), |status| status.name);
    Loop { name, tag }
}

/// Which volume a loop device is for.
#[derive(Clone, Copy, Debug)]
pub struct Owner<'a> {
    /// This node's name.
    pub node: &'a str,
    /// Name of the volume.
    pub volume: &'a str,
    /// Uid of the volume.
    pub uid: Uuid,
}

impl Owner<'_> {
    /// What its loop device carries.
    pub fn tag(&self) -> Tag {
        Tag::new(self.node, self.volume, self.uid)
    }
}

/// Binds `file` to a free loop device with direct I/O and 4096-byte blocks.
pub fn attach(file: &Path, owner: Owner<'_>, read_only: bool) -> Result<Loop, LoopError> {
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let backing = match open(file, !read_only, direct) {
        Err(LoopError::Open { source, .. }) if source.kind() == io::ErrorKind::InvalidInput => {
            return Err(LoopError::NotDirect {
                file: file.display().to_string(),
            });
        }
        other => other?,
    };
    let control = open(Path::new(CONTROL), true, 0)?;
    let shown = file.display().to_string();
    let (tag, size_limit) = (owner.tag(), Tag::mark(owner.node, owner.volume));
    for _ in 0..ATTEMPTS {
        let number = ioctl::get_free(&control).map_err(|errno| request(CONTROL, &shown, errno))?;
        let device = Loop {
            name: format!("loop{number}"),
            tag: tag.0.clone(),
        };
        let opened = match open(&device.path(), !read_only, 0) {
            Ok(opened) => opened,
            // Its node in /dev is made a moment after the device, by the kernel itself.
            Err(LoopError::Open { source, .. }) if is_gone(&source) => continue,
            Err(error) => return Err(error),
        };
        let flags = ioctl::LO_FLAGS_DIRECT_IO
            | if read_only {
                ioctl::LO_FLAGS_READ_ONLY
            } else {
                0
            };
        let setup = ioctl::Setup {
            file: backing.as_fd(),
            block_size: BLOCK_SIZE,
            name: &device.tag,
            size_limit,
            flags,
        };
        match ioctl::configure(&opened, &setup) {
            Ok(()) => return proven(device, &opened, &shown),
            Err(rustix::io::Errno::BUSY) => continue,
            Err(errno) => return Err(request(&device.name, &shown, errno)),
        }
    }
    Err(LoopError::Crowded)
}

/// The kernel silently leaves direct I/O out where the file cannot do it.
fn proven(device: Loop, opened: &File, file: &str) -> Result<Loop, LoopError> {
    let status = ioctl::status(opened).map_err(|errno| request(&device.name, file, errno))?;
    if status.flags & ioctl::LO_FLAGS_DIRECT_IO == 0 {
        ioctl::clear(opened).map_err(|errno| request(&device.name, file, errno))?;
        return Err(LoopError::NotDirect {
            file: file.to_owned(),
        });
    }
    Ok(device)
}

fn request(device: &str, file: &str, errno: rustix::io::Errno) -> LoopError {
    LoopError::Request {
        device: device.to_owned(),
        file: file.to_owned(),
        source: errno.into(),
    }
}

fn open(path: &Path, write: bool, flags: i32) -> Result<File, LoopError> {
    OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(flags)
        .open(path)
        .map_err(|source| LoopError::Open {
            path: path.display().to_string(),
            source,
        })
}

fn is_gone(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NXIO | rustix::io::Errno::NODEV)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_fits_and_tells_node_volume_and_uid_apart() {
        let uid = Uuid::from_u128(7);
        let tag = Tag::new("n1", "db-0", uid);
        assert!(tag.0.len() < ioctl::NAME_LENGTH);
        assert!(tag.0.starts_with(&Tag::prefix("n1", "db-0")));
        let mark = Tag::mark("n1", "db-0");
        assert!(mark >= 1 << 62 && i64::try_from(mark).is_ok());
        assert_ne!(mark, Tag::mark("n2", "db-0"));
        let others = [
            Tag::new("n2", "db-0", uid),
            Tag::new("n1", "db-1", uid),
            Tag::new("n1", "db-0", Uuid::from_u128(8)),
        ];
        for other in others {
            assert_ne!(tag, other);
        }
    }
}
