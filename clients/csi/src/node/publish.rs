//! NodePublishVolume, NodeUnpublishVolume and NodeGetVolumeStats: one more view of what is
//! staged.

use super::blocking::{self, NodeError};
use super::device::{self, Device};
use super::{ALIVE, Node, path, required};
use super::{filesystem, loopdev, mount, stats};
use crate::capabilities::{self, Kind, Usage};
use crate::names;
use std::path::{Path, PathBuf};
use tonic::Status;
use weft_csi_proto as csi;

/// What NodePublishVolume asks for.
pub struct Wanted {
    /// Name of the volume.
    pub volume: String,
    staging: PathBuf,
    target: PathBuf,
    usage: Usage,
    read_only: bool,
}

impl Wanted {
    /// Checks a request.
    pub fn parse(request: csi::NodePublishVolumeRequest) -> Result<Self, Status> {
        let usage = capabilities::check(request.volume_capability.as_ref())?;
        let volume = required(&request.volume_id, "volume id")?.to_owned();
        let target = path(&request.target_path, "target path")?;
        if request.staging_target_path.is_empty() {
            return Err(Status::failed_precondition(
                "staging target path is missing: a Weft volume is staged before it is published",
            ));
        }
        Ok(Self {
            staging: path(&request.staging_target_path, "staging target path")?,
            read_only: request.readonly || usage.read_only,
            volume,
            target,
            usage,
        })
    }
}

/// How a wish to publish stands against what is mounted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    /// The staged device is not at the target.
    Nothing,
    /// It is there in the way that is asked for.
    Same,
    /// It is there in another way.
    OtherMode,
    /// It is in use elsewhere, and may be in one place only.
    Elsewhere,
}

impl Node {
    pub(super) async fn publish(&self, wanted: Wanted) -> Result<(), Status> {
        let (sys, staging) = (self.sys.clone(), wanted.staging.clone());
        let device =
            blocking::run(move || Ok(device::staged(&sys, &mount::table()?, &staging))).await?;
        let device = device.ok_or_else(|| {
            Status::failed_precondition(format!("volume {} is not staged", wanted.volume))
        })?;
        if !self.owns(&wanted.volume, &device).await {
            return Err(Status::failed_precondition(format!(
                "what is staged at {} is not volume {}",
                wanted.staging.display(),
                wanted.volume
            )));
        }
        // A pod must not start on a device that is dead, nor wait in the kernel for ever.
        let node = device.path();
        let what = format!(
            "volume {} did not answer a read (its I/O waits for the engine)",
            wanted.volume
        );
        blocking::within(ALIVE, &what, move || {
            filesystem::is_alive(&node).map_err(|source| {
                filesystem::FsError::Read {
                    device: node.display().to_string(),
                    source,
                }
                .into()
            })
        })
        .await?;
        let (sys, volume) = (self.sys.clone(), wanted.volume.clone());
        let published = blocking::run(move || publish(&sys, &device, &wanted)).await?;
        match published {
            Found::OtherMode => Err(Status::already_exists(format!(
                "volume {volume} is published at that path in another mode: unpublish it first"
            ))),
            Found::Elsewhere => Err(Status::failed_precondition(format!(
                "volume {volume} is in use by another pod on this node, and its access mode \
                 (ReadWriteOncePod) allows one"
            ))),
            Found::Nothing | Found::Same => Ok(()),
        }
    }

    pub(super) async fn stats(
        &self,
        volume: &str,
        path: PathBuf,
    ) -> Result<Vec<csi::VolumeUsage>, Status> {
        let unknown = || {
            Status::not_found(format!(
                "volume {volume} is not published at {}",
                path.display()
            ))
        };
        let (sys, target) = (self.sys.clone(), path.clone());
        let found = blocking::run(move || {
            let table = mount::table()?;
            let node = device::published(&sys, &table, &target);
            let is_file_system = mount::at(&table, &target)
                .zip(node.as_ref())
                .is_some_and(|(entry, device)| entry.device == device.number);
            Ok(node.map(|device| (device, is_file_system)))
        })
        .await?;
        let Some((device, is_file_system)) = found else {
            return Err(unknown());
        };
        if !self.owns(volume, &device).await {
            return Err(unknown());
        }
        let (sys, target) = (self.sys.clone(), path.clone());
        let what = format!("volume {volume} did not tell how full it is");
        blocking::within(ALIVE, &what, move || {
            let usage = match is_file_system {
                true => stats::file_system(&target),
                false => stats::block(&sys, device.number),
            };
            let device = device.name;
            usage.map_err(|source| filesystem::FsError::Read { device, source }.into())
        })
        .await
    }

    /// Whether a device is the one of a volume, by the mark of a loop device or by the
    /// subsystem of an NVMe device and the Attachment that names it.
    pub(super) async fn owns(&self, volume: &str, device: &Device) -> bool {
        let (node, id, name) = (
            self.attachments.node().to_owned(),
            volume.to_owned(),
            device.name.clone(),
        );
        if name.starts_with("loop") {
            let find = move || Ok(loopdev::find(&node, &id).iter().any(|l| l.name == name));
            return blocking::run(find).await.unwrap_or(false);
        }
        let attachment = names::attachment(volume, &node);
        let known = match self.attachments.seen(&attachment) {
            Some(attachment) => attachment.status.clone(),
            // Made a moment ago, or the watch has not brought anything yet.
            None => self
                .attachments
                .get(&attachment)
                .await
                .ok()
                .flatten()
                .and_then(|a| a.status),
        };
        let subsystem = known.and_then(|status| status.subsystem_nqn);
        subsystem.is_some() && subsystem == self.kernel.subsystem_of(&name)
    }
}

fn publish(sys: &Path, device: &Device, wanted: &Wanted) -> Result<Found, NodeError> {
    let table = mount::table()?;
    let is_mount = matches!(wanted.usage.kind, Kind::Mount { .. });
    match found(sys, &table, device, wanted) {
        Found::Nothing => {}
        settled => return Ok(settled),
    }
    // What is left of something else there, such as a mount of a dead device.
    mount::unmount(&wanted.target)?;
    let source = match is_mount {
        true => {
            mount::make_directory(&wanted.target)?;
            wanted.staging.clone()
        }
        false => {
            mount::make_file(&wanted.target)?;
            device.path()
        }
    };
    mount::bind(&source, &wanted.target, wanted.read_only)?;
    Ok(Found::Same)
}

fn found(sys: &Path, table: &[mount::Entry], device: &Device, wanted: &Wanted) -> Found {
    let there = device::published(sys, table, &wanted.target).filter(|there| there == device);
    let Some(entry) = there.and_then(|_| mount::at(table, &wanted.target)) else {
        let alone = !wanted.usage.single_writer || !is_elsewhere(device, table, wanted);
        return if alone {
            Found::Nothing
        } else {
            Found::Elsewhere
        };
    };
    let is_mount = matches!(wanted.usage.kind, Kind::Mount { .. });
    let same_kind = (entry.device == device.number) == is_mount;
    match same_kind && entry.read_only == wanted.read_only {
        true => Found::Same,
        false => Found::OtherMode,
    }
}

/// Whether the device is published anywhere but at the wanted target.
fn is_elsewhere(device: &Device, table: &[mount::Entry], wanted: &Wanted) -> bool {
    let staged = [wanted.staging.clone(), device::block_path(&wanted.staging)];
    let own = |target: &Path| {
        target == wanted.target || staged.iter().any(|path| path.as_path() == target)
    };
    device.users(table).any(|entry| !own(&entry.target))
}

pub(super) async fn unpublish(target: PathBuf) -> Result<(), Status> {
    blocking::run(move || {
        mount::unmount(&target)?;
        Ok(mount::remove(&target)?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;
    use weft_csi_proto::volume_capability::access_mode::Mode;
    use weft_csi_proto::volume_capability::{AccessMode, AccessType, BlockVolume};

    #[test]
    fn a_publish_request_is_checked_field_by_field() {
        let whole = csi::NodePublishVolumeRequest {
            volume_id: "db-0".to_owned(),
            staging_target_path: "/staging".to_owned(),
            target_path: "/target".to_owned(),
            volume_capability: Some(csi::VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeReaderOnly.into(),
                }),
                access_type: Some(AccessType::Block(BlockVolume {})),
            }),
            ..Default::default()
        };
        assert!(
            Wanted::parse(whole.clone())
                .unwrap_or_else(|e| panic!("{e}"))
                .read_only
        );
        type Change = fn(&mut csi::NodePublishVolumeRequest);
        let lacking: [(Change, Code); 5] = [
            (|r| r.volume_id.clear(), Code::InvalidArgument),
            (|r| r.staging_target_path.clear(), Code::FailedPrecondition),
            (|r| r.target_path.clear(), Code::InvalidArgument),
            (|r| r.target_path = "a/b".to_owned(), Code::InvalidArgument),
            (|r| r.volume_capability = None, Code::InvalidArgument),
        ];
        for (change, expected) in lacking {
            let mut request = whole.clone();
            change(&mut request);
            assert_eq!(
                Wanted::parse(request).err().map(|s| s.code()),
                Some(expected)
            );
        }
    }
}
