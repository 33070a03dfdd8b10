//! NodeStageVolume and NodeUnstageVolume.
//!
//! Stage: wait for the admission, connect, look at the device, report *staged*, then format
//! or check, and mount. Unstage is the same backwards. Each step first looks whether it is
//! done, so a call that is repeated, or that follows a crash, goes on where the last ended.
//!
//! *Staged* is reported before anything is mounted and taken back after everything is gone:
//! between the two the operator keeps the initiator's pod.

use super::blocking::{self, NodeError};
use super::connect_kernel::{KernelInitiator, Target};
use super::connect_user::UserInitiator;
use super::device::{self, Device};
use super::filesystem::{self, FsType, Preparation};
use super::loopdev::{self, Owner};
use super::mount;
use super::{ALIVE, Node, path, required};
use crate::attachments::{Admission, Way};
use crate::capabilities::{self, Kind, Usage};
use crate::controller::ATTACHMENT;
use crate::names;
use std::path::{Path, PathBuf};
use tokio::time::Instant;
use tonic::Status;
use weft_crds::attachment::Observed;
use weft_csi_proto as csi;

/// What NodeStageVolume asks for.
pub struct Wanted {
    /// Name of the volume.
    pub volume: String,
    attachment: String,
    staging: PathBuf,
    usage: Usage,
}

impl Wanted {
    /// Checks a request.
    pub fn parse(request: csi::NodeStageVolumeRequest) -> Result<Self, Status> {
        let missing = "attachment in the publish context";
        let attachment = request
            .publish_context
            .get(ATTACHMENT)
            .map_or("", String::as_str);
        Ok(Self {
            volume: required(&request.volume_id, "volume id")?.to_owned(),
            staging: path(&request.staging_target_path, "staging target path")?,
            usage: capabilities::check(request.volume_capability.as_ref())?,
            attachment: required(attachment, missing)?.to_owned(),
        })
    }
}

/// A device with a live way to the engine.
struct Connected {
    device: Device,
    size: u64,
    source: Option<String>,
    identity: Option<String>,
}

impl Node {
    pub(super) async fn stage(&self, wanted: Wanted, end: Instant) -> Result<(), Status> {
        let admission = self
            .attachments
            .admitted(&wanted.attachment, &wanted.volume, end)
            .await?;
        let connected = self.connect(&wanted.volume, &admission, end).await?;
        let mut observed = Observed {
            initiator: Some(admission.way.initiator()),
            source: connected.source,
            identity: connected.identity,
            staged: true,
            formatting: false,
        };
        let (device, read_only) = (
            connected.device,
            admission.read_only || wanted.usage.read_only,
        );
        match wanted.usage.kind {
            Kind::Block => {
                self.attachments.report(&admission.name, &observed).await?;
                self.stage_block(device, wanted.staging).await
            }
            Kind::Mount { fs, mut options } => {
                if read_only {
                    options.extend(fs.read_only_options().map(str::to_owned));
                }
                let interrupted = admission.observed.formatting;
                let preparation = self
                    .look(&device, fs, connected.size, read_only, interrupted)
                    .await?;
                observed.formatting = preparation == Preparation::Format;
                self.attachments.report(&admission.name, &observed).await?;
                let mounted = Mounted {
                    device,
                    size: connected.size,
                    fs,
                    options,
                    staging: wanted.staging,
                };
                self.stage_file_system(preparation, mounted).await?;
                if observed.formatting {
                    observed.formatting = false;
                    self.attachments.report(&admission.name, &observed).await?;
                }
                Ok(())
            }
        }
    }

    async fn connect(
        &self,
        volume: &str,
        admission: &Admission,
        end: Instant,
    ) -> Result<Connected, Status> {
        match &admission.way {
            Way::Kernel { .. } => {
                let target = self.target(admission).await?;
                self.connect_kernel(target).await
            }
            Way::UserSpace { pod } => {
                let initiator = UserInitiator::new(&self.initiators, pod);
                self.connect_user(volume, admission, initiator, end).await
            }
        }
    }

    /// Whom the kernel has to connect to.
    pub(super) async fn target(&self, admission: &Admission) -> Result<Target, Status> {
        let Way::Kernel { host_id, secret } = &admission.way else {
            return Err(Status::internal(
                "the kernel was asked for a user-space attachment",
            ));
        };
        Ok(Target {
            address: admission.path.address,
            subsystem: admission.subsystem.clone(),
            volume: admission.uid.0,
            host: self.attachments.host_nqn(secret).await?,
            host_id: *host_id,
        })
    }

    async fn connect_kernel(&self, target: Target) -> Result<Connected, Status> {
        let (kernel, sys) = (self.kernel.clone(), self.sys.clone());
        blocking::run(move || {
            // Also when the volume is connected already: the engine may have moved meanwhile.
            kernel.follow_or_connect(&target)?;
            let node = kernel.wait_for_device(&target)?;
            let device = Device::at(&sys, &node)
                .ok_or_else(|| NodeError::Vanished(node.display().to_string()))?;
            let size = size_of(&sys, &device)?;
            let source = kernel.source(&target);
            let identity = kernel.subsystem_of(&device.name);
            Ok(Connected {
                device,
                size,
                source,
                identity,
            })
        })
        .await
    }

    async fn connect_user(
        &self,
        volume: &str,
        admission: &Admission,
        initiator: UserInitiator,
        end: Instant,
    ) -> Result<Connected, Status> {
        let (sys, node) = (self.sys.clone(), self.attachments.node().to_owned());
        let (volume, uid, path) = (volume.to_owned(), admission.uid, admission.path);
        let read_only = admission.read_only;
        let patience = end.saturating_duration_since(Instant::now());
        let what = "the initiator pod did not answer";
        let work = move || {
            let started = std::time::Instant::now();
            let status = initiator.wait_until_ready(uid, started + patience)?;
            initiator.follow(path)?;
            // A read that hung for longer than the caller waited: somebody else may be at work
            // on this volume by now.
            initiator.refuse_after(started + patience + ALIVE / 2)?;
            let owner = Owner {
                node: &node,
                volume: &volume,
                uid: uid.0,
            };
            let found = reusable_loop(owner)?;
            let device = match found {
                Some(device) => {
                    device.follow_size()?;
                    device
                }
                None => loopdev::attach(&initiator.volume(), owner, read_only)?,
            };
            let device = Device::at(&sys, &device.path())
                .ok_or_else(|| NodeError::Vanished(device.name.clone()))?;
            let size = size_of(&sys, &device)?;
            let source = status.local.map(|address| address.to_string());
            Ok(Connected {
                device,
                size,
                source,
                identity: status.identity,
            })
        };
        // The extra time is for what follows the waiting; reads of FUSE files cannot be ended
        // from here, but the caller is not kept.
        blocking::within(patience + ALIVE, what, work).await
    }

    /// What has to be done to a device before it can be mounted as this file system.
    async fn look(
        &self,
        device: &Device,
        fs: FsType,
        size: u64,
        read_only: bool,
        interrupted: bool,
    ) -> Result<Preparation, Status> {
        let node = device.path();
        let number = device.number;
        let what = format!(
            "{} did not answer reads (the volume's I/O waits for its engine)",
            node.display()
        );
        blocking::within(ALIVE, &what, move || {
            // What is mounted somewhere is a file system in use and needs nothing.
            if mount::table()?.iter().any(|entry| entry.device == number) {
                return Ok(Preparation::None);
            }
            let found = filesystem::probe_device(&node, size)?;
            Ok(filesystem::prepare(
                found,
                fs,
                size,
                read_only,
                interrupted,
            )?)
        })
        .await
    }

    async fn stage_file_system(
        &self,
        preparation: Preparation,
        wanted: Mounted,
    ) -> Result<(), Status> {
        let sys = self.sys.clone();
        blocking::run(move || {
            let Mounted {
                device,
                size,
                fs,
                options,
                staging,
            } = wanted;
            mount::make_directory(&staging)?;
            if !clear_unless(&sys, &device, &staging)? {
                prepare(&device, fs, preparation)?;
                mount::file_system(&device.path(), &staging, fs.name(), &options)?;
            }
            // The volume grew while no node used it, or it is a copy of a smaller one.
            let writable = !options.iter().any(|option| option == "ro");
            if writable && filesystem::is_smaller(&device.path(), fs, size)? {
                tracing::info!(device = device.name, %fs, "growing the file system");
                filesystem::grow(&device.path(), &staging, fs)?;
            }
            Ok(())
        })
        .await
    }

    async fn stage_block(&self, device: Device, staging: PathBuf) -> Result<(), Status> {
        let sys = self.sys.clone();
        blocking::run(move || {
            let target = device::block_path(&staging);
            mount::make_file(&target)?;
            if clear_unless(&sys, &device, &target)? {
                return Ok(());
            }
            Ok(mount::bind(&device.path(), &target, false)?)
        })
        .await
    }

    pub(super) async fn unstage(&self, volume: &str, staging: PathBuf) -> Result<(), Status> {
        let name = names::attachment(volume, self.attachments.node());
        // Known to the API or not: what is on the node has to go. The object only helps to
        // find a connection that nothing is mounted from.
        let attachment = self.attachments.get(&name).await;
        let status = attachment
            .as_ref()
            .ok()
            .and_then(|a| a.as_ref()?.status.as_ref());
        let subsystem = status.and_then(|s| s.subsystem_nqn.clone());
        let observed = status.and_then(|s| s.observed.clone()).unwrap_or_default();
        let (sys, kernel) = (self.sys.clone(), self.kernel.clone());
        let (node, id) = (self.attachments.node().to_owned(), volume.to_owned());
        blocking::run(move || {
            let device = device::staged(&sys, &mount::table()?, &staging);
            let subsystem = device
                .as_ref()
                .and_then(|d| kernel.subsystem_of(&d.name))
                .or(subsystem);
            let block = device::block_path(&staging);
            mount::unmount(&block)?;
            mount::unmount(&staging)?;
            // Not the staging path itself: it belongs to the caller.
            remove_block_file(&block)?;
            let loops = loopdev::find(&node, &id);
            let by_kernel = subsystem
                .as_deref()
                .and_then(|nqn| kernel_device(&kernel, nqn));
            let paths = loops.iter().map(loopdev::Loop::path).chain(by_kernel);
            let found = paths.filter_map(|path| Device::at(&sys, &path));
            found
                .chain(device)
                .try_for_each(|device| refuse_if_used(&device))?;
            loops.iter().try_for_each(loopdev::Loop::detach)?;
            let mut controllers = subsystem.iter().flat_map(|nqn| kernel.controllers(nqn));
            controllers.try_for_each(|controller| kernel.delete(&controller))?;
            Ok(())
        })
        .await?;
        // Only now may the initiator go.
        if attachment?.is_some() {
            let initiator = observed.initiator;
            let formatting = observed.formatting;
            let left = Observed {
                initiator,
                formatting,
                ..Default::default()
            };
            self.attachments.report(&name, &left).await?;
        }
        Ok(())
    }
}

fn prepare(device: &Device, fs: FsType, preparation: Preparation) -> Result<(), NodeError> {
    match preparation {
        Preparation::Format => {
            tracing::info!(device = device.name, %fs, "making the file system");
            filesystem::format(&device.path(), fs)?;
        }
        Preparation::Check => filesystem::check(&device.path())?,
        Preparation::None => {}
    }
    Ok(())
}

/// A file system to be mounted.
struct Mounted {
    device: Device,
    /// Bytes of the device.
    size: u64,
    fs: FsType,
    options: Vec<String>,
    staging: PathBuf,
}

/// The device node that the kernel shows for a volume's subsystem.
fn kernel_device(kernel: &KernelInitiator, subsystem: &str) -> Option<PathBuf> {
    let volume = weft_spec::nqn::parse_volume(subsystem)?;
    kernel
        .device(subsystem, volume.0)
        .map(|name| Path::new("/dev").join(name))
}

fn size_of(sys: &Path, device: &Device) -> Result<u64, NodeError> {
    let vanished = |_| NodeError::Vanished(device.name.clone());
    filesystem::size(sys, device.number).map_err(vanished)
}

/// The loop device that this volume has already, if it still answers. What an earlier
/// initiator or an earlier volume of the same name left is taken away.
fn reusable_loop(owner: Owner<'_>) -> Result<Option<loopdev::Loop>, NodeError> {
    for found in loopdev::find(owner.node, owner.volume) {
        let dead = match found.has(&owner.tag()) {
            true => filesystem::is_alive(&found.path()).err(),
            false => Some(std::io::Error::other(
                "it belongs to an earlier volume of that name",
            )),
        };
        let Some(error) = dead else {
            return Ok(Some(found));
        };
        tracing::warn!(device = found.name, %error, "loop device is of no use any more");
        for entry in mount::table()? {
            let device = Device::at("/sys".as_ref(), &found.path());
            if device.is_some_and(|d| d.users(std::slice::from_ref(&entry)).next().is_some()) {
                mount::detach(&entry.target)?;
            }
        }
        found.detach()?;
    }
    Ok(None)
}

/// Whether `target` shows the device already; whatever else is mounted there is taken away.
fn clear_unless(sys: &Path, device: &Device, target: &Path) -> Result<bool, NodeError> {
    let table = mount::table()?;
    if mount::at(&table, target).is_none() {
        return Ok(false);
    }
    if device::published(sys, &table, target).as_ref() == Some(device) {
        return Ok(true);
    }
    mount::unmount(target)?;
    Ok(false)
}

/// A device that a pod still has must not lose its connection.
fn refuse_if_used(device: &Device) -> Result<(), NodeError> {
    let table = mount::table()?;
    match device.users(&table).next() {
        Some(entry) => Err(mount::MountError::InUse {
            device: device.name.clone(),
            target: entry.target.display().to_string(),
        }
        .into()),
        None => Ok(()),
    }
}

/// Removes the file that a raw block device was mounted on, and nothing that somebody else
/// may have put there.
fn remove_block_file(block: &Path) -> Result<(), NodeError> {
    let ours = std::fs::symlink_metadata(block).is_ok_and(|m| m.is_file() && m.len() == 0);
    if ours {
        mount::remove(block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use weft_csi_proto::volume_capability::access_mode::Mode;
    use weft_csi_proto::volume_capability::{AccessMode, AccessType, BlockVolume};

    #[test]
    fn a_stage_request_names_volume_path_capability_and_attachment() {
        let whole = csi::NodeStageVolumeRequest {
            volume_id: "db-0".to_owned(),
            staging_target_path: "/staging".to_owned(),
            volume_capability: Some(csi::VolumeCapability {
                access_mode: Some(AccessMode {
                    mode: Mode::SingleNodeWriter.into(),
                }),
                access_type: Some(AccessType::Block(BlockVolume {})),
            }),
            publish_context: HashMap::from([(ATTACHMENT.to_owned(), "a".to_owned())]),
            ..Default::default()
        };
        assert!(Wanted::parse(whole.clone()).is_ok());
        let lacking: [fn(&mut csi::NodeStageVolumeRequest); 5] = [
            |r| r.volume_id.clear(),
            |r| r.staging_target_path.clear(),
            |r| r.staging_target_path = "staging".to_owned(),
            |r| r.volume_capability = None,
            |r| r.publish_context.clear(),
        ];
        for change in lacking {
            let mut request = whole.clone();
            change(&mut request);
            let code = Wanted::parse(request).err().map(|status| status.code());
            assert_eq!(code, Some(tonic::Code::InvalidArgument));
        }
    }
}
