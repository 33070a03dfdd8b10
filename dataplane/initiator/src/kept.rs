//! What a worker leaves to the next one: the newest path and the size of the volume.
//!
//! It lies in a memory file whose descriptor PID 1 holds beside `/dev/fuse`, so it lives exactly
//! as long as the mount. One write of one page replaces it; a killed worker leaves the old or the
//! new one. The size matters most: a volume that seemed empty for an instant after a restart
//! would have its reads cut short by the kernel.

use rustix::fd::OwnedFd;
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use weft_spec::initiator::VolumePath;

/// One page, filled up with spaces.
const LENGTH: usize = 4096;

/// The state that outlives a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Where the volume is; of the greatest term heard.
    pub path: VolumePath,
    /// Greatest size seen; 0 before the first association.
    pub size: u64,
}

/// The memory file.
#[derive(Debug)]
pub struct Keeper(OwnedFd);

impl Keeper {
    /// A new, empty one.
    pub fn create() -> Result<Self, Errno> {
        rustix::fs::memfd_create("weft-initiator", MemfdFlags::CLOEXEC).map(Self)
    }

    /// One made by PID 1.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The descriptor, to hand over.
    pub fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// What an earlier worker kept.
    pub fn load(&self) -> Option<Kept> {
        let mut page = [0u8; LENGTH];
        let length = rustix::io::pread(&self.0, &mut page, 0).ok()?;
        serde_json::from_slice(page.get(..length)?).ok()
    }

    /// Replaces it.
    pub fn store(&self, kept: &Kept) -> std::io::Result<()> {
        let mut page = serde_json::to_vec(kept)?;
        page.resize(LENGTH, b' ');
        rustix::io::pwrite(&self.0, &page, 0)?;
        Ok(())
    }
}

/// Where to begin: what was kept, unless the document is of a newer term.
pub fn begin(document: VolumePath, kept: Option<Kept>) -> Kept {
    match kept {
        None => Kept {
            path: document,
            size: 0,
        },
        Some(kept) if document.term > kept.path.term => Kept {
            path: document,
            ..kept
        },
        Some(kept) => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_spec::ids::Term;

    fn path(term: u64) -> VolumePath {
        VolumePath {
            term: Term(term),
            address: "127.0.0.1:4420".parse().unwrap(),
        }
    }

    #[test]
    fn the_newest_of_several_stores_is_loaded() {
        let keeper = Keeper::create().unwrap();
        assert_eq!(keeper.load(), None);
        let long = Kept {
            path: path(u64::MAX),
            size: u64::MAX,
        };
        keeper.store(&long).unwrap();
        let short = Kept {
            path: path(1),
            size: 0,
        };
        keeper.store(&short).unwrap();
        assert_eq!(keeper.load(), Some(short));
    }

    #[test]
    fn a_document_that_a_secret_mount_shows_late_does_not_undo_a_switch() {
        let kept = Kept {
            path: path(5),
            size: 4096,
        };
        assert_eq!(begin(path(4), Some(kept)), kept);
        assert_eq!(begin(path(5), Some(kept)), kept);
        assert_eq!(
            begin(path(6), Some(kept)),
            Kept {
                path: path(6),
                size: 4096
            }
        );
        assert_eq!(begin(path(4), None).size, 0);
    }
}
