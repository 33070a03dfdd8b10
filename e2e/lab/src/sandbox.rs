//! The one outer sandbox: a network, mount and PID namespace that holds the whole lab.
//!
//! Its network namespace is the router ("leaf") between the nodes. SIGKILL of its first process
//! ends everything inside it, since the kernel ends all processes of a PID namespace with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::paths::Paths;
use crate::process;

const INIT: &str = include_str!("../scripts/sandbox-init.sh");

/// A sandbox that runs.
#[derive(Clone, Debug)]
pub(crate) struct Sandbox {
    pid: i32,
}

impl Sandbox {
    /// The sandbox of this state directory, if there is one.
    pub(crate) fn find(paths: &Paths) -> Option<Self> {
        let script = script(paths);
        process::all()
            .into_iter()
            .find(|p| p.is_init() && p.runs(&["bash", &script]))
            .map(|p| Self { pid: p.pid })
    }

    /// The state directory of another lab on this machine, which would fight with this one about
    /// loop devices.
    pub(crate) fn foreign(paths: &Paths) -> Option<PathBuf> {
        let own = paths.bin();
        process::all()
            .into_iter()
            .filter(|p| p.is_init() && p.runs(&["bash"]))
            .filter_map(|p| PathBuf::from(p.argv.get(1)?).parent().map(PathBuf::from))
            .find(|dir| *dir != own && dir.join("sandbox-init").exists())
            .and_then(|bin| bin.parent().map(PathBuf::from))
    }

    /// Starts one and waits until its namespaces are furnished.
    pub(crate) fn start(paths: &Paths) -> Result<Self> {
        let script = script(paths);
        fs::write(&script, INIT).with_context(|| format!("cannot write {script}"))?;
        let ready = paths.state().join("sandbox.ready");
        let _ = fs::remove_file(&ready);
        let log = fs::File::create(paths.logs().join("sandbox.log"))?;
        // setsid: a terminal's Ctrl-C is for the tool, not for the cluster.
        Command::new("setsid")
            .args(["unshare", "--net", "--mount", "--pid", "--fork"])
            .args(["--kill-child=SIGKILL", "bash", &script])
            .arg(&ready)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start unshare (package util-linux)")?;
        process::wait("the sandbox", Duration::from_secs(10), || {
            Ok(ready.exists().then(|| Self::find(paths)).flatten())
        })
        .with_context(|| format!("see {}", paths.logs().join("sandbox.log").display()))
    }

    /// The first process, as this machine counts.
    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it and everything inside.
    pub(crate) fn kill(self) -> Result<()> {
        process::kill_and_wait(self.pid, Duration::from_secs(30))
    }

    /// A program in the router's network, but with this machine's files and processes.
    pub(crate) fn net_command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &self.pid.to_string(), "-n", "--"])
            .arg(program);
        command
    }

    /// A program inside; `network` names one of its network namespaces, else it is the router's.
    /// The working directory is `/`.
    pub(crate) fn command(&self, network: Option<&str>, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid.to_string(), "-n", "-m", "-p", "--"]);
        if let Some(name) = network {
            command.args(["nsenter", &format!("--net=/run/netns/{name}"), "--"]);
        }
        command.arg(program);
        command
    }

    /// Runs a bash script inside, in the router's network.
    pub(crate) fn script(&self, text: &str) -> Result<String> {
        process::run(self.command(None, "bash").args(["-euc", text]))
    }

    /// Starts a program that stays, as a child of the sandbox's first process.
    pub(crate) fn spawn(&self, network: Option<&str>, log: &Path, argv: &[String]) -> Result<()> {
        process::run(
            self.command(network, "bash")
                .args([
                    "-c",
                    r#"log=$1; shift; setsid "$@" </dev/null >>"$log" 2>&1 &"#,
                ])
                .arg("spawn")
                .arg(log)
                .args(argv),
        )
        .map(drop)
    }
}

fn script(paths: &Paths) -> String {
    paths
        .bin()
        .join("sandbox-init")
        .to_string_lossy()
        .into_owned()
}
