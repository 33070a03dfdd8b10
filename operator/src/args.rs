//! Arguments and environment.

use clap::{Args as ClapArgs, Parser, Subcommand};
use std::net::IpAddr;
use std::path::PathBuf;
use weft_controllers::adopt::named::Named;
use weft_controllers::shared::settings::{Images, Namespaces, Settings};

/// The operator of Weft.
#[derive(Parser, Debug)]
#[command(version, about)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run the controllers against the cluster of the kubeconfig or of the pod.
    Run(Box<Options>),
    /// Build Volumes and Slices again from what the drives have (docs/adopt.md).
    Adopt(Box<AdoptOptions>),
    /// Print the CustomResourceDefinitions as YAML.
    Crds {
        /// Write one file a kind into this directory instead.
        #[arg(long)]
        into: Option<PathBuf>,
    },
}

/// Options of `adopt`.
#[derive(ClapArgs, Debug, Clone)]
pub struct AdoptOptions {
    /// The Drives that there are are all of the cluster: a slice without a record is a whole volume.
    #[arg(long)]
    pub all_drives: bool,
    /// Write nothing, and say what would be.
    #[arg(long)]
    pub dry_run: bool,
    /// Name of a volume that nothing else names any more; may be repeated.
    #[arg(long = "volume-name", value_name = "UID=NAME")]
    pub names: Vec<Named>,
    /// As of the operator beside it.
    #[command(flatten)]
    pub common: Options,
}

/// Options of `run`.
#[derive(ClapArgs, Debug, Clone)]
pub struct Options {
    /// Namespace of the operator and of user-space initiators.
    #[arg(long, env = "POD_NAMESPACE", default_value = "weft-system")]
    pub namespace: String,
    /// Namespace of drive pods and of the operator's keys.
    #[arg(long, env = "WEFT_DRIVES_NAMESPACE", default_value = "weft-drives")]
    pub drives_namespace: String,
    /// Namespace of engine pods.
    #[arg(long, env = "WEFT_ENGINES_NAMESPACE", default_value = "weft-engines")]
    pub engines_namespace: String,
    /// Name of this operator as holder of the lease: the pod's, so that a container that starts
    /// again goes on at once.
    #[arg(long, env = "POD_NAME")]
    pub name: Option<String>,
    /// Own address, written into the EndpointSlice of the Service.
    #[arg(long, env = "POD_IP")]
    pub address: Option<IpAddr>,
    /// Where pods push their status (`address:port`), when not by the Service weft-operator.
    #[arg(long, env = "WEFT_PUSH_ADDRESS")]
    pub push_address: Option<String>,
    /// TCP port of the admin HTTP server.
    #[arg(long, env = "WEFT_ADMIN_PORT", default_value_t = 8080)]
    pub admin_port: u16,
    /// Image of drive pods.
    #[arg(
        long,
        env = "WEFT_IMAGE_DRIVE",
        default_value = "weft.storage/weft-drive:dev"
    )]
    pub image_drive: String,
    /// Image of engine pods.
    #[arg(
        long,
        env = "WEFT_IMAGE_ENGINE",
        default_value = "weft.storage/weft-engine:dev"
    )]
    pub image_engine: String,
    /// Image of user-space initiator pods.
    #[arg(
        long,
        env = "WEFT_IMAGE_INITIATOR",
        default_value = "weft.storage/weft-initiator:dev"
    )]
    pub image_initiator: String,
    /// Pull policy of all of them.
    #[arg(long, env = "WEFT_IMAGE_PULL_POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// File-backed drives must lie below this directory of their node.
    #[arg(long, env = "WEFT_DRIVES_ROOT", default_value = "/var/lib/weft/drives")]
    pub drives_root: PathBuf,
    /// Block devices must begin with one of these.
    #[arg(
        long,
        env = "WEFT_DEVICE_PREFIXES",
        value_delimiter = ',',
        default_value = "/dev/disk/by-id/"
    )]
    pub device_prefixes: Vec<String>,
    /// Log filter of the pods that the operator makes.
    #[arg(long, env = "WEFT_POD_LOG", default_value = "info")]
    pub pod_log: String,
}

impl Options {
    /// What the controllers need of it.
    pub fn settings(&self, push_address: String) -> Settings {
        Settings {
            namespaces: Namespaces {
                system: self.namespace.clone(),
                drives: self.drives_namespace.clone(),
                engines: self.engines_namespace.clone(),
            },
            images: Images {
                drive: self.image_drive.clone(),
                engine: self.image_engine.clone(),
                initiator: self.image_initiator.clone(),
                pull_policy: self.image_pull_policy.clone(),
            },
            drives_root: self.drives_root.clone(),
            // An empty prefix would allow every device.
            device_prefixes: self
                .device_prefixes
                .iter()
                .map(|prefix| prefix.trim().to_owned())
                .filter(|prefix| !prefix.is_empty())
                .collect(),
            push_address,
            pod_log: self.pod_log.clone(),
        }
    }

    /// Name of the lease's holder.
    pub fn holder(&self) -> String {
        let unnamed = || format!("weft-operator-{}", std::process::id());
        self.name.clone().unwrap_or_else(unnamed)
    }

    /// The address to listen on with all of the pod's addresses of its family.
    pub fn any_address(&self) -> IpAddr {
        match self.address {
            Some(IpAddr::V6(_)) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            _ => std::net::Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn an_empty_device_prefix_allows_nothing() {
        let args = Args::parse_from([
            "weft-operator",
            "run",
            "--device-prefixes",
            ", /dev/disk/by-id/,",
        ]);
        let Command::Run(options) = args.command else {
            panic!("not run")
        };
        assert_eq!(
            options.settings(String::new()).device_prefixes,
            ["/dev/disk/by-id/"]
        );
    }
}
