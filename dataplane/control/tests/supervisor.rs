//! The supervisor with real processes. This program is also the supervised one: it has no test
//! harness, because the harness would start threads before the supervisor runs.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use anyhow::{Context, Result, ensure};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};
use weft_control::supervisor::{self, Options};

const DEADLINE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match std::env::var("WEFT_TEST_ROLE") {
        Ok(_) if arguments.iter().any(|argument| argument == "--supervise") => supervise(),
        Ok(role) => child(&role, Path::new(&arguments[0])),
        Err(_) => tests(),
    }
}

fn supervise() -> ExitCode {
    let (kept, _other) = UnixStream::pair().unwrap();
    let options = Options {
        keep_fds: vec![kept.as_raw_fd()],
    };
    std::mem::forget(kept);
    supervisor::run(options)
}

/// What the supervised program does: writes one line at its start, then plays its role.
fn child(role: &str, log: &Path) -> ExitCode {
    let (mut stop, sender) = UnixStream::pair().unwrap();
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, sender).unwrap();
    let mut file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(log)
        .unwrap();
    writeln!(file, "{}", std::process::id()).unwrap();
    let starts = std::fs::read_to_string(log).unwrap().lines().count();
    match role {
        "dies three times" if starts <= 3 => return ExitCode::from(3),
        "parks" => return ExitCode::from(supervisor::PARKED),
        "leaves an orphan" => {
            let script = "sh -c 'exec sleep 0.1' & echo orphan $! >> \"$0\"";
            Command::new("sh")
                .args(["-c", script])
                .arg(log)
                .status()
                .unwrap();
        }
        "ticks" => {
            for _ in 0..50 {
                std::thread::sleep(Duration::from_millis(10));
            }
            writeln!(file, "ticked").unwrap();
        }
        "uses its descriptors" => {
            let fds: Vec<RawFd> = supervisor::inherited_fds();
            let open = fds.len() == 1 && Path::new(&format!("/proc/self/fd/{}", fds[0])).exists();
            writeln!(file, "open {open}").unwrap();
        }
        _ => {}
    }
    stop.read_exact(&mut [0]).unwrap();
    ExitCode::SUCCESS
}

fn tests() -> ExitCode {
    type Test = (&'static str, fn() -> Result<()>);
    let all: [Test; 7] = [
        (
            "a_child_that_dies_is_started_again",
            a_child_that_dies_is_started_again,
        ),
        (
            "a_killed_child_is_started_again_at_once",
            a_killed_child_is_started_again_at_once,
        ),
        (
            "sigterm_reaches_the_child_and_its_status_is_kept",
            sigterm_reaches_the_child_and_its_status_is_kept,
        ),
        (
            "a_parked_child_is_not_started_again",
            a_parked_child_is_not_started_again,
        ),
        ("orphans_are_reaped", orphans_are_reaped),
        (
            "it_sleeps_while_the_child_lives",
            it_sleeps_while_the_child_lives,
        ),
        (
            "descriptors_survive_into_the_child",
            descriptors_survive_into_the_child,
        ),
    ];
    let mut failed = false;
    for (name, test) in all {
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(error) => {
                failed = true;
                println!("test {name} ... FAILED: {error:?}");
            }
        }
    }
    ExitCode::from(u8::from(failed))
}

struct Supervised {
    process: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Supervised {
    fn start(role: &str) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let log = directory.path().join("log");
        let process = Command::new(std::env::current_exe()?)
            .arg("--supervise")
            .arg(&log)
            .env("WEFT_TEST_ROLE", role)
            .stderr(std::process::Stdio::null())
            .spawn()?;
        Ok(Self {
            process,
            log,
            _directory: directory,
        })
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // Only whole lines: one is written in several pieces.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(str::to_owned).collect()
    }

    fn until(&self, what: &str, condition: impl Fn(&[String]) -> bool) -> Result<Vec<String>> {
        let end = Instant::now() + DEADLINE;
        loop {
            let lines = self.lines();
            if condition(&lines) {
                return Ok(lines);
            }
            ensure!(Instant::now() < end, "not in time: {what}: {lines:?}");
            std::thread::yield_now();
        }
    }

    fn proc(&self, file: &str) -> String {
        let id = self.process.id();
        std::fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default()
    }

    fn children(&self) -> Vec<String> {
        let file = format!("task/{}/children", self.process.id());
        self.proc(&file)
            .split_whitespace()
            .map(str::to_owned)
            .collect()
    }

    fn switches(&self) -> Option<u64> {
        let status = self.proc("status");
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().last()?.parse().ok()
    }

    fn terminate(&mut self) -> Result<Option<i32>> {
        signal(self.process.id(), rustix::process::Signal::TERM)?;
        Ok(self.process.wait()?.code())
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        // After a failed test: the child first, else it would outlive its supervisor.
        let children = self.children();
        self.process.kill().ok();
        self.process.wait().ok();
        for child in children.iter().filter_map(|child| child.parse().ok()) {
            signal(child, rustix::process::Signal::KILL).ok();
        }
    }
}

fn signal(process: u32, signal: rustix::process::Signal) -> Result<()> {
    let pid = rustix::process::Pid::from_raw(i32::try_from(process)?).context("pid 0")?;
    Ok(rustix::process::kill_process(pid, signal)?)
}

fn a_child_that_dies_is_started_again() -> Result<()> {
    let mut supervised = Supervised::start("dies three times")?;
    supervised.until("four starts", |lines| lines.len() == 4)?;
    ensure!(supervised.terminate()? == Some(0));
    ensure!(supervised.lines().len() == 4);
    Ok(())
}

fn a_killed_child_is_started_again_at_once() -> Result<()> {
    let mut supervised = Supervised::start("lives")?;
    for starts in 1..=3 {
        let lines = supervised.until("a start", |lines| lines.len() == starts)?;
        signal(lines[starts - 1].parse()?, rustix::process::Signal::KILL)?;
    }
    supervised.until("the last start", |lines| lines.len() == 4)?;
    ensure!(supervised.terminate()? == Some(0));
    Ok(())
}

fn sigterm_reaches_the_child_and_its_status_is_kept() -> Result<()> {
    let mut supervised = Supervised::start("lives")?;
    let lines = supervised.until("a start", |lines| !lines.is_empty())?;
    ensure!(supervised.terminate()? == Some(0));
    ensure!(!Path::new(&format!("/proc/{}", lines[0])).exists());
    Ok(())
}

fn a_parked_child_is_not_started_again() -> Result<()> {
    let mut supervised = Supervised::start("parks")?;
    supervised.until("a start", |lines| !lines.is_empty())?;
    let end = Instant::now() + DEADLINE;
    while !(supervised.children().is_empty() && supervised.proc("status").contains("State:\tS")) {
        ensure!(Instant::now() < end, "the parked child is not reaped");
    }
    ensure!(supervised.process.try_wait()?.is_none());
    ensure!(supervised.terminate()? == Some(0));
    ensure!(supervised.lines().len() == 1);
    Ok(())
}

fn orphans_are_reaped() -> Result<()> {
    let mut supervised = Supervised::start("leaves an orphan")?;
    let lines = supervised.until("an orphan", |lines| lines.len() == 2)?;
    let orphan = lines[1].replace("orphan ", "/proc/");
    let end = Instant::now() + DEADLINE;
    while Path::new(&orphan).exists() {
        ensure!(
            Instant::now() < end,
            "the orphan stays: {}",
            std::fs::read_to_string(Path::new(&orphan).join("status"))?
        );
    }
    ensure!(supervised.children() == [lines[0].clone()]);
    ensure!(supervised.terminate()? == Some(0));
    Ok(())
}

fn it_sleeps_while_the_child_lives() -> Result<()> {
    let mut supervised = Supervised::start("ticks")?;
    supervised.until("a start", |lines| !lines.is_empty())?;
    let end = Instant::now() + DEADLINE;
    while !supervised.proc("status").contains("State:\tS") {
        ensure!(Instant::now() < end, "the supervisor does not go to sleep");
    }
    let before = supervised.switches();
    supervised.until("half a second of the child", |lines| lines.len() == 2)?;
    ensure!(before.is_some() && supervised.switches() == before);
    ensure!(supervised.terminate()? == Some(0));
    Ok(())
}

fn descriptors_survive_into_the_child() -> Result<()> {
    let mut supervised = Supervised::start("uses its descriptors")?;
    let lines = supervised.until("its word", |lines| lines.len() == 2)?;
    ensure!(lines[1] == "open true", "{lines:?}");
    ensure!(supervised.terminate()? == Some(0));
    Ok(())
}
