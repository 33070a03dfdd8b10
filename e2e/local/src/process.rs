//! A Weft process: started, looked at, killed by number.

use crate::nodes::Node;
use crate::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Whether PID 1 of a pod is played as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The supervisor, and the process as its child.
    Supervised,
    /// The process alone.
    Direct,
}

/// A running Weft program. It is alone in a PID namespace, and the whole of it dies with the
/// thread that started it.
pub struct Process {
    name: &'static str,
    role: Role,
    outer: Child,
    log: PathBuf,
}

/// The executable of a Weft program.
///
/// # Panics
/// When it was not built.
pub fn executable(name: &str) -> PathBuf {
    let directory = match std::env::var_os("WEFT_BIN") {
        Some(directory) => PathBuf::from(directory),
        None => {
            let this = std::env::current_exe().expect("a test knows its own executable");
            let above = this.parent().expect("it lies in a directory");
            let above = if above.ends_with("deps") {
                above.parent()
            } else {
                Some(above)
            };
            above.expect("deps lies in the target directory").to_owned()
        }
    };
    let path = directory.join(name);
    assert!(
        path.is_file(),
        "{} does not exist: build it first (`make local`, or `cargo build -p {name}`)",
        path.display()
    );
    path
}

impl Process {
    /// Starts a program with its document.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(name: &'static str, role: Role, document: &Path) -> Self {
        Self::start_on(None, name, role, document)
    }

    /// The same on a node.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start_on(node: Option<&Node>, name: &'static str, role: Role, document: &Path) -> Self {
        let log = document.with_extension("log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .expect("a log file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(node) = node {
            command.args(["nsenter", &format!("--net={}", node.namespace())]);
        }
        command.args(["unshare", "--pid", "--fork", "--kill-child=KILL", "--"]);
        command
            .arg(executable(name))
            .arg("--document")
            .arg(document);
        if role == Role::Supervised {
            command.arg("--supervise");
        }
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a descriptor"))
            .stderr(output);
        let outer = command
            .spawn()
            .expect("setpriv and unshare (package util-linux)");
        Self {
            name,
            role,
            outer,
            log,
        }
    }

    /// Name of the program.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The first process of the pod: the supervisor, or the program when it runs alone.
    pub fn first(&self) -> Option<Pid> {
        let outer = Pid::from_child(&self.outer);
        only_child(outer).filter(|pid| named(*pid, self.name))
    }

    /// The process that does the work.
    pub fn worker(&self) -> Option<Pid> {
        match self.role {
            Role::Direct => self.first(),
            Role::Supervised => only_child(self.first()?).filter(|pid| named(*pid, self.name)),
        }
    }

    /// Kills the working process with SIGKILL and waits until the supervisor has another.
    pub fn kill_worker(&self) {
        let killed = until("a worker", || self.worker());
        signal(killed, Signal::KILL);
        until("the next worker", || {
            self.worker().filter(|pid| *pid != killed)
        });
    }

    /// Sends a signal to the working process.
    pub fn signal_worker(&self, which: Signal) {
        signal(until("a worker", || self.worker()), which);
    }

    /// Sends a signal to the first process.
    pub fn signal_first(&self, which: Signal) {
        signal(until("a first process", || self.first()), which);
    }

    /// Waits for its end.
    pub fn end(&mut self) -> ExitStatus {
        until("the end of the process", || {
            self.outer.try_wait().ok().flatten()
        })
    }

    /// Whether all of it is gone.
    pub fn ended(&mut self) -> bool {
        self.outer.try_wait().is_ok_and(|status| status.is_some())
    }

    /// Everything it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Where that is written.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Kills the whole of it, as a machine does that loses power.
    pub fn kill(&mut self) {
        if let Some(first) = self.first() {
            signal(first, Signal::KILL);
        }
        let _gone = self.outer.kill();
        let _reaped = self.outer.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- {} ({}) said:\n{}",
                self.name,
                self.log.display(),
                self.log()
            );
        }
        self.kill();
    }
}

/// The exit status that the program itself ended with.
pub fn exit_code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn signal(pid: Pid, which: Signal) {
    let _gone_already = kill_process(pid, which);
}

/// The only child of a process.
fn only_child(parent: Pid) -> Option<Pid> {
    let parent = parent.as_raw_nonzero();
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let mut pids = list.split_whitespace();
    let pid = Pid::from_raw(pids.next()?.parse().ok()?)?;
    pids.next().is_none().then_some(pid)
}

/// Whether a process runs that program already (between fork and exec it does not), and is alive.
fn named(pid: Pid, name: &str) -> bool {
    let pid = pid.as_raw_nonzero();
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with(name))
}
