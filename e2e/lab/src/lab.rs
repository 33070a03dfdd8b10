//! The lab as a whole.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::control::Control;
use crate::node::Node;
use crate::paths::Paths;
use crate::sandbox::Sandbox;
use crate::steps::Steps;
use crate::topology::{self, NodeSpec};
use crate::{cgroups, images, loops, pki, process, tools};

/// What a lab consists of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Nodes made of namespaces.
    pub nodes: u8,
    /// Whether there is a node with a kernel of its own (n4).
    pub guest: bool,
    /// Short timers for lost nodes (NotReady after 8 s instead of 50 s). Off, the cluster
    /// behaves as one with default settings.
    pub fast_timers: bool,
    /// Whether `up` is silent.
    #[serde(skip)]
    pub quiet: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            guest: true,
            fast_timers: false,
            quiet: false,
        }
    }
}

/// A lab that runs.
#[derive(Debug)]
pub struct Lab {
    paths: Paths,
    sandbox: Sandbox,
    options: Options,
}

impl Lab {
    /// Brings the lab up, or what is missing of it, and returns once every node is Ready and
    /// pods can be made.
    pub fn up(options: &Options) -> Result<Self> {
        let paths = Paths::from_env()?;
        let mut steps = Steps::new(options.quiet);
        tools::check_programs()?;
        fs::create_dir_all(paths.state())
            .with_context(|| format!("cannot make {}", paths.state().display()))?;
        let _lock = lock(&paths)?;
        tools::build(&paths, options.guest)?;

        let lab = match Sandbox::find(&paths) {
            Some(sandbox) => Self::found(paths, sandbox, options)?,
            None => Self::furnish(paths, options, &mut steps)?,
        };
        let control = lab.control();
        if !control.running() {
            crate::network::control(&lab.sandbox)?;
            control.begin()?;
        }
        lab.boot_nodes()?;
        steps.done("nodes have power");
        control.wait_ready()?;
        steps.done("the API server is ready");
        control.controllers()?;
        lab.wait_nodes()?;
        steps.done("all nodes are Ready");
        lab.wait_service_account()?;
        steps.done("pods can be made");
        if !options.quiet {
            eprintln!("weft-lab: up in {:.1} s", steps.total());
        }
        Ok(lab)
    }

    /// The lab that runs already.
    pub fn attach() -> Result<Self> {
        let paths = Paths::from_env()?;
        let Some(sandbox) = Sandbox::find(&paths) else {
            bail!("the lab is not up; start it: weft-lab up");
        };
        let options = read_options(&paths)?;
        Ok(Self {
            paths,
            sandbox,
            options,
        })
    }

    /// Ends the lab and removes everything that belongs to it.
    pub fn down(self) -> Result<()> {
        down(&self.paths)
    }

    /// The directories.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The one process whose death ends the lab.
    pub fn sandbox_pid(&self) -> i32 {
        self.sandbox.pid()
    }

    /// What it consists of.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The control plane.
    pub fn control(&self) -> Control<'_> {
        Control {
            paths: &self.paths,
            sandbox: &self.sandbox,
            fast_timers: self.options.fast_timers,
        }
    }

    /// All nodes, whether they have power or not.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        self.specs().into_iter().map(|s| self.as_node(s)).collect()
    }

    /// One node.
    pub fn node(&self, name: &str) -> Result<Node<'_>> {
        let specs = self.specs();
        let names: Vec<_> = specs.iter().map(|s| s.name.clone()).collect();
        match specs.into_iter().find(|s| s.name == name) {
            Some(spec) => Ok(self.as_node(spec)),
            None => bail!("the lab has no node {name:?}; it has {}", names.join(", ")),
        }
    }

    /// Runs kubectl to its end and returns what it printed; a failure is an error.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        process::run(self.kubectl_command().args(args))
    }

    /// `kubectl apply -f -` of a manifest.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        process::run_with_input(self.kubectl_command().args(["apply", "-f", "-"]), manifest)
    }

    /// kubectl of this lab, ready for arguments.
    pub fn kubectl_command(&self) -> Command {
        self.command(&self.paths.bin().join("kubectl").to_string_lossy())
    }

    /// helm for this lab, ready for arguments.
    pub fn helm_command(&self) -> Command {
        self.command(&self.paths.bin().join("helm").to_string_lossy())
    }

    /// A program of the machine in the network of the lab's router, from where nodes, pods and
    /// the API server can be reached; `KUBECONFIG` is set.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.sandbox.net_command(program);
        command.env("KUBECONFIG", self.paths.kubeconfig());
        command
    }

    /// Imports docker archives into every node, and into each that boots later.
    pub fn load(&self, archives: &[PathBuf]) -> Result<()> {
        images::keep(&self.paths, archives)?;
        let nodes = self.nodes();
        std::thread::scope(|scope| {
            let imports: Vec<_> = nodes
                .iter()
                .filter(|node| node.pid().is_some())
                .map(|node| scope.spawn(|| node.import()))
                .collect();
            for import in imports {
                match import.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("an import ended in a panic"),
                }
            }
            Ok(())
        })
    }

    /// Waits until every node is Ready.
    pub fn wait_nodes(&self) -> Result<()> {
        let names: Vec<_> = self.specs().into_iter().map(|spec| spec.name).collect();
        process::wait("all nodes to be Ready", Duration::from_secs(120), || {
            let ready = self.ready_nodes().unwrap_or_default();
            Ok(names.iter().all(|n| ready.contains(n)).then_some(()))
        })
        .with_context(|| {
            format!(
                "see {}/NODE/log/kubelet.log",
                self.paths.state().join("nodes").display()
            )
        })
    }

    /// The names of the nodes that are Ready.
    pub fn ready_nodes(&self) -> Result<Vec<String>> {
        let path = r#"{range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
        let text = self.kubectl(&[
            "--request-timeout=5s",
            "get",
            "nodes",
            "-o",
            &format!("jsonpath={path}"),
        ])?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_suffix("=True"))
            .map(str::to_owned)
            .collect())
    }

    fn wait_service_account(&self) -> Result<()> {
        process::wait("the first service account", Duration::from_secs(60), || {
            Ok(self.kubectl(&["get", "serviceaccount", "default"]).ok())
        })
        .map(drop)
    }

    /// Another `up`: the same lab, or an error that says how to get the other one.
    fn found(paths: Paths, sandbox: Sandbox, wanted: &Options) -> Result<Self> {
        let options = read_options(&paths)?;
        if (options.nodes, options.guest, options.fast_timers)
            != (wanted.nodes, wanted.guest, wanted.fast_timers)
        {
            bail!(
                "the lab is up with other options ({options:?}); take it down first: weft-lab down"
            );
        }
        tools::link(&paths)?;
        Ok(Self {
            paths,
            sandbox,
            options,
        })
    }

    /// Everything that comes before the first process of the cluster.
    fn furnish(paths: Paths, options: &Options, steps: &mut Steps) -> Result<Self> {
        if let Some(other) = Sandbox::foreign(&paths) {
            bail!(
                "another lab is up in {}; one machine holds one lab at a time: \
                 WEFT_LAB_DIR={0} weft-lab down",
                other.display()
            );
        }
        // What a crash may have left, the old etcd included.
        clean(&paths)?;
        for dir in [paths.bin(), paths.logs(), paths.images()] {
            fs::create_dir_all(dir)?;
        }
        fs::write(options_file(&paths), serde_json::to_string(options)?)?;
        loops::remember(&paths)?;
        tools::link(&paths)?;
        let specs = topology::nodes(options.nodes, options.guest);
        pki::generate(&paths, &specs)?;
        images::base(&paths)?;
        disk_names(&paths)?;
        steps.done("keys, certificates, images");
        let sandbox = Sandbox::start(&paths)?;
        let lab = Self {
            paths,
            sandbox,
            options: options.clone(),
        };
        crate::network::control(&lab.sandbox)?;
        lab.control().begin()?;
        steps.done("sandbox, etcd and API server started");
        Ok(lab)
    }

    fn boot_nodes(&self) -> Result<()> {
        let nodes = self.nodes();
        std::thread::scope(|scope| {
            let boots: Vec<_> = nodes
                .iter()
                .map(|node| scope.spawn(|| node.heal()))
                .collect();
            for boot in boots {
                match boot.join() {
                    Ok(result) => result?,
                    Err(_) => bail!("a boot ended in a panic"),
                }
            }
            Ok(())
        })
    }

    fn specs(&self) -> Vec<NodeSpec> {
        topology::nodes(self.options.nodes, self.options.guest)
    }

    fn as_node(&self, spec: NodeSpec) -> Node<'_> {
        Node {
            paths: &self.paths,
            sandbox: &self.sandbox,
            spec,
            fast_timers: self.options.fast_timers,
        }
    }
}

/// Ends the lab of these directories, running or crashed, and removes everything that belongs to
/// it. The logs stay in `last-logs`.
pub fn down(paths: &Paths) -> Result<()> {
    if !paths.state().exists() {
        return Ok(());
    }
    let _lock = lock(paths)?;
    if let Some(sandbox) = Sandbox::find(paths) {
        let options = read_options(paths).unwrap_or_default();
        let lab = Lab {
            paths: paths.clone(),
            sandbox,
            options,
        };
        let mut orphans = Vec::new();
        for node in lab.nodes() {
            if let Some(pid) = node.pid() {
                orphans.extend(loops::of_node(paths, pid)?);
            }
        }
        lab.sandbox.kill()?;
        loops::detach_all(&orphans)?;
    }
    clean(paths)
}

/// Removes what a sandbox that is dead has left.
fn clean(paths: &Paths) -> Result<()> {
    loops::detach_leftovers(paths)?;
    cgroups::remove(&paths.cgroup());
    if paths.state().join("made-dev-disk").exists() {
        let _ = fs::remove_dir("/dev/disk");
    }
    keep_logs(paths)?;
    let Ok(entries) = fs::read_dir(paths.state()) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if ["last-logs", "lock"]
            .iter()
            .any(|keep| path.ends_with(keep))
        {
            continue;
        }
        let result = if entry.file_type()?.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        result.with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The logs of the last lab outlive it: they are what one wants after a failure.
fn keep_logs(paths: &Paths) -> Result<()> {
    if !paths.logs().exists() {
        return Ok(());
    }
    let kept = paths.state().join("last-logs");
    let _ = fs::remove_dir_all(&kept);
    fs::rename(paths.logs(), &kept)?;
    let Ok(nodes) = fs::read_dir(paths.state().join("nodes")) else {
        return Ok(());
    };
    for node in nodes.flatten() {
        let _ = fs::rename(node.path().join("log"), kept.join(node.file_name()));
    }
    Ok(())
}

/// The nodes mount their own `/dev/disk`; the machine may have no such directory.
fn disk_names(paths: &Paths) -> Result<()> {
    if PathBuf::from("/dev/disk").exists() {
        return Ok(());
    }
    File::create(paths.state().join("made-dev-disk"))?;
    fs::create_dir("/dev/disk").context("cannot make /dev/disk")
}

fn options_file(paths: &Paths) -> PathBuf {
    paths.state().join("options.json")
}

fn read_options(paths: &Paths) -> Result<Options> {
    let file = options_file(paths);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", file.display()))
}

/// One tool at a time; the lock goes with the process.
fn lock(paths: &Paths) -> Result<File> {
    let path = paths.state().join("lock");
    let is_new = fs::read_dir(paths.state())?.next().is_none();
    if !is_new && !path.exists() {
        bail!(
            "{} is not empty and was not made by weft-lab; it would be emptied",
            paths.state().display()
        );
    }
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    flock(&file, FlockOperation::LockExclusive).context("cannot lock the state directory")?;
    Ok(file)
}
