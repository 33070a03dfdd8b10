//! What a volume can be used as. Pure.

use crate::node::filesystem::FsType;
use tonic::Status;
use weft_csi_proto::VolumeCapability;
use weft_csi_proto::volume_capability::AccessType;
use weft_csi_proto::volume_capability::access_mode::Mode;

/// How a volume is to be used, checked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Usage {
    /// As what.
    pub kind: Kind,
    /// The mode itself promises that nobody writes.
    pub read_only: bool,
    /// At most one target path at a time (ReadWriteOncePod).
    pub single_writer: bool,
}

/// As what a volume is used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A raw block device.
    Block,
    /// A file system.
    Mount {
        /// Which.
        fs: FsType,
        /// As in fstab.
        options: Vec<String>,
    },
}

/// Takes a capability apart; what Weft cannot do is refused with the way out.
pub fn check(capability: Option<&VolumeCapability>) -> Result<Usage, Status> {
    let missing = |what: &str| Status::invalid_argument(format!("{what} is missing"));
    let capability = capability.ok_or_else(|| missing("volume capability"))?;
    let mode = capability
        .access_mode
        .as_ref()
        .ok_or_else(|| missing("access mode"))?
        .mode();
    let kind = match capability
        .access_type
        .as_ref()
        .ok_or_else(|| missing("access type"))?
    {
        AccessType::Block(_) => Kind::Block,
        AccessType::Mount(mount) => Kind::Mount {
            fs: FsType::parse(&mount.fs_type).ok_or_else(|| {
                Status::invalid_argument(format!(
                    "file system {:?} is not supported: use ext4 or xfs in \
                     csi.storage.k8s.io/fstype of the StorageClass",
                    mount.fs_type
                ))
            })?,
            options: mount.mount_flags.clone(),
        },
    };
    match mode {
        Mode::SingleNodeWriter | Mode::SingleNodeMultiWriter | Mode::SingleNodeSingleWriter => {}
        Mode::SingleNodeReaderOnly => {}
        Mode::Unknown => return Err(missing("access mode")),
        Mode::MultiNodeReaderOnly | Mode::MultiNodeSingleWriter | Mode::MultiNodeMultiWriter => {
            return Err(Status::invalid_argument(
                "a Weft volume is used by one node at a time: ask for ReadWriteOnce or \
                 ReadWriteOncePod instead of ReadWriteMany or ReadOnlyMany",
            ));
        }
    }
    Ok(Usage {
        kind,
        read_only: mode == Mode::SingleNodeReaderOnly,
        single_writer: mode == Mode::SingleNodeSingleWriter,
    })
}

/// Checks each of several capabilities, of which there must be one at least.
pub fn check_all(capabilities: &[VolumeCapability]) -> Result<(), Status> {
    if capabilities.is_empty() {
        return Err(Status::invalid_argument("volume capabilities are missing"));
    }
    capabilities
        .iter()
        .try_for_each(|capability| check(Some(capability)).map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_csi_proto::volume_capability::{AccessMode, BlockVolume, MountVolume};

    fn capability(mode: Mode, access_type: Option<AccessType>) -> VolumeCapability {
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type,
        }
    }

    fn mount(fs_type: &str) -> Option<AccessType> {
        let fs_type = fs_type.to_owned();
        Some(AccessType::Mount(MountVolume {
            fs_type,
            ..Default::default()
        }))
    }

    #[test]
    fn one_node_at_a_time_with_ext4_xfs_or_raw() {
        let block = || Some(AccessType::Block(BlockVolume {}));
        let table = [
            (Mode::SingleNodeWriter, mount(""), true),
            (Mode::SingleNodeMultiWriter, mount("ext4"), true),
            (Mode::SingleNodeSingleWriter, mount("xfs"), true),
            (Mode::SingleNodeReaderOnly, block(), true),
            (Mode::SingleNodeWriter, mount("btrfs"), false),
            (Mode::SingleNodeWriter, None, false),
            (Mode::Unknown, block(), false),
            (Mode::MultiNodeReaderOnly, block(), false),
            (Mode::MultiNodeSingleWriter, block(), false),
            (Mode::MultiNodeMultiWriter, block(), false),
        ];
        for (mode, kind, good) in table {
            let capability = capability(mode, kind);
            assert_eq!(check(Some(&capability)).is_ok(), good, "{capability:?}");
        }
        assert!(check(None).is_err());
        assert!(check_all(&[]).is_err());
    }

    #[test]
    fn an_unnamed_file_system_is_ext4() {
        let usage = check(Some(&capability(Mode::SingleNodeSingleWriter, mount("")))).unwrap();
        assert_eq!(
            usage.kind,
            Kind::Mount {
                fs: FsType::Ext4,
                options: Vec::new()
            }
        );
        assert!(usage.single_writer && !usage.read_only);
    }
}
