//! The command line of a guest.

use std::path::PathBuf;

/// The guest's first process; whoever starts a guest writes it where the guest can read it.
pub const INIT_SCRIPT: &str = include_str!("../scripts/init.sh");

/// How a guest is attached to a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// A tap made with `vnet_hdr` in the network namespace in which the guest is started.
    pub tap: String,
    /// Address and length, `10.77.0.11/24`.
    pub address: String,
    /// The default gateway.
    pub gateway: Option<String>,
}

/// A guest before it is started.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The kernel, from [`crate::kernel`].
    pub kernel: PathBuf,
    /// The guest's host name.
    pub name: String,
    /// [`INIT_SCRIPT`] as a file of the host.
    pub init: PathBuf,
    /// What the first process becomes in the end.
    pub script: PathBuf,
    /// Memory in MiB. Only what is touched is taken from the host.
    pub memory: u32,
    /// Directories of the host in which the guest may write.
    pub shares: Vec<PathBuf>,
    /// Its network.
    pub link: Option<Link>,
    /// A file that is its disk `/dev/ubda`.
    pub disk: Option<PathBuf>,
    /// Words for the environment of the script.
    pub environment: Vec<(String, String)>,
}

impl Machine {
    /// Program and arguments. `TMPDIR` of the process says where the guest's memory lies: a
    /// tmpfs is right.
    pub fn argv(&self) -> Vec<String> {
        let shares: Vec<_> = self.shares.iter().map(|p| p.to_string_lossy()).collect();
        let mut argv = vec![
            self.kernel.to_string_lossy().into_owned(),
            // Read only: what the guest writes goes to its tmpfs or to a share.
            "root=none".to_owned(),
            "rootfstype=hostfs".to_owned(),
            "rootflags=/".to_owned(),
            "ro".to_owned(),
            "quiet".to_owned(),
            "panic=-1".to_owned(),
            format!("mem={}M", self.memory),
            "con=null".to_owned(),
            "con0=null,fd:1".to_owned(),
            "ssl=null".to_owned(),
            format!("init={}", self.init.display()),
            format!("WEFT_NAME={}", self.name),
            format!("WEFT_SHARES={}", shares.join(":")),
            format!("WEFT_SCRIPT={}", self.script.display()),
        ];
        if let Some(disk) = &self.disk {
            argv.push(format!("ubd0={}", disk.display()));
        }
        if let Some(link) = &self.link {
            // Without gro bulk TCP stalls.
            argv.push(format!(
                "vec0:transport=tap,ifname={},depth=128,gro=1",
                link.tap
            ));
            argv.push(format!("WEFT_IP={}", link.address));
            if let Some(gateway) = &link.gateway {
                argv.push(format!("WEFT_GW={gateway}"));
            }
        }
        argv.extend(self.environment.iter().map(|(k, v)| format!("{k}={v}")));
        argv
    }
}
