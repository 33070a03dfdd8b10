//! File systems on a volume: what is on it, making one, checking one.
//!
//! The rule that matters: **only a device that reads as zeros is ever formatted.** What is on
//! a device is found out by a few magic numbers read here; a read that fails is an error and
//! never "blank".

mod grow;

pub use grow::{grow, is_smaller};

use super::mount::DeviceNumber;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// What is read at each end of a device to call it blank.
const PROBE: usize = 1 << 20;
/// mkfs.xfs refuses anything smaller.
const XFS_SMALLEST: u64 = 300 << 20;

const MKFS_EXT4: &str = "/sbin/mkfs.ext4";
const E2FSCK: &str = "/sbin/e2fsck";
const MKFS_XFS: &str = "/sbin/mkfs.xfs";

/// What went wrong with a file system.
#[derive(Debug, thiserror::Error)]
pub enum FsError {
    /// The device could not be read.
    #[error("cannot read {device}: {source}")]
    Read {
        /// The device.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The device holds something else.
    #[error(
        "the volume holds {found}, and {wanted} was asked for; it is not formatted over. Use a \
         PersistentVolume with the right fsType, or erase the volume yourself if nothing on it \
         is needed"
    )]
    Occupied {
        /// What is there.
        found: String,
        /// What was to be mounted.
        wanted: FsType,
    },
    /// A read-only volume without a file system.
    #[error(
        "the volume is blank and attached read-only: it has to be written once before it can be read"
    )]
    BlankReadOnly,
    /// Too small for what was asked for.
    #[error(
        "a volume of {size} bytes is too small for xfs, which needs 300 MiB: use ext4 or a larger volume"
    )]
    TooSmall {
        /// Its size.
        size: u64,
    },
    /// A tool could not be started.
    #[error("cannot run {tool}: {source}; the node plugin's image has to carry it")]
    Start {
        /// Its path.
        tool: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A tool failed.
    #[error("{tool} on {device} ended with {status}: {output}")]
    Tool {
        /// Its path.
        tool: &'static str,
        /// The device.
        device: String,
        /// How it ended.
        status: String,
        /// What it printed, shortened.
        output: String,
    },
}

/// The file systems that Weft makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FsType {
    /// ext4, also when none is named.
    Ext4,
    /// XFS.
    Xfs,
}

impl FsType {
    /// From a CSI `fs_type`; empty is ext4.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" | "ext4" => Some(Self::Ext4),
            "xfs" => Some(Self::Xfs),
            _ => None,
        }
    }

    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    /// Mount options with which the journal is not replayed, for a device without writes.
    pub fn read_only_options(self) -> [&'static str; 2] {
        match self {
            Self::Ext4 => ["ro", "noload"],
            Self::Xfs => ["ro", "norecovery"],
        }
    }
}

impl std::fmt::Display for FsType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What is on a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// Zeros at both ends.
    Blank,
    /// A file system.
    Fs(FsType),
    /// An XFS whose making was interrupted: it holds nothing yet.
    Unfinished,
    /// Anything else, by name where it is known.
    Foreign(String),
}

/// Finds out what is on a device of `size` bytes.
pub fn probe(device: &impl FileExt, size: u64) -> io::Result<Content> {
    let length = usize::try_from(size).map_or(PROBE, |size| size.min(PROBE));
    let mut head = vec![0u8; length];
    device.read_exact_at(&mut head, 0)?;
    if let Some(known) = signature(&head) {
        return Ok(known);
    }
    let mut tail = vec![0u8; length];
    device.read_exact_at(&mut tail, size.saturating_sub(length as u64))?;
    Ok(match head.iter().chain(&tail).all(|byte| *byte == 0) {
        true => Content::Blank,
        false => Content::Foreign("data of an unknown kind".to_owned()),
    })
}

/// Magic numbers by their place (byte offset), most telling first.
fn signature(head: &[u8]) -> Option<Content> {
    let has = |offset: usize, magic: &[u8]| {
        head.get(offset..)
            .is_some_and(|rest| rest.starts_with(magic))
    };
    if has(0, b"XFSB") {
        // sb_inprogress, set by mkfs.xfs until it has written everything.
        let unfinished = head.get(126).is_some_and(|byte| *byte != 0);
        return Some(if unfinished {
            Content::Unfinished
        } else {
            Content::Fs(FsType::Xfs)
        });
    }
    if has(1024 + 56, &[0x53, 0xEF]) {
        return Some(Content::Fs(FsType::Ext4));
    }
    let known: [(usize, &[u8], &str); 6] = [
        (0, b"LUKS\xBA\xBE", "an encrypted LUKS device"),
        (0x10040, b"_BHRfS_M", "a btrfs file system"),
        (4086, b"SWAPSPACE2", "swap space"),
        (512, b"LABELONE", "an LVM physical volume"),
        (512, b"EFI PART", "a partition table"),
        (510, &[0x55, 0xAA], "a partition table or a boot sector"),
    ];
    known
        .iter()
        .find(|(offset, magic, _)| has(*offset, magic))
        .map(|(_, _, name)| Content::Foreign((*name).to_owned()))
}

/// What has to be done before a device can be mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Preparation {
    /// Make the file system.
    Format,
    /// Check the file system that is there.
    Check,
    /// Nothing.
    None,
}

/// Decides what to do with what was found. `interrupted` says that this node began to format
/// this very volume and did not get to the end.
pub fn prepare(
    found: Content,
    wanted: FsType,
    size: u64,
    read_only: bool,
    interrupted: bool,
) -> Result<Preparation, FsError> {
    let blank = match found {
        Content::Fs(fs) if fs == wanted => {
            let check = fs == FsType::Ext4 && !read_only;
            return Ok(if check {
                Preparation::Check
            } else {
                Preparation::None
            });
        }
        Content::Blank | Content::Unfinished => true,
        Content::Foreign(_) => interrupted,
        Content::Fs(_) => false,
    };
    match (blank, wanted) {
        (false, _) => Err(FsError::Occupied {
            found: describe(&found),
            wanted,
        }),
        (true, _) if read_only => Err(FsError::BlankReadOnly),
        (true, FsType::Xfs) if size < XFS_SMALLEST => Err(FsError::TooSmall { size }),
        (true, _) => Ok(Preparation::Format),
    }
}

fn describe(content: &Content) -> String {
    match content {
        Content::Blank => "nothing".to_owned(),
        Content::Unfinished => "a half-made xfs".to_owned(),
        Content::Fs(fs) => format!("an {fs} file system"),
        Content::Foreign(what) => what.clone(),
    }
}

/// Finds out what is on a device node.
pub fn probe_device(device: &Path, size: u64) -> Result<Content, FsError> {
    let read = || probe(&File::open(device)?, size);
    read().map_err(|source| FsError::Read {
        device: device.display().to_string(),
        source,
    })
}

/// Makes a file system on a device that [`prepare`] found good for it.
pub fn format(device: &Path, fs: FsType) -> Result<(), FsError> {
    // A volume is thin and reads as zeros, so nothing needs to be discarded or zeroed; -F and
    // -f keep the tools from asking, the decision was made above.
    let (tool, arguments): (_, &[&str]) = match fs {
        FsType::Ext4 => (
            MKFS_EXT4,
            &["-q", "-F", "-m", "0", "-E", "nodiscard,lazy_itable_init=1"],
        ),
        FsType::Xfs => (MKFS_XFS, &["-q", "-f", "-K"]),
    };
    run(tool, arguments, device, |code| code == 0)
}

/// Replays the journal and repairs what can be repaired without a question.
pub fn check(device: &Path) -> Result<(), FsError> {
    // e2fsck(8): 1 and 2 mean that errors were corrected.
    run(E2FSCK, &["-p"], device, |code| code & !3 == 0)
}

fn run(
    tool: &'static str,
    arguments: &[&str],
    device: &Path,
    good: impl Fn(i32) -> bool,
) -> Result<(), FsError> {
    let output = Command::new(tool)
        .args(arguments)
        .arg(device)
        .env_clear()
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FsError::Start { tool, source })?;
    if output.status.code().is_some_and(good) {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(FsError::Tool {
        tool,
        device: device.display().to_string(),
        status: output.status.to_string(),
        output: shorten(&String::from_utf8_lossy(&said)),
    })
}

/// One line of at most 300 characters: it is shown in an Event.
fn shorten(text: &str) -> String {
    let mut words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = words.char_indices().nth(300) {
        words.truncate(end);
        words.push_str(" ...");
    }
    words
}

/// Whether the device answers a read that no cache can answer.
pub fn is_alive(device: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let direct = rustix::fs::OFlags::DIRECT.bits().cast_signed();
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(direct)
        .open(device)?;
    // Direct I/O wants aligned memory: a block-aligned part of twice the room is one.
    let mut room = vec![0u8; 2 * 4096];
    let skip = room.as_ptr().align_offset(4096);
    match room.get_mut(skip..skip + 4096) {
        Some(block) => file.read_exact_at(block, 0),
        None => Err(io::Error::other("no aligned memory")),
    }
}

/// Bytes of a block device.
pub fn size(sys: &Path, device: DeviceNumber) -> io::Result<u64> {
    let text = std::fs::read_to_string(sys.join(format!("dev/block/{device}/size")))?;
    let sectors: u64 = text.trim().parse().map_err(io::Error::other)?;
    Ok(sectors * 512)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(size: usize, marks: &[(usize, &[u8])]) -> Content {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size as u64).unwrap();
        for (offset, bytes) in marks {
            file.write_all_at(bytes, *offset as u64).unwrap();
        }
        probe(&file, size as u64).unwrap()
    }

    #[test]
    fn only_zeros_at_both_ends_are_blank() {
        let size = 8 << 20;
        assert_eq!(image(size, &[]), Content::Blank);
        for mark in [0, PROBE - 1, size - PROBE, size - 1] {
            assert!(
                matches!(image(size, &[(mark, b"x")]), Content::Foreign(_)),
                "{mark}"
            );
        }
        assert_eq!(image(4096, &[]), Content::Blank);
    }

    #[test]
    fn what_is_on_a_device_is_told_by_its_magic() {
        let size = 4 << 20;
        assert_eq!(
            image(size, &[(1080, &[0x53, 0xEF])]),
            Content::Fs(FsType::Ext4)
        );
        assert_eq!(image(size, &[(0, b"XFSB")]), Content::Fs(FsType::Xfs));
        assert_eq!(
            image(size, &[(0, b"XFSB"), (126, &[1])]),
            Content::Unfinished
        );
        for (offset, magic) in [(0, &b"LUKS\xBA\xBE"[..]), (510, &[0x55, 0xAA])] {
            assert!(matches!(
                image(size, &[(offset, magic)]),
                Content::Foreign(_)
            ));
        }
    }

    #[test]
    fn a_device_that_cannot_be_read_is_not_blank() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(probe(&file, 8192).is_err());
    }

    #[test]
    fn what_is_done_depends_on_what_is_there() {
        use Content::*;
        let foreign = || Foreign("x".to_owned());
        let gib = 1 << 30;
        let table = [
            (
                Blank,
                FsType::Ext4,
                gib,
                false,
                false,
                Some(Preparation::Format),
            ),
            (Blank, FsType::Ext4, gib, true, false, None),
            (Blank, FsType::Xfs, 64 << 20, false, false, None),
            (
                Unfinished,
                FsType::Xfs,
                gib,
                false,
                false,
                Some(Preparation::Format),
            ),
            (
                Fs(FsType::Ext4),
                FsType::Ext4,
                gib,
                false,
                false,
                Some(Preparation::Check),
            ),
            (
                Fs(FsType::Ext4),
                FsType::Ext4,
                gib,
                true,
                false,
                Some(Preparation::None),
            ),
            (
                Fs(FsType::Xfs),
                FsType::Xfs,
                gib,
                false,
                false,
                Some(Preparation::None),
            ),
            (Fs(FsType::Xfs), FsType::Ext4, gib, false, true, None),
            (foreign(), FsType::Ext4, gib, false, false, None),
            (
                foreign(),
                FsType::Ext4,
                gib,
                false,
                true,
                Some(Preparation::Format),
            ),
        ];
        for (found, wanted, size, read_only, interrupted, expected) in table {
            let shown = format!("{found:?} {wanted} {size} {read_only} {interrupted}");
            let done = prepare(found, wanted, size, read_only, interrupted).ok();
            assert_eq!(done, expected, "{shown}");
        }
    }

    #[test]
    fn output_of_a_tool_fits_in_an_event() {
        assert_eq!(shorten("a\n  b\n"), "a b");
        assert!(shorten(&"ü".repeat(1000)).chars().count() <= 304);
    }
}
