//! One node: power, freezing, and programs on it.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::paths::Paths;
use crate::process;
use crate::sandbox::Sandbox;
use crate::topology::{NodeKind, NodeSpec};
use crate::{cgroups, config, guest_node, loops, namespace_node, network};

/// A node of a lab that runs.
#[derive(Debug)]
pub struct Node<'a> {
    pub(crate) paths: &'a Paths,
    pub(crate) sandbox: &'a Sandbox,
    pub(crate) spec: NodeSpec,
    pub(crate) fast_timers: bool,
}

impl Node<'_> {
    /// Name, address, kind.
    pub fn spec(&self) -> &NodeSpec {
        &self.spec
    }

    /// The node's first process as this machine counts, if the node has power.
    pub fn pid(&self) -> Option<i32> {
        match self.spec.kind {
            NodeKind::Namespace => namespace_node::find(self),
            NodeKind::Guest => guest_node::find(self),
        }
    }

    /// Boots the node; one that runs is left alone. Does not wait until it is Ready.
    pub fn start(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        config::write(self.paths, &self.spec, self.fast_timers)?;
        fs::write(
            self.paths.node(&self.spec.name).join("config/labels"),
            self.spec.labels(),
        )?;
        match self.spec.kind {
            NodeKind::Namespace => {
                // Old empty cgroups make the kubelet's start 12 s longer.
                cgroups::remove(&self.cgroup());
                cgroups::create(&self.cgroup())?;
                network::boot(self.sandbox, &self.spec)?;
                namespace_node::boot(self)
            }
            NodeKind::Guest => guest_node::boot(self),
        }
        .and_then(|()| {
            process::wait("its first process", Duration::from_secs(30), || {
                Ok(self.pid().map(drop))
            })
        })
        .with_context(|| format!("cannot boot {}", self.spec.name))
    }

    /// Whatever a test left: power on, not frozen, link up.
    pub(crate) fn heal(&self) -> Result<()> {
        if self.pid().is_none() {
            return self.start();
        }
        if self.pid().is_some_and(process::is_stopped) {
            self.cont()?;
        }
        self.plug()
    }

    /// Waits until a node that boots has started everything, its kubelet included.
    pub fn wait_booted(&self) -> Result<()> {
        let what = format!("{} to boot", self.spec.name);
        process::wait(&what, Duration::from_secs(120), || {
            let pid = self.running()?;
            Ok(match self.spec.kind {
                NodeKind::Namespace => fs::exists(format!("/proc/{pid}/root/run/lab-ready"))
                    .unwrap_or(false)
                    .then_some(()),
                NodeKind::Guest => self.exec(&["test", "-e", "/run/lab-ready"]).ok().map(drop),
            })
        })
        .with_context(|| {
            let dir = self.paths.node(&self.spec.name);
            format!("see {}", dir.join("log").display())
        })
    }

    /// Takes the power away: the others hear nothing more from it, no farewell included.
    pub fn kill(&self) -> Result<()> {
        let Some(pid) = self.pid() else {
            return Ok(());
        };
        network::unplug(self.sandbox, &self.spec)?;
        let mut orphans = Vec::new();
        if self.spec.kind == NodeKind::Namespace {
            orphans = loops::of_node(self.paths, pid)?;
            loops::crash_file_systems(pid);
        }
        process::kill_and_wait(pid, Duration::from_secs(30))?;
        network::remove(self.sandbox, &self.spec)?;
        loops::detach_all(&orphans)?;
        cgroups::remove(&self.cgroup());
        Ok(())
    }

    /// Freezes every process of the node. The kernel of a node made of namespaces still
    /// acknowledges what arrives; the guest's is frozen too.
    pub fn stop(&self) -> Result<()> {
        let pid = self.running()?;
        match self.spec.kind {
            NodeKind::Namespace => namespace_node::freeze(pid),
            NodeKind::Guest => guest_node::freeze(pid),
        }
        Ok(())
    }

    /// Lets a frozen node go on.
    pub fn cont(&self) -> Result<()> {
        let pid = self.running()?;
        match self.spec.kind {
            NodeKind::Namespace => namespace_node::thaw(pid),
            NodeKind::Guest => guest_node::thaw(pid),
        }
        Ok(())
    }

    /// Cuts the node's link in the router; the node runs on, and neither side is told.
    pub fn unplug(&self) -> Result<()> {
        network::unplug(self.sandbox, &self.spec)
    }

    /// Mends the link.
    pub fn plug(&self) -> Result<()> {
        network::plug(self.sandbox, &self.spec)
    }

    /// A program on the node, in all its namespaces, ready to be started.
    ///
    /// On the guest only its words and its answer travel; standard input does not.
    pub fn command(&self, argv: &[&str]) -> Result<Command> {
        let pid = self.running()?;
        Ok(match self.spec.kind {
            NodeKind::Namespace => namespace_node::command(self, pid, argv),
            NodeKind::Guest => guest_node::command(self, argv),
        })
    }

    /// Runs a program on the node to its end.
    pub fn output(&self, argv: &[&str]) -> Result<Output> {
        process::output(&mut self.command(argv)?)
    }

    /// Runs a program on the node and returns what it printed; a failure is an error.
    pub fn exec(&self, argv: &[&str]) -> Result<String> {
        process::run(&mut self.command(argv)?)
    }

    /// Imports what lies in the lab's image directory and is new to this node.
    pub(crate) fn import(&self) -> Result<()> {
        let script = r#"set -e; . "$1/bin/node-services"; import_images "$1/images""#;
        let state = self.paths.state().to_string_lossy();
        self.exec(&["bash", "-c", script, "import", &state])
            .with_context(|| {
                format!(
                    "{} did not take an image; see {}",
                    self.spec.name,
                    self.paths
                        .node(&self.spec.name)
                        .join("log/images.log")
                        .display()
                )
            })
            .map(drop)
    }

    /// Whether [`Node::unplug`] has cut its link.
    pub fn is_cut(&self) -> bool {
        network::is_cut(self.sandbox, &self.spec)
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("{}/{}", self.paths.cgroup(), self.spec.name)
    }

    fn running(&self) -> Result<i32> {
        match self.pid() {
            Some(pid) => Ok(pid),
            None => bail!(
                "node {name} has no power; start it: weft-lab node start {name}",
                name = self.spec.name
            ),
        }
    }
}
