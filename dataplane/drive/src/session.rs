//! Whether what was written to a medium can have been lost since, and what it does to a block
//! when the power goes. Read from the kernel.

use crate::store::{Breakage, Opening};
use std::fs;
use std::os::linux::fs::MetadataExt;
use std::path::Path;
use uuid::Uuid;
use weft_block::BLOCK;

/// Name space of session identifiers.
const SPACE: Uuid = Uuid::from_u128(0x7d0c1f60_6b1e_4a53_9c58_776566747365);

/// How to open what is on this file or device. What cannot be read proves nothing.
pub fn opening(path: &Path) -> Opening {
    Opening {
        session: session(path).unwrap_or_default(),
        atomic: is_atomic(path).unwrap_or(false),
        breakage: Breakage::default(),
    }
}

/// The boot of the kernel, and the device: another number for each time that it was attached.
fn session(path: &Path) -> Option<Uuid> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let found = fs::metadata(path).ok()?;
    let device = match found.st_rdev() {
        0 => format!("file {} {}", found.st_dev(), found.st_ino()),
        number => {
            let sequence = fs::read_to_string(in_sysfs(number, "diskseq")).ok()?;
            format!("device {number} {}", sequence.trim())
        }
    };
    let name = format!("{} {device}", boot.trim());
    Some(Uuid::new_v5(&SPACE, name.as_bytes()))
}

/// Only a device that says so keeps blocks whole; a file system under a file promises nothing.
fn is_atomic(path: &Path) -> Option<bool> {
    let number = fs::metadata(path).ok()?.st_rdev();
    let unit = fs::read_to_string(in_sysfs(number, "queue/atomic_write_max_bytes")).ok()?;
    let unit: u64 = unit.trim().parse().ok()?;
    Some(number != 0 && unit >= BLOCK)
}

fn in_sysfs(device: u64, file: &str) -> String {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("/sys/dev/block/{major}:{minor}/{file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_session_in_one_boot_and_another_file_another() {
        let (a, b) = (
            tempfile::NamedTempFile::new().unwrap(),
            tempfile::NamedTempFile::new().unwrap(),
        );
        let first = opening(a.path());
        assert!(!first.session.is_nil() && !first.atomic);
        assert_eq!(first.session, opening(a.path()).session);
        assert_ne!(first.session, opening(b.path()).session);
        assert!(opening(Path::new("/none")).session.is_nil());
    }
}
