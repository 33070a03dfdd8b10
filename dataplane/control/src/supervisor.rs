//! PID 1 of a data path pod: the same binary, running itself as its one child.
//!
//! The supervisor restarts the child at once when it dies, forwards SIGTERM, reaps whatever
//! ends below it, and *parks* when the child exits with [`PARKED`]: then nothing is started
//! again and only SIGTERM ends the pod (design section 6, rule 10). It has one thread, no
//! runtime, and sleeps in one `poll` without a time-out while the child lives.
//!
//! What it decides is in [`Restarts`] and [`after_exit`]; `run` only waits and does.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::io::Read;
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Exit status of a child that met a newer fence pair and must not be started again.
pub const PARKED: u8 = 78;

/// Environment variable that tells the child which descriptors it was given (`5,6`).
const FDS_VARIABLE: &str = "WEFT_FDS";
/// The argument that asks for a supervisor; the child does not get it.
const SUPERVISE_ARGUMENT: &str = "--supervise";
/// Added at each death that comes early; the first restart does not wait.
const PAUSE_STEP: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A child that lived this long starts anew without a pause.
const LONG_LIFE: Duration = Duration::from_secs(10);

/// What the supervisor is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Descriptors that stay open in each child, with the same numbers. They must stay open
    /// here for good: the caller gives them away.
    pub keep_fds: Vec<RawFd>,
}

/// The descriptors that the supervisor handed to this process, in the order of
/// [`Options::keep_fds`]; empty without a supervisor.
pub fn inherited_fds() -> Vec<RawFd> {
    let list = std::env::var(FDS_VARIABLE).unwrap_or_default();
    list.split(',').filter_map(|fd| fd.parse().ok()).collect()
}

/// Runs this program again without `--supervise` as the one child, until SIGTERM (or SIGINT)
/// ends it. Call it before any runtime or thread exists; give its result to the system.
pub fn run(options: Options) -> ExitCode {
    match Supervisor::new(options).and_then(Supervisor::run) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // No tracing here: the supervisor sets up no subscriber.
            eprintln!("supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Supervisor {
    options: Options,
    /// Readable when SIGTERM or SIGINT came.
    stop: UnixStream,
    /// Readable when SIGCHLD came.
    child_ended: UnixStream,
    child: Option<(Pid, Instant)>,
    stopping: bool,
}

impl Supervisor {
    fn new(options: Options) -> std::io::Result<Self> {
        let (stop, stop_sender) = UnixStream::pair()?;
        let (child_ended, child_sender) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        child_ended.set_nonblocking(true)?;
        let interrupt_sender = stop_sender.try_clone()?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGTERM, stop_sender)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, interrupt_sender)?;
        signal_hook::low_level::pipe::register(signal_hook::consts::SIGCHLD, child_sender)?;
        // Outside a PID name space of its own it still reaps what its child leaves behind.
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        for fd in &options.keep_fds {
            keep_across_exec(*fd)?;
        }
        Ok(Self {
            options,
            stop,
            child_ended,
            child: None,
            stopping: false,
        })
    }

    fn run(mut self) -> std::io::Result<u8> {
        let mut restarts = Restarts::default();
        self.start()?;
        loop {
            self.wait(None)?;
            if let (Some((child, _)), true) = (self.child, self.stopping) {
                // Already gone is fine: it is reaped below.
                let _gone = kill_process(child, Signal::TERM);
            }
            let Some(exit) = self.reap()? else { continue };
            match after_exit(exit.code, self.stopping) {
                After::Leave(code) => return Ok(code),
                After::Park => {
                    eprintln!(
                        "supervisor: parked: a newer engine owns the volume; waiting for SIGTERM"
                    );
                    return self.until_stopped();
                }
                After::Restart => {}
            }
            let pause = restarts.pause(exit.lived);
            eprintln!(
                "supervisor: the child ended with status {} after {:?}, starting it again in {pause:?}",
                exit.code, exit.lived
            );
            let due = Instant::now() + pause;
            while !self.stopping && Instant::now() < due {
                self.wait(Some(due.saturating_duration_since(Instant::now())))?;
                self.reap()?;
            }
            if self.stopping {
                return Ok(0);
            }
            self.start()?;
        }
    }

    fn start(&mut self) -> std::io::Result<()> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        // The path gives the process its own name in listings; the link is there in any case.
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let program = if program.exists() {
            program
        } else {
            "/proc/self/exe".into()
        };
        let fds: Vec<String> = self.options.keep_fds.iter().map(RawFd::to_string).collect();
        let child = Command::new(program)
            .arg0(name)
            .args(arguments.filter(|argument| argument != SUPERVISE_ARGUMENT))
            .env(FDS_VARIABLE, fds.join(","))
            .spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        self.child = pid.map(|pid| (pid, Instant::now()));
        Ok(())
    }

    /// Sleeps until a signal came or `longest` is over.
    fn wait(&mut self, longest: Option<Duration>) -> std::io::Result<()> {
        let longest = longest.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        let mut fds = [
            PollFd::new(&self.stop, PollFlags::IN),
            PollFd::new(&self.child_ended, PollFlags::IN),
        ];
        match poll(&mut fds, longest.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.stopping |= drain(&self.stop);
        drain(&self.child_ended);
        Ok(())
    }

    /// Reaps everything that has ended; tells of the child, if it was among it.
    fn reap(&mut self) -> std::io::Result<Option<Exit>> {
        let mut ended = None;
        loop {
            match waitpid(None, WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    if let Some((child, since)) = self.child
                        && child == pid
                    {
                        self.child = None;
                        ended = Some(Exit {
                            code: exit_code(status),
                            lived: since.elapsed(),
                        });
                    }
                }
                Ok(None) | Err(rustix::io::Errno::CHILD) => return Ok(ended),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn until_stopped(mut self) -> std::io::Result<u8> {
        while !self.stopping {
            self.wait(None)?;
            self.reap()?;
        }
        Ok(0)
    }
}

/// How the child ended: its status, or 128 and the signal as shells count it.
struct Exit {
    code: u8,
    lived: Duration,
}

fn exit_code(status: rustix::process::WaitStatus) -> u8 {
    let code = match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    };
    u8::try_from(code).unwrap_or(255)
}

/// What follows the end of the child.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum After {
    Restart,
    Park,
    Leave(u8),
}

fn after_exit(code: u8, stopping: bool) -> After {
    match (code, stopping) {
        // A parked child has nothing left to end: the pod was deleted as it should be.
        (PARKED, true) => After::Leave(0),
        (code, true) => After::Leave(code),
        (PARKED, false) => After::Park,
        (_, false) => After::Restart,
    }
}

/// Pause before the next start: 0, 0.1 … 2 s while the child dies early.
#[derive(Default)]
struct Restarts {
    next: Duration,
}

impl Restarts {
    fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= LONG_LIFE {
            self.next = Duration::ZERO;
        }
        let pause = self.next;
        self.next = (pause + PAUSE_STEP).min(LONGEST_PAUSE);
        pause
    }
}

fn drain(mut stream: &UnixStream) -> bool {
    let mut any = false;
    let mut bytes = [0u8; 64];
    while matches!(stream.read(&mut bytes), Ok(1..)) {
        any = true;
    }
    any
}

#[expect(
    unsafe_code,
    reason = "descriptors handed over by number: Options::keep_fds"
)]
fn keep_across_exec(fd: RawFd) -> std::io::Result<()> {
    if fd < 0 {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: only borrowed for this one call; a number that is not open gives EBADF, and it is
    // not -1.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    Ok(rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_pauses_grow_to_two_seconds() {
        let mut restarts = Restarts::default();
        let pauses: Vec<_> = (0..25)
            .map(|_| restarts.pause(Duration::from_secs(1)).as_millis())
            .collect();
        assert_eq!(pauses[..4], [0, 100, 200, 300]);
        assert_eq!(pauses[20..], [2000; 5]);
    }

    #[test]
    fn ten_seconds_of_life_start_the_pauses_anew() {
        let mut restarts = Restarts::default();
        restarts.pause(Duration::ZERO);
        restarts.pause(Duration::ZERO);
        assert_eq!(restarts.pause(LONG_LIFE), Duration::ZERO);
        assert_eq!(restarts.pause(Duration::ZERO), PAUSE_STEP);
    }

    #[test]
    fn what_follows_the_end_of_the_child() {
        let table = [
            (0, false, After::Restart),
            (1, false, After::Restart),
            (137, false, After::Restart),
            (PARKED, false, After::Park),
            (0, true, After::Leave(0)),
            (143, true, After::Leave(143)),
            (PARKED, true, After::Leave(0)),
        ];
        for (code, stopping, expected) in table {
            assert_eq!(after_exit(code, stopping), expected, "{code} {stopping}");
        }
    }
}
