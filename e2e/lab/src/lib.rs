//! A real Kubernetes cluster on one machine, without docker, virtual machines or a registry.
//!
//! etcd, the API server, the controllers and three nodes run in namespaces of this machine;
//! a fourth node is a User-Mode Linux guest with a kernel of its own, which has the real
//! NVMe/TCP initiator. Everything lives inside one outer sandbox (network, mount and PID
//! namespace), so that SIGKILL of a single process ends all of it.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let lab = weft_lab::Lab::up(&weft_lab::Options::default())?;
//! println!("{}", lab.kubectl(&["get", "nodes", "-o", "wide"])?);
//! lab.node("n2")?.kill()?;
//! lab.node("n2")?.start()?;
//! lab.down()?;
//! # Ok(())
//! # }
//! ```

mod cgroups;
mod config;
mod control;
mod dockerfile;
mod guest_node;
mod images;
mod lab;
mod loops;
mod namespace_node;
mod network;
mod node;
mod paths;
mod pki;
mod process;
mod sandbox;
mod status;
mod steps;
pub mod tools;
mod topology;

pub use control::Control;
pub use dockerfile::{build_images, executables};
pub use lab::{Lab, Options, down};
pub use node::Node;
pub use paths::Paths;
pub use status::status;
pub use topology::{BLOCK_DRIVE, NodeKind, NodeSpec};
