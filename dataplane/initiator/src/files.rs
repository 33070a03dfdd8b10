//! The directory as the kernel sees it: one root and three files, pure.

use crate::fuse::abi;
use bytes::BytesMut;
use zerocopy::IntoBytes;

/// The inodes. They are the same in every worker, so the kernel's memory of them stays right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Node {
    /// The directory.
    Root,
    /// The bytes of the volume.
    Volume,
    /// `InitiatorStatus` as JSON.
    Status,
    /// `VolumePath` as JSON; a write switches.
    Path,
}

/// Files and their names.
const FILES: [(Node, &str); 3] = [
    (Node::Volume, "volume"),
    (Node::Status, "status"),
    (Node::Path, "path"),
];

/// How long the kernel may believe in a name (seconds): names do not change.
const NAME_VALID: u64 = 3600;
/// Greatest name, as on every Linux file system.
const NAME_LENGTH: u32 = 255;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const DT_DIR: u32 = 4;
const DT_REG: u32 = 8;

impl Node {
    /// By the kernel's number.
    pub fn from_id(id: u64) -> Option<Self> {
        [Self::Root, Self::Volume, Self::Status, Self::Path]
            .into_iter()
            .find(|node| node.id() == id)
    }

    /// The kernel's number.
    pub fn id(self) -> u64 {
        match self {
            Self::Root => abi::ROOT_ID,
            Self::Volume => 2,
            Self::Status => 3,
            Self::Path => 4,
        }
    }

    /// A file of the directory.
    pub fn lookup(name: &[u8]) -> Option<Self> {
        FILES
            .iter()
            .find(|(_, known)| known.as_bytes() == name)
            .map(|(node, _)| *node)
    }

    fn mode(self) -> u32 {
        match self {
            Self::Root => S_IFDIR | 0o500,
            Self::Volume | Self::Path => S_IFREG | 0o600,
            Self::Status => S_IFREG | 0o400,
        }
    }

    fn attr(self, size: u64) -> abi::Attr {
        abi::Attr {
            ino: self.id(),
            size,
            blocks: size / 512,
            mode: self.mode(),
            nlink: if self == Self::Root { 2 } else { 1 },
            blksize: 4096,
            ..Default::default()
        }
    }

    /// Answer to a lookup.
    pub fn entry(self, size: u64) -> abi::EntryOut {
        abi::EntryOut {
            nodeid: self.id(),
            entry_valid: NAME_VALID,
            attr: self.attr(size),
            ..Default::default()
        }
    }

    /// Answer to `stat`. Never cached: the size may have grown.
    pub fn attributes(self, size: u64) -> abi::AttrOut {
        abi::AttrOut {
            attr: self.attr(size),
            ..Default::default()
        }
    }
}

/// A piece of the listing that fits in `room` bytes, beginning behind entry number `after`.
/// `volume` is not listed before its size is known.
pub fn listing(after: u64, room: usize, volume_known: bool) -> BytesMut {
    let dots = [(Node::Root, "."), (Node::Root, "..")];
    let entries = dots.into_iter().chain(FILES);
    let mut out = BytesMut::new();
    for (number, (node, name)) in (1u64..).zip(entries) {
        let hidden = node == Node::Volume && !volume_known;
        if number <= after || hidden {
            continue;
        }
        let length = (size_of::<abi::Dirent>() + name.len()).next_multiple_of(8);
        if out.len() + length > room {
            break;
        }
        let entry = abi::Dirent {
            ino: node.id(),
            off: number,
            namelen: name.len() as u32,
            kind: if node == Node::Root { DT_DIR } else { DT_REG },
        };
        let end = out.len() + length;
        out.extend_from_slice(entry.as_bytes());
        out.extend_from_slice(name.as_bytes());
        out.resize(end, 0);
    }
    out
}

/// Answer to `statfs`.
pub fn statfs(size: u64) -> abi::Kstatfs {
    abi::Kstatfs {
        blocks: size / 4096,
        files: FILES.len() as u64,
        bsize: 4096,
        frsize: 4096,
        namelen: NAME_LENGTH,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    fn names(mut listed: &[u8]) -> Vec<(String, u64)> {
        let mut names = Vec::new();
        while !listed.is_empty() {
            let (entry, rest) = abi::Dirent::read_from_prefix(listed).unwrap();
            let name = &rest[..entry.namelen as usize];
            names.push((String::from_utf8(name.to_vec()).unwrap(), entry.off));
            let length = (size_of::<abi::Dirent>() + name.len()).next_multiple_of(8);
            listed = &listed[length..];
        }
        names
    }

    #[test]
    fn a_listing_read_in_small_pieces_names_each_file_once() {
        let mut seen = Vec::new();
        let mut after = 0;
        loop {
            let piece = names(&listing(after, 64, true));
            let Some((_, last)) = piece.last() else { break };
            after = *last;
            seen.extend(piece.into_iter().map(|(name, _)| name));
        }
        assert_eq!(seen, [".", "..", "volume", "status", "path"]);
    }

    #[test]
    fn a_volume_of_unknown_size_is_not_listed() {
        let seen: Vec<_> = names(&listing(0, 4096, false))
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(seen, [".", "..", "status", "path"]);
    }

    #[test]
    fn each_inode_has_a_number_of_its_own() {
        for id in 1..=4 {
            assert_eq!(Node::from_id(id).unwrap().id(), id);
        }
        assert_eq!(Node::from_id(0), None);
        assert_eq!(Node::from_id(5), None);
    }
}
