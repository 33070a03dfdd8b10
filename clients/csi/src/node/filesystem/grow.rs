//! Growing a file system that is mounted, and telling whether one is smaller than its device.

use super::{FsError, FsType, run};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const RESIZE2FS: &str = "/sbin/resize2fs";
const XFS_GROWFS: &str = "/usr/sbin/xfs_growfs";

/// What is read of a device to see its superblock: one block of the largest kind.
const HEAD: usize = 4096;
/// Feature bit of an ext4 whose block numbers have 64 bits.
const EXT4_INCOMPAT_64BIT: u32 = 0x80;

/// Bytes that the file system in these first bytes of a device was made for.
fn extent(head: &[u8], fs: FsType) -> Option<u64> {
    let bytes = |at: usize, length: usize| head.get(at..at + length);
    let little = |at| bytes(at, 4).and_then(|b| Some(u32::from_le_bytes(b.try_into().ok()?)));
    match fs {
        // s_blocks_count_lo, s_log_block_size, s_feature_incompat, s_blocks_count_hi
        // (ext4 on-disk layout, "Super Block").
        FsType::Ext4 => {
            let large = little(1024 + 0x60)? & EXT4_INCOMPAT_64BIT != 0;
            let high = if large { little(1024 + 0x150)? } else { 0 };
            let blocks = (u64::from(high) << 32) | u64::from(little(1024 + 4)?);
            blocks.checked_mul(1024u64.checked_shl(little(1024 + 24)?)?)
        }
        // sb_blocksize, sb_dblocks ("XFS Algorithms & Data Structures", Superblocks).
        FsType::Xfs => {
            let block = u32::from_be_bytes(bytes(4, 4)?.try_into().ok()?);
            let blocks = u64::from_be_bytes(bytes(8, 8)?.try_into().ok()?);
            blocks.checked_mul(block.into())
        }
    }
}

/// Whether the file system on a device of `size` bytes was made for fewer.
pub fn is_smaller(device: &Path, fs: FsType, size: u64) -> Result<bool, FsError> {
    let mut head = vec![0u8; HEAD];
    let mut read = || File::open(device)?.read_exact_at(&mut head, 0);
    read().map_err(|source| FsError::Read {
        device: device.display().to_string(),
        source,
    })?;
    Ok(extent(&head, fs).is_some_and(|extent| extent < size))
}

/// Grows a mounted file system to the size of its device; one that fills it stays as it is.
pub fn grow(device: &Path, mounted: &Path, fs: FsType) -> Result<(), FsError> {
    match fs {
        FsType::Ext4 => run(RESIZE2FS, &[], device, |code| code == 0),
        FsType::Xfs => run(XFS_GROWFS, &["-d"], mounted, |code| code == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_tells_what_its_file_system_was_made_for() {
        let mut ext4 = vec![0u8; 4096];
        ext4[1024 + 4..][..4].copy_from_slice(&5u32.to_le_bytes());
        ext4[1024 + 24..][..4].copy_from_slice(&2u32.to_le_bytes());
        ext4[1024 + 0x150..][..4].copy_from_slice(&1u32.to_le_bytes());
        assert_eq!(extent(&ext4, FsType::Ext4), Some(5 * 4096));
        ext4[1024 + 0x60] = 0x80;
        assert_eq!(extent(&ext4, FsType::Ext4), Some((5 << 12) + (4096 << 32)));
        let mut xfs = vec![0u8; 4096];
        xfs[4..8].copy_from_slice(&4096u32.to_be_bytes());
        xfs[8..16].copy_from_slice(&7u64.to_be_bytes());
        assert_eq!(extent(&xfs, FsType::Xfs), Some(7 * 4096));
        assert_eq!(extent(&xfs[..10], FsType::Xfs), None);
    }
}
