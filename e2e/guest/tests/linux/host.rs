//! The guest: its network, its script, what its kernel may say.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use weft_e2e_local::setup::{Setup, VOLUME_SIZE};
use weft_e2e_local::wait::until;
use weft_guest::{Guest, Job, Link, Network, Report, Running};

/// The host's end of the tap; what is tested listens on every address.
pub const GATEWAY: &str = "10.77.0.1";
/// The guest's address.
const ADDRESS: &str = "10.77.0.11/24";

/// What every script may use. `D` is the block device after `connect`.
const PRELUDE: &str = r#"
set -eu
say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }
host() { nvme "$@" --hostnqn="$HOSTNQN" --hostid="$HOSTID"; }
connect() {
  host connect -t tcp -a "$TARGET" -s "$PORT" -n "$NQN" -i 1 --reconnect-delay=1 "$@"
  until_so 'D=$(ls /dev/nvme*n1 2>/dev/null | head -1); [ -b "${D:-/none}" ]'
}
tell() { touch "$SHARE/$1"; }
heard() { [ -e "$SHARE/$1" ]; }
until_so() { for _ in $(seq 600); do eval "$1" && return 0; sleep 0.1; done; echo "never so: $1"; return 1; }
await() { until_so "heard $1"; }
# The process is in the kernel, uninterruptibly: its request has neither been done nor failed.
waits() { until_so "[ \"\$(cut -d' ' -f3 /proc/$1/stat)\" = D ]"; }
state() { cat /sys/class/nvme/nvme0/state; }
ana() { cat /sys/block/nvme0c0n1/ana_state; }
"#;

/// Lines of the kernel log about NVMe that say nothing bad.
const USUAL: [&str; 8] = [
    // Of the target.
    "adding nsid ",
    "enabling port ",
    // Of both.
    "creating ",
    "mapped ",
    "new ctrl: NQN",
    "Removing ctrl: NQN",
    "Disabled WRITE ZEROES",
    "rescanning namespaces",
];
/// Never, whatever else is to be expected.
const NEVER: [&str; 6] = [
    "WARNING:",
    "BUG:",
    "Oops",
    "blocked for more than",
    "I/O error",
    "Buffer I/O",
];

/// A guest at work, and the directory through which it and the test talk.
pub struct Host {
    running: Running,
    share: TempDir,
}

/// What the script finds in its environment.
pub struct Target {
    pub port: u16,
    pub subsystem: String,
    pub host: String,
    pub host_id: String,
    pub size: u64,
}

impl Target {
    /// The volume of a setup, at this address or wherever its engine listens.
    pub fn of(setup: &Setup, at: Option<SocketAddr>) -> Self {
        let host = setup.host();
        Self {
            port: at.unwrap_or_else(|| setup.engine_address(1)).port(),
            subsystem: weft_spec::nqn::volume(setup.volume),
            host: host.expose().to_owned(),
            host_id: host.host_id().to_string(),
            size: VOLUME_SIZE,
        }
    }
}

impl Host {
    /// Starts a guest with a script; the caller is in a network of its own ([`tap`]).
    pub fn start(target: &Target, more: &[(&str, String)], script: &str) -> Self {
        let share = tempfile::tempdir_in("/var/tmp").expect("a directory");
        let mut variables = vec![
            ("TARGET", GATEWAY.to_owned()),
            ("PORT", target.port.to_string()),
            ("NQN", target.subsystem.clone()),
            ("HOSTNQN", target.host.clone()),
            ("HOSTID", target.host_id.clone()),
            ("SIZE", target.size.to_string()),
            ("SHARE", share.path().display().to_string()),
        ];
        variables.extend(more.iter().cloned());
        let variables: String = variables
            .iter()
            .map(|(k, v)| format!("{k}='{v}'\n"))
            .collect();
        let job = Job {
            script: format!("{variables}{PRELUDE}{script}"),
            network: Some(Network {
                enter: Vec::new(),
                link: Link {
                    tap: "tap0".to_owned(),
                    address: ADDRESS.to_owned(),
                    gateway: Some(GATEWAY.to_owned()),
                },
            }),
            shares: vec![share.path().to_owned()],
            time_limit: Duration::from_secs(420),
            ..Job::default()
        };
        let running = guest().start(&job).expect("the guest starts");
        Self { running, share }
    }

    /// Waits until the script tells this.
    pub fn await_word(&mut self, word: &str) {
        let path = self.share.path().join(word);
        self.until(&format!("the guest tells {word}"), || path.exists());
    }

    /// Waits until this is so, or the script has ended: then [`Host::finish`] says why.
    pub fn until(&mut self, what: &str, mut is_so: impl FnMut() -> bool) {
        let running = &mut self.running;
        until(what, || (is_so() || running.is_over()).then_some(()));
    }

    /// Tells the script.
    pub fn tell(&self, word: &str) {
        std::fs::write(self.share.path().join(word), "").expect("room for a word");
    }

    /// Whether the script has told this.
    pub fn has_told(&self, word: &str) -> bool {
        self.share.path().join(word).exists()
    }

    /// Gives the script a file, whole from the moment it is there.
    pub fn give(&self, name: &str, text: &str) {
        let path = self.share.path().join(name);
        let unfinished = path.with_extension("new");
        std::fs::write(&unfinished, text).expect("room for a file");
        std::fs::rename(unfinished, path).expect("it is there");
    }

    /// The script ends well, and the kernel has nothing to say about NVMe beyond the usual and
    /// `expected`.
    pub fn finish(self, expected: &[&str]) -> Report {
        let report = self.running.wait().expect("the guest runs");
        println!("{}", report.out);
        assert_eq!(report.status, Some(0), "{}\n{}", report.out, report.dmesg);
        assert_eq!(
            complaints(&report, expected),
            Vec::<&str>::new(),
            "the kernel complains:\n{}",
            report.dmesg
        );
        report
    }
}

/// Lines of the kernel log that should not be there.
fn complaints<'a>(report: &'a Report, expected: &[&str]) -> Vec<&'a str> {
    let is_fine = |line: &str| {
        let mut fine = USUAL.iter().chain(expected);
        fine.any(|word| line.contains(word))
    };
    let lines = report.dmesg.lines();
    lines
        .filter(|line| {
            let is_never = NEVER.iter().any(|word| line.contains(word));
            let speakers = ["nvme nvme", "block nvme", "nvmet"];
            let is_nvme = speakers.iter().any(|speaker| line.contains(speaker));
            is_never || (is_nvme && !is_fine(line))
        })
        .collect()
}

/// The network between test and guest, in the network namespace of this thread.
pub fn tap() {
    for args in [
        vec!["tuntap", "add", "tap0", "mode", "tap", "vnet_hdr"],
        vec!["addr", "add", "10.77.0.1/24", "dev", "tap0"],
        vec!["link", "set", "tap0", "up"],
    ] {
        let status = Command::new("ip")
            .args(&args)
            .status()
            .expect("ip (package iproute2)");
        assert!(status.success(), "ip {args:?}");
    }
}

fn guest() -> Guest {
    let cache = std::env::var_os("WEFT_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/weft"),
        PathBuf::from,
    );
    Guest::new(&cache).expect("a kernel")
}
