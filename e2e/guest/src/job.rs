//! A script in a guest, from start to end.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::kernel::kernel;
use crate::machine::{INIT_SCRIPT, Link, Machine};

const JOB_SCRIPT: &str = include_str!("../scripts/job.sh");

/// Runs jobs, each in a guest of its own.
#[derive(Clone, Debug)]
pub struct Guest {
    kernel: PathBuf,
}

/// What a guest shall do.
#[derive(Clone, Debug)]
pub struct Job {
    /// A bash script. It runs as root with the host's programs; what it writes is gone
    /// afterwards, except below `shares`.
    pub script: String,
    /// The guest's network.
    pub network: Option<Network>,
    /// Memory in MiB.
    pub memory: u32,
    /// After this time the guest is killed.
    pub time_limit: Duration,
    /// Directories of the host in which the script may write.
    pub shares: Vec<PathBuf>,
}

/// Where the guest's tap is.
#[derive(Clone, Debug)]
pub struct Network {
    /// What is put before the guest's command line so that it runs in the network namespace of
    /// the tap, for example `ip netns exec NAME`; empty for the caller's own namespace.
    pub enter: Vec<String>,
    /// Tap, address and gateway.
    pub link: Link,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Report {
    /// The script's exit status; none when the guest died before the script ended.
    pub status: Option<i32>,
    /// What the script said, both streams.
    pub out: String,
    /// The guest's kernel log.
    pub dmesg: String,
    /// What the kernel said before there was a script.
    pub console: String,
}

impl Default for Job {
    fn default() -> Self {
        Self {
            script: String::new(),
            network: None,
            memory: 1024,
            time_limit: Duration::from_secs(120),
            shares: Vec::new(),
        }
    }
}

impl Guest {
    /// Finds the kernel in the cache or builds it there.
    pub fn new(cache: &Path) -> Result<Self> {
        Ok(Self {
            kernel: kernel(cache)?,
        })
    }

    /// Starts a guest, waits for its end and collects what it left.
    pub fn run(&self, job: &Job) -> Result<Report> {
        self.start(job)?.wait()
    }

    /// Starts a guest and returns at once.
    pub fn start(&self, job: &Job) -> Result<Running> {
        // Not below /tmp or /run: there the guest has file systems of its own.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = PathBuf::from(format!(
            "/var/tmp/weft-guest-{}-{number}",
            std::process::id()
        ));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let dir = JobDir(dir);
        let file = |name: &str, text: &str| -> Result<PathBuf> {
            let path = dir.0.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            Ok(path)
        };
        file("script", &job.script)?;
        let mut shares = vec![dir.0.clone()];
        shares.extend(job.shares.iter().cloned());
        let init = file("init", INIT_SCRIPT)?;
        // The kernel executes it.
        rustix::fs::chmod(&init, rustix::fs::Mode::RWXU)?;
        let machine = Machine {
            kernel: self.kernel.clone(),
            name: format!("guest{number}"),
            init,
            script: file("job", JOB_SCRIPT)?,
            memory: job.memory,
            shares,
            link: job.network.as_ref().map(|n| n.link.clone()),
            disk: None,
            environment: vec![
                ("WEFT_JOB".to_owned(), dir.0.display().to_string()),
                (
                    "WEFT_LIMIT".to_owned(),
                    (job.time_limit.as_secs() + 10).to_string(),
                ),
            ],
        };
        let enter = job.network.as_ref().map_or(&[][..], |n| &n.enter);
        let argv: Vec<String> = enter.iter().cloned().chain(machine.argv()).collect();
        let (program, args) = argv.split_first().context("no command line")?;
        let console = File::create(dir.0.join("console"))?;
        let child = Command::new(program)
            .args(args)
            .env("TMPDIR", "/dev/shm")
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Running {
            child,
            dir,
            end: Instant::now() + job.time_limit,
        })
    }
}

/// A guest at work. Dropping it takes its power away.
#[derive(Debug)]
pub struct Running {
    child: Child,
    dir: JobDir,
    end: Instant,
}

impl Running {
    /// Takes the guest's power away.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Whether it has ended.
    pub fn is_over(&mut self) -> bool {
        // A child that cannot be asked is none any more.
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits for the end; a guest that takes too long is killed, which is an error.
    pub fn wait(mut self) -> Result<Report> {
        let child = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        while !self.is_over() {
            let left = self.end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.kill()?;
                let report = self.report();
                bail!(
                    "the guest did not end in time; it said:\n{}\n{}",
                    report.console,
                    report.out
                );
            }
            match poll(
                &mut [PollFd::new(&child, PollFlags::IN)],
                Some(&left.try_into()?),
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.report())
    }

    fn report(&self) -> Report {
        let read = |name: &str| {
            fs::read(self.dir.0.join(name))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .unwrap_or_default()
        };
        Report {
            status: read("rc").trim().parse().ok(),
            out: read("out"),
            dmesg: read("dmesg"),
            console: read("console"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, in most cases.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The files of a job, removed with it.
#[derive(Debug)]
struct JobDir(PathBuf);

impl Drop for JobDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
