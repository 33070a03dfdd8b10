//! NodeExpandVolume: the device follows the volume, the file system the device, both in use.
//!
//! The kernel's initiator hears of a new size by itself, unless the connection that carried the
//! notice was lost with it; so it is asked to look once more. A loop device has to be told; before
//! that the kernel has to ask the initiator's file for its size, which reading the device's
//! status makes it do. Either is waited for up to an end, since sysfs tells nobody.

use super::blocking::{self, NodeError};
use super::device::{self, Device};
use super::filesystem::{self, FsType};
use super::{ALIVE, Node, loopdev, mount, path, required};
use crate::{capabilities, size};
use std::path::{Path, PathBuf};
use tokio::time::Instant;
use tonic::Status;
use weft_csi_proto as csi;

/// What NodeExpandVolume asks for.
pub struct Wanted {
    /// Name of the volume.
    pub volume: String,
    /// Where it may be found: published, then staged.
    paths: Vec<PathBuf>,
    /// Bytes that it has to have at least; 0: as many as it has.
    bytes: u64,
}

impl Wanted {
    /// Checks a request.
    pub fn parse(request: csi::NodeExpandVolumeRequest) -> Result<Self, Status> {
        if request.volume_capability.is_some() {
            capabilities::check(request.volume_capability.as_ref())?;
        }
        let volume = required(&request.volume_id, "volume id")?.to_owned();
        let mut paths = vec![path(&request.volume_path, "volume path")?];
        if !request.staging_target_path.is_empty() {
            paths.push(path(&request.staging_target_path, "staging target path")?);
        }
        let bytes = match request.capacity_range.as_ref() {
            Some(range) => size::required(Some(range))?,
            None => 0,
        };
        Ok(Self {
            volume,
            paths,
            bytes,
        })
    }
}

impl Node {
    /// Gives the bytes of the device.
    pub(super) async fn expand(&self, wanted: Wanted, end: Instant) -> Result<u64, Status> {
        let Wanted {
            volume,
            paths,
            bytes,
        } = wanted;
        let unknown = || {
            let shown: Vec<_> = paths.iter().map(|p| p.display().to_string()).collect();
            Status::not_found(format!(
                "volume {volume} is not published at {}",
                shown.join(" nor staged at ")
            ))
        };
        let (sys, places) = (self.sys.clone(), paths.clone());
        let find = move || {
            let table = mount::table()?;
            let at = |path: &PathBuf| {
                device::published(&sys, &table, path).or_else(|| device::staged(&sys, &table, path))
            };
            Ok(places.iter().find_map(at))
        };
        let device = blocking::run(find).await?.ok_or_else(unknown)?;
        if !self.owns(&volume, &device).await {
            return Err(unknown());
        }
        let (sys, node) = (self.sys.clone(), self.attachments.node().to_owned());
        let kernel = self.kernel.clone();
        let patience = end.saturating_duration_since(Instant::now());
        let what = format!("volume {volume} did not grow on this node");
        blocking::within(patience + ALIVE, &what, move || {
            let end = std::time::Instant::now() + patience;
            if let Some(subsystem) = kernel.subsystem_of(&device.name) {
                kernel.rescan(&subsystem);
            }
            let size = follow_size(&sys, &node, &volume, &device, bytes, end)?;
            grow_file_system(&device)?;
            Ok(size)
        })
        .await
    }
}

/// Waits until the device has so many bytes; gives how many it has.
fn follow_size(
    sys: &Path,
    node: &str,
    volume: &str,
    device: &Device,
    wanted: u64,
    end: std::time::Instant,
) -> Result<u64, NodeError> {
    let size = || {
        let vanished = |_| NodeError::Vanished(device.name.clone());
        filesystem::size(sys, device.number).map_err(vanished)
    };
    let ours = loopdev::find(node, volume);
    let ours = ours.iter().find(|found| found.name == device.name);
    let look = || {
        let followed = ours.map_or(Ok(()), |found| found.follow_size());
        match followed.map_err(NodeError::from).and_then(|()| size()) {
            Ok(size) if size < wanted => None,
            other => Some(other),
        }
    };
    blocking::look_until(end, look).unwrap_or_else(|| {
        Err(NodeError::Small {
            device: device.name.clone(),
            size: size()?,
            wanted,
        })
    })
}

/// Grows what is mounted from the device for writing; a raw block device has nothing to grow.
fn grow_file_system(device: &Device) -> Result<(), NodeError> {
    let table = mount::table()?;
    let mounted = table
        .iter()
        .find(|entry| entry.device == device.number && !entry.read_only);
    let Some(entry) = mounted else {
        return Ok(());
    };
    match FsType::parse(&entry.fs_type).filter(|_| !entry.fs_type.is_empty()) {
        Some(fs) => {
            tracing::info!(device = device.name, %fs, "growing the file system");
            Ok(filesystem::grow(&device.path(), &entry.target, fs)?)
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    #[test]
    fn an_expansion_names_volume_and_path() {
        let whole = csi::NodeExpandVolumeRequest {
            volume_id: "db-0".to_owned(),
            volume_path: "/pods/1".to_owned(),
            ..Default::default()
        };
        let wanted = Wanted::parse(whole.clone()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!((wanted.bytes, wanted.paths.len()), (0, 1));
        type Change = fn(&mut csi::NodeExpandVolumeRequest);
        let lacking: [Change; 4] = [
            |r| r.volume_id.clear(),
            |r| r.volume_path.clear(),
            |r| r.volume_path = "a/b".to_owned(),
            |r| r.staging_target_path = "a/b".to_owned(),
        ];
        for change in lacking {
            let mut request = whole.clone();
            change(&mut request);
            let code = Wanted::parse(request).err().map(|status| status.code());
            assert_eq!(code, Some(Code::InvalidArgument));
        }
    }
}
