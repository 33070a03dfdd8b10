//! The test thread's own network and mounts.

use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a test executable may run on after the last of its tests has begun.
const LONGEST: Duration = Duration::from_secs(600);
/// When that was, once there was one.
static BEGAN: Mutex<Option<Instant>> = Mutex::new(None);

/// Gives the calling thread, and every process it starts, a network of its own with nothing but
/// loopback, and mounts of its own that nobody else sees. Both go when the last user goes.
///
/// # Panics
/// Without root.
#[expect(unsafe_code, reason = "unshare of the test's own thread")]
pub fn enter() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the local tier mounts file systems and makes networks: run it as root"
    );
    watch_the_clock();
    // SAFETY: descriptors stay shared; network, mounts and working directory become this thread's.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }
        .expect("root can unshare");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("mounts are this thread's own");
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(
        up.is_ok_and(|status| status.success()),
        "`ip link set lo up` (package iproute2)"
    );
}

/// A program that waits for the kernel (mkfs on a volume that does not answer) cannot be given a
/// deadline one by one. So the whole test executable has one, and everything it started dies
/// with it.
fn watch_the_clock() {
    let began = || BEGAN.lock().unwrap_or_else(PoisonError::into_inner);
    if began().replace(Instant::now()).is_some() {
        return;
    }
    std::thread::spawn(move || {
        let left = || LONGEST.saturating_sub(began().map_or(LONGEST, |began| began.elapsed()));
        while !left().is_zero() {
            std::thread::sleep(left());
        }
        eprintln!("these tests hang: {LONGEST:?} are over, giving up");
        std::process::abort();
    });
}

/// A current-thread runtime: it stays on the test's thread, and so in its network.
///
/// # Panics
/// When the system has no descriptors left.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}
