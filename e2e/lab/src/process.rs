//! Running programs, and finding processes by what they are instead of by files with numbers.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// One process of this machine, as `/proc` shows it.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// As this PID namespace counts.
    pub pid: i32,
    pub parent: i32,
    /// Its number in every PID namespace from this one inwards.
    pub numbers: Vec<i32>,
    pub argv: Vec<String>,
}

impl Process {
    /// Whether it is the first process of a PID namespace below this one.
    pub(crate) fn is_init(&self) -> bool {
        self.numbers.len() > 1 && self.numbers.last() == Some(&1)
    }

    /// Whether the argument list begins like this.
    pub(crate) fn runs(&self, argv: &[&str]) -> bool {
        self.argv.len() >= argv.len() && self.argv.iter().zip(argv).all(|(a, b)| a == b)
    }

    fn read(pid: i32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::trim)
        };
        // A zombie keeps its number but does nothing any more.
        if field("State:")?.starts_with('Z') {
            return None;
        }
        let numbers = field("NSpid:")?
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let argv = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Some(Self {
            pid,
            parent: field("PPid:")?.parse().ok()?,
            numbers,
            argv: argv
                .split(|byte| *byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect(),
        })
    }
}

/// All processes that can be seen from here.
pub(crate) fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(Process::read)
        .collect()
}

/// A process and everything below it. Orphans of a PID namespace belong to its first process,
/// so for an init this is the whole namespace.
pub(crate) fn tree(root: i32) -> Vec<Process> {
    let all = all();
    let mut members = vec![root];
    let mut next = 0;
    while let Some(parent) = members.get(next).copied() {
        members.extend(all.iter().filter(|p| p.parent == parent).map(|p| p.pid));
        next += 1;
    }
    all.into_iter()
        .filter(|p| members.contains(&p.pid))
        .collect()
}

/// Sends a signal; a process that is gone already is no error.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, signal);
    }
}

/// SIGKILL, then waits until the number is free again.
pub(crate) fn kill_and_wait(pid: i32, deadline: Duration) -> Result<()> {
    signal(pid, Signal::KILL);
    wait(&format!("the end of process {pid}"), deadline, || {
        Ok((!alive(pid)).then_some(()))
    })
}

/// Whether the process runs.
pub(crate) fn alive(pid: i32) -> bool {
    Process::read(pid).is_some()
}

/// Whether the process is frozen by SIGSTOP.
pub(crate) fn is_stopped(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|text| {
        text.lines()
            .any(|line| line.starts_with("State:") && line.contains("(stopped)"))
    })
}

/// Asks again and again until there is an answer.
pub(crate) fn wait<T>(
    what: &str,
    deadline: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > deadline {
            bail!("waited {} s for {what} in vain", deadline.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a program to its end; its complaints become the error.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with a text on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // The program may end before it has read everything; its status tells then.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim(),
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end and hands over all it said.
pub(crate) fn output(command: &mut Command) -> Result<Output> {
    command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", shown(command)))
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_found_below_its_parent_and_is_gone_after_the_kill() {
        let mut child = Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep starts");
        let pid = child.id() as i32;
        let me = std::process::id() as i32;
        // exec hands the new argument list over after it has let the parent go on.
        wait("sleep below this process", Duration::from_secs(5), || {
            let found = tree(me).iter().any(|p| p.pid == pid && p.runs(&["sleep"]));
            Ok(found.then_some(()))
        })
        .expect("it is found");
        kill_and_wait(pid, Duration::from_secs(5)).expect("it dies");
        child.wait().expect("it can be reaped");
        assert!(!alive(pid));
    }

    #[test]
    fn the_error_of_a_failed_program_carries_its_words() {
        let error = run(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"]))
            .expect_err("it fails");
        assert!(error.to_string().contains("no such thing"), "{error}");
    }
}
