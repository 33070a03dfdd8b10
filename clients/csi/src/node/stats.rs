//! How full a volume is.

use super::mount::DeviceNumber;
use std::io;
use std::path::Path;
use weft_csi_proto::VolumeUsage;
use weft_csi_proto::volume_usage::Unit;

/// Bytes and inodes of the file system mounted at `path`.
pub fn file_system(path: &Path) -> io::Result<Vec<VolumeUsage>> {
    let stat = rustix::fs::statvfs(path)?;
    let usage = |unit: Unit, size: u64, total: u64, free: u64, available: u64| VolumeUsage {
        unit: unit.into(),
        total: clamp(total.saturating_mul(size)),
        available: clamp(available.saturating_mul(size)),
        used: clamp(total.saturating_sub(free).saturating_mul(size)),
    };
    Ok(vec![
        usage(
            Unit::Bytes,
            stat.f_frsize,
            stat.f_blocks,
            stat.f_bfree,
            stat.f_bavail,
        ),
        usage(Unit::Inodes, 1, stat.f_files, stat.f_ffree, stat.f_favail),
    ])
}

/// Bytes of a raw block volume: what of it is used, only its user knows.
pub fn block(sys: &Path, device: DeviceNumber) -> io::Result<Vec<VolumeUsage>> {
    let total = super::filesystem::size(sys, device)?;
    let unit = Unit::Bytes.into();
    Ok(vec![VolumeUsage {
        unit,
        total: clamp(total),
        available: 0,
        used: 0,
    }])
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_has_bytes_and_inodes() {
        let usage = file_system(Path::new("/")).unwrap();
        let units: Vec<_> = usage.iter().map(|u| u.unit()).collect();
        assert_eq!(units, [Unit::Bytes, Unit::Inodes]);
        assert!(usage.iter().all(|u| u.total >= u.used && u.used >= 0));
    }
}
