//! The whole stack on one machine: drive, engine, initiator, loop device, ext4.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use rustix::process::Signal;
use std::cell::RefCell;
use weft_e2e_local::files::{self, FileSystem};
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role, exit_code};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::wait::until;
use weft_spec::ids::Term;
use weft_spec::initiator::{InitiatorStatus, VolumePath};

/// Bytes written under the kills.
const LENGTH: usize = 48 << 20;
/// Kills while they are written: few enough for the supervisor's pauses not to add up to minutes.
const TIMES: u32 = 12;

/// In the order in which they go: the directory with the logs last.
struct Stack {
    initiator: Process,
    engine: Process,
    drive: Process,
    setup: Setup,
}

impl Stack {
    fn start() -> Self {
        namespace::enter();
        let setup = Setup::new();
        let drive = setup.start_drive(Role::Supervised);
        let engine = setup.start_engine(1, Role::Supervised);
        let initiator = setup.start_initiator(1, Role::Supervised);
        until("the volume's file", || {
            setup.path("mnt/volume").exists().then_some(())
        });
        Self {
            setup,
            drive,
            engine,
            initiator,
        }
    }

    fn make_fs(&self) -> FileSystem {
        FileSystem::make(&self.setup.path("mnt/volume"), &self.setup.path("ext4")).unwrap()
    }

    fn status(&self) -> InitiatorStatus {
        let text = std::fs::read(self.setup.path("mnt/status")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }
}

/// Writes a file while `disturb` is called again and again, and proves that nothing was noticed.
fn write_while(stack: &Stack, disturb: impl Fn(&Stack, u32)) -> u32 {
    let mut fs = stack.make_fs();
    let file = fs.path("random");
    let written = file.clone();
    let writer = std::thread::spawn(move || files::write_random(&written, LENGTH, 11));
    let length = || std::fs::metadata(&file).map_or(0, |metadata| metadata.len());
    let mut times = 0;
    while !writer.is_finished() && times < TIMES {
        let before = length();
        disturb(stack, times);
        times += 1;
        until("the writer goes on", || {
            (length() > before || writer.is_finished()).then_some(())
        });
    }
    let sum = writer.join().unwrap().unwrap();
    fs.unmount().unwrap();
    fs.check().unwrap();
    fs.mount().unwrap();
    assert_eq!(files::sum(&fs.path("random")).unwrap(), sum);
    fs.unmount().unwrap();
    times
}

#[test]
fn a_file_system_does_not_notice_that_the_initiators_worker_is_killed() {
    let stack = Stack::start();
    let kills = write_while(&stack, |stack, _| stack.initiator.kill_worker());
    assert!(kills >= 5, "only {kills} kills while it wrote");
}

#[test]
fn a_file_system_does_not_notice_that_everything_is_killed_in_turn() {
    let stack = Stack::start();
    let kills = write_while(&stack, |stack, times| match times % 3 {
        0 => stack.engine.kill_worker(),
        1 => stack.initiator.kill_worker(),
        _ => stack.drive.kill_worker(),
    });
    assert!(kills >= 6, "only {kills} kills while it wrote");
}

#[test]
fn a_status_names_the_engine_and_this_end() {
    let stack = Stack::start();
    let status = until("a connection", || {
        Some(stack.status()).filter(|status| status.connected)
    });
    assert_eq!(
        status.identity.unwrap(),
        weft_spec::nqn::volume(stack.setup.volume)
    );
    assert!(status.local.unwrap().ip().is_loopback());
    assert_eq!(status.size, weft_e2e_local::setup::VOLUME_SIZE);
    assert_eq!(status.reason, "");
}

#[test]
fn a_volume_that_moves_to_a_new_term_is_followed_and_the_worker_remembers() {
    let stack = Stack::start();
    let next = VolumePath {
        term: Term(2),
        address: stack.setup.engine_address(2),
    };
    let newer = RefCell::new(None);
    let times = write_while(&stack, |stack, times| {
        if times == 1 {
            // From here on the older engine is fenced, and I/O waits for the word of where to go.
            newer.replace(Some(stack.setup.start_engine(2, Role::Supervised)));
            let text = serde_json::to_vec(&next).unwrap();
            std::fs::write(stack.setup.path("mnt/path"), text).unwrap();
        } else if times > 1 {
            stack.initiator.kill_worker();
        }
    });
    assert!(times > 2, "no worker was killed after the move");
    let status = until("a connection", || {
        Some(stack.status()).filter(|status| status.connected)
    });
    assert_eq!(status.path, next);
}

#[test]
fn an_initiator_that_is_asked_to_end_serves_until_nobody_uses_the_volume() {
    let mut stack = Stack::start();
    let mut fs = stack.make_fs();
    stack.initiator.signal_first(Signal::TERM);
    until("it says that it serves on", || {
        stack
            .initiator
            .log()
            .contains("while the volume is in use")
            .then_some(())
    });
    let sum = files::write_random(&fs.path("late"), 8 << 20, 3).unwrap();
    fs.unmount().unwrap();
    fs.mount().unwrap();
    assert_eq!(files::sum(&fs.path("late")).unwrap(), sum);
    fs.unmount().unwrap();
    drop(fs);
    assert_eq!(exit_code(stack.initiator.end()), 0);
    assert!(
        !stack.setup.path("mnt").exists(),
        "mount point and mount are gone"
    );
}
