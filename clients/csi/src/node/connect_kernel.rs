//! The kernel's NVMe/TCP initiator: `/dev/nvme-fabrics` and sysfs, no tool in between.
//!
//! A volume is found by its subsystem NQN and its UUID, never by the number of a device:
//! numbers change with every connect. Connections outlive this process, so whatever is done
//! here first looks at what is there.

use super::blocking::look_until;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use uuid::Uuid;
use weft_spec::nqn::HostNqn;

/// Seconds of silence after which the kernel calls a controller lost.
const KEEP_ALIVE: u32 = 5;
/// Seconds between attempts to connect again. Without end: I/O waits, and only NodeUnstage
/// takes the last controller of a device away (Linux fails all I/O without one).
const RECONNECT_DELAY: u32 = 1;
/// One I/O queue carries a whole volume; more cost memory on both sides.
const IO_QUEUES: u32 = 1;
/// How long the kernel may take to show the namespace of a controller that it connected.
const SCAN: Duration = Duration::from_secs(20);

/// What went wrong with the kernel's initiator.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// There is no initiator.
    #[error(
        "this node's kernel has no NVMe/TCP initiator ({device}: {source}); load the module nvme-tcp, or use attach: UserSpace in the StorageClass"
    )]
    Missing {
        /// The device that was tried.
        device: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The engine or the kernel refused.
    #[error(
        "the kernel could not connect to {address}: {source}; the engine may be starting, and the kernel's log says more"
    )]
    Connect {
        /// The engine.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The kernel connected and shows no such namespace.
    #[error(
        "the engine at {address} is connected and its volume did not appear as a block device within {patience:?}"
    )]
    NoDevice {
        /// The engine.
        address: SocketAddr,
        /// How long was waited.
        patience: Duration,
    },
    /// Connected, without a path to the volume's device.
    #[error(
        "the engine at {address} is connected and has not become a path to the volume's device \
         within {patience:?}; the paths that there were are kept"
    )]
    NoPath {
        /// The engine.
        address: SocketAddr,
        /// How long was waited.
        patience: Duration,
    },
    /// A controller could not be deleted.
    #[error("cannot delete NVMe controller {controller}: {source}")]
    Delete {
        /// Its name, `nvme3`.
        controller: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A value that cannot be written into the option string.
    #[error("{0} cannot be handed to the kernel: it contains a comma or a control character")]
    Malformed(&'static str),
}

/// Whom to connect to, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The engine.
    pub address: SocketAddr,
    /// NQN of the volume's subsystem.
    pub subsystem: String,
    /// Identity of the volume: UUID of the namespace.
    pub volume: Uuid,
    /// How this host calls itself.
    pub host: HostNqn,
    /// The identifier that goes with that name.
    pub host_id: Uuid,
}

/// A controller: one association of the kernel with an engine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Controller {
    /// Name in /sys/class/nvme, `nvme3`.
    pub name: String,
    /// Where it connects to.
    pub address: Option<SocketAddr>,
    /// This end's own address, while connected. The kernel tells no port.
    pub source: Option<String>,
    /// Whether it is connected now.
    pub live: bool,
}

/// The kernel's initiator, by the roots of its interfaces.
#[derive(Clone, Debug)]
pub struct KernelInitiator {
    sys: PathBuf,
    dev: PathBuf,
    patience: Duration,
}

impl Default for KernelInitiator {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            dev: "/dev".into(),
            patience: SCAN,
        }
    }
}

impl KernelInitiator {
    fn fabrics(&self) -> PathBuf {
        self.dev.join("nvme-fabrics")
    }

    /// Whether the kernel can connect over TCP.
    pub fn is_usable(&self) -> bool {
        let has_tcp = || self.sys.join("module/nvme_tcp").exists();
        if !self.fabrics().exists() {
            return false;
        }
        // Naming a transport makes the kernel load its module before it finds that the
        // address is missing, so this connects nowhere.
        has_tcp() || {
            let options = "transport=tcp,nqn=nqn.2026-11.storage.weft:none";
            let _refused = self
                .open_fabrics()
                .and_then(|mut f| f.write_all(options.as_bytes()));
            has_tcp()
        }
    }

    fn open_fabrics(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.fabrics())
    }

    /// Connects; a controller that is there already for the same address is as good.
    pub fn connect(&self, target: &Target) -> Result<(), KernelError> {
        let there = self.controllers(&target.subsystem);
        if there.iter().any(|c| c.address == Some(target.address)) {
            return Ok(());
        }
        let options = options(target)?;
        let mut fabrics = self.open_fabrics().map_err(|source| KernelError::Missing {
            device: self.fabrics().display().to_string(),
            source,
        })?;
        match fabrics.write_all(options.as_bytes()) {
            Ok(()) => {}
            Err(e) if rustix::io::Errno::from_io_error(&e) == Some(rustix::io::Errno::ALREADY) => {}
            Err(source) => {
                return Err(KernelError::Connect {
                    address: target.address,
                    source,
                });
            }
        }
        // "instance=0,cntlid=1": only that it can be read shows that the kernel is done.
        let mut answer = [0u8; 256];
        let _ = fabrics.read(&mut answer);
        Ok(())
    }

    /// The controllers of a subsystem, by name.
    pub fn controllers(&self, subsystem: &str) -> Vec<Controller> {
        let mut found: Vec<_> = entries(&self.sys.join("class/nvme"))
            .filter(|dir| attribute(dir, "subsysnqn").as_deref() == Some(subsystem))
            .filter_map(|dir| {
                let address = attribute(&dir, "address").unwrap_or_default();
                Some(Controller {
                    name: dir.file_name()?.to_str()?.to_owned(),
                    address: target_address(&address),
                    source: part(&address, "src_addr").map(str::to_owned),
                    live: attribute(&dir, "state").as_deref() == Some("live"),
                })
            })
            .collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The block device of a volume, `nvme0n1`.
    pub fn device(&self, subsystem: &str, volume: Uuid) -> Option<String> {
        // With native multipath the device belongs to the subsystem, without to a controller.
        let owners = ["class/nvme-subsystem", "class/nvme"];
        owners
            .iter()
            .flat_map(|class| entries(&self.sys.join(class)))
            .filter(|dir| attribute(dir, "subsysnqn").as_deref() == Some(subsystem))
            .flat_map(|dir| entries(&dir))
            .filter(|dir| is_device(dir) && has_uuid(dir, volume))
            .find_map(|dir| Some(dir.file_name()?.to_str()?.to_owned()))
    }

    /// Waits until the device of a volume is there, with its node in /dev.
    pub fn wait_for_device(&self, target: &Target) -> Result<PathBuf, KernelError> {
        let look = || {
            let name = self.device(&target.subsystem, target.volume)?;
            Some(self.dev.join(name)).filter(|node| node.exists())
        };
        let (address, patience) = (target.address, self.patience);
        self.wait_for(look)
            .ok_or(KernelError::NoDevice { address, patience })
    }

    /// Looks again and again, since sysfs tells nobody, up to an end.
    fn wait_for<T>(&self, look: impl Fn() -> Option<T>) -> Option<T> {
        look_until(Instant::now() + self.patience, look)
    }

    /// The subsystem that a block device belongs to.
    pub fn subsystem_of(&self, device: &str) -> Option<String> {
        let owner = self.sys.join("class/block").join(device).join("device");
        attribute(&owner, "subsysnqn")
    }

    /// Asks the kernel to look at the namespaces of a subsystem anew, which it begins at once and
    /// ends later. A controller that has gone meanwhile needs none.
    pub fn rescan(&self, subsystem: &str) {
        for controller in self.controllers(subsystem) {
            let class = self.sys.join("class/nvme").join(&controller.name);
            let file = OpenOptions::new()
                .write(true)
                .open(class.join("rescan_controller"));
            if let Err(error) = file.and_then(|mut f| f.write_all(b"1")) {
                tracing::debug!(controller = controller.name, %error, "no rescan");
            }
        }
    }

    /// Ends one association. Returns when the kernel has let go of it.
    pub fn delete(&self, controller: &Controller) -> Result<(), KernelError> {
        let file = self
            .sys
            .join("class/nvme")
            .join(&controller.name)
            .join("delete_controller");
        match OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|mut f| f.write_all(b"1"))
        {
            Err(error) if is_gone(&error) => Ok(()),
            other => other.map_err(|source| KernelError::Delete {
                controller: controller.name.clone(),
                source,
            }),
        }
    }

    /// Follows a volume to another engine: the new path first, the old ones after it, so that
    /// the device is never without one. True if anything was changed.
    ///
    /// The engine of the newer term has fenced the older at the drives before it answers, so
    /// what the older one still says changes no byte.
    pub fn follow(&self, target: &Target) -> Result<bool, KernelError> {
        let before = self.controllers(&target.subsystem);
        // One without an address is being deleted already.
        let is_old = |c: &&Controller| c.address.is_some_and(|a| a != target.address);
        let is_there = before.iter().any(|c| c.address == Some(target.address));
        if is_there && !before.iter().any(|c| is_old(&c)) {
            return Ok(false);
        }
        self.connect(target)?;
        self.wait_for_path(target)?;
        before
            .iter()
            .filter(is_old)
            .try_for_each(|old| self.delete(old))?;
        Ok(true)
    }

    /// A controller is connected before its namespaces are found, and a device whose last
    /// path goes in between fails all its I/O. So what counts is the path itself, which the
    /// kernel shows only after it belongs to the device.
    fn wait_for_path(&self, target: &Target) -> Result<(), KernelError> {
        let is_path = |c: &Controller| {
            c.live && c.address == Some(target.address) && self.has_path(c, target.volume)
        };
        let look = || {
            self.controllers(&target.subsystem)
                .iter()
                .any(is_path)
                .then_some(())
        };
        let (address, patience) = (target.address, self.patience);
        self.wait_for(look)
            .ok_or(KernelError::NoPath { address, patience })
    }

    fn has_path(&self, controller: &Controller, volume: Uuid) -> bool {
        entries(&self.sys.join("class/nvme").join(&controller.name))
            .any(|dir| is_path(&dir) && has_uuid(&dir, volume))
    }

    /// Connects, or follows when there are connections already.
    pub fn follow_or_connect(&self, target: &Target) -> Result<(), KernelError> {
        match self.controllers(&target.subsystem).is_empty() {
            true => self.connect(target),
            false => self.follow(target).map(drop),
        }
    }

    /// This end's own address towards an engine. The kernel tells no port.
    pub fn source(&self, target: &Target) -> Option<String> {
        let all = self.controllers(&target.subsystem);
        all.into_iter()
            .find(|c| c.address == Some(target.address))?
            .source
    }
}

/// The option string, as `nvme connect` would write it.
fn options(target: &Target) -> Result<String, KernelError> {
    let plain = |what, text: &str| match text.contains(|c: char| c == ',' || c.is_control()) {
        true => Err(KernelError::Malformed(what)),
        false => Ok(()),
    };
    plain("the subsystem's NQN", &target.subsystem)?;
    plain("the host's NQN", target.host.expose())?;
    Ok(format!(
        "transport=tcp,traddr={},trsvcid={},nqn={},hostnqn={},hostid={},nr_io_queues={IO_QUEUES},\
         keep_alive_tmo={KEEP_ALIVE},reconnect_delay={RECONNECT_DELAY},ctrl_loss_tmo=-1",
        target.address.ip(),
        target.address.port(),
        target.subsystem,
        target.host.expose(),
        target.host_id.hyphenated(),
    ))
}

/// `traddr` and `trsvcid` of sysfs' `traddr=10.0.0.1,trsvcid=4420,src_addr=10.0.0.2`.
fn target_address(text: &str) -> Option<SocketAddr> {
    let ip = part(text, "traddr")?.parse().ok()?;
    Some(SocketAddr::new(ip, part(text, "trsvcid")?.parse().ok()?))
}

fn part<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split(',')
        .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

fn attribute(dir: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(dir.join(name))
        .ok()
        .map(|text| text.trim().to_owned())
}

/// `nvme0n1`: a device.
fn is_device(dir: &Path) -> bool {
    numbers(dir).is_some_and(|(owner, namespace)| is_number(owner) && is_number(namespace))
}

/// `nvme0c3n1`: one path of a device, by controller 3. Not there without native multipath.
fn is_path(dir: &Path) -> bool {
    let parts = numbers(dir).and_then(|(owner, n)| Some((owner.split_once('c')?, n)));
    parts.is_some_and(|((s, c), n)| is_number(s) && is_number(c) && is_number(n))
}

/// What is between `nvme` and `n`, and what follows.
fn numbers(dir: &Path) -> Option<(&str, &str)> {
    dir.file_name()?
        .to_str()?
        .strip_prefix("nvme")?
        .split_once('n')
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_uuid(dir: &Path, volume: Uuid) -> bool {
    ["uuid", "nguid"]
        .iter()
        .filter_map(|name| attribute(dir, name)?.parse::<Uuid>().ok())
        .any(|uuid| uuid == volume)
}

fn is_gone(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(
        errno,
        Some(rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO)
    )
}

#[cfg(test)]
mod tests;
