//! Nodes: networks of a test's own that reach each other by plain routes through the test's
//! network. A node is one descriptor; it goes with the test, however that ends.
//!
//! ```text
//!   node 0          the test (router, hosts)         node 1
//!   10.77.0.2 ───── 10.77.0.1    10.77.1.1 ───── 10.77.1.2
//! ```

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::thread::UnshareFlags;
use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;

/// Where a packet is lost on purpose: as soon as the router has it, and what the router sends.
const TABLE: &str = "table inet weft {
    chain cut { }
    chain arriving { type filter hook prerouting priority raw; jump cut; }
    chain leaving { type filter hook output priority raw; jump cut; }
}";

/// See the module.
pub struct Node {
    number: u8,
    namespace: OwnedFd,
}

/// Makes so many nodes. The calling thread's network becomes their router.
///
/// # Panics
/// Without root, iproute2, nftables or util-linux.
pub fn join(count: u8) -> Vec<Node> {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a network of the test's own");
    nft(TABLE);
    (0..count).map(Node::join).collect()
}

/// Loses everything on its way from one address to another, from now on.
pub fn cut(from: Ipv4Addr, to: Ipv4Addr) {
    nft(&format!(
        "add rule inet weft cut ip saddr {from} ip daddr {to} counter drop"
    ));
}

/// Loses nothing any more; gives how many packets were lost.
///
/// # Panics
/// When nftables says something else than it should.
pub fn heal() -> u64 {
    let listed = output("nft", &["list", "chain", "inet", "weft", "cut"]);
    let mut words = listed.split_whitespace();
    let mut lost = 0;
    while words.by_ref().any(|word| word == "packets") {
        let count = words.next().and_then(|count| count.parse::<u64>().ok());
        lost += count.expect("a number of packets");
    }
    nft("flush chain inet weft cut");
    lost
}

impl Node {
    fn join(number: u8) -> Self {
        let node = Self {
            number,
            namespace: network(),
        };
        let (port, router) = (format!("v{number}"), node.router().to_string());
        let at = node.namespace();
        let link = ["type", "veth", "peer", "name", "port", "netns", &at];
        ip(&[["link", "add", &port].as_slice(), &link].concat());
        ip(&["address", "add", &format!("{router}/24"), "dev", &port]);
        ip(&["link", "set", &port, "up"]);
        node.ip(&["link", "set", "lo", "up"]);
        node.ip(&[
            "address",
            "add",
            &format!("{}/24", node.address()),
            "dev",
            "port",
        ]);
        node.ip(&["link", "set", "port", "up"]);
        node.ip(&["route", "add", "default", "via", &router]);
        node
    }

    /// Its address.
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 2)
    }

    /// The test's address next to it.
    pub fn router(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, self.number, 1)
    }

    /// What `nsenter --net=` takes.
    pub fn namespace(&self) -> String {
        let (process, descriptor) = (std::process::id(), self.namespace.as_raw_fd());
        format!("/proc/{process}/fd/{descriptor}")
    }

    /// Runs `ip` there.
    ///
    /// # Panics
    /// When it fails.
    pub fn ip(&self, arguments: &[&str]) {
        let net = format!("--net={}", self.namespace());
        output("nsenter", &[&[net.as_str(), "ip"], arguments].concat());
    }
}

/// A network without anything in it, made on a thread that ends.
#[expect(unsafe_code, reason = "unshare of a thread that does nothing else")]
fn network() -> OwnedFd {
    let made = std::thread::spawn(|| {
        // SAFETY: descriptors stay shared; only the network becomes this thread's own.
        unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.expect("root can unshare");
        File::open("/proc/thread-self/ns/net").expect("every thread has a network")
    });
    made.join().expect("a network").into()
}

fn ip(arguments: &[&str]) {
    output("ip", arguments);
}

fn nft(commands: &str) {
    output("nft", &[commands]);
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
