//! A volume over a bad wire: bits flip, connections are cut, and no byte is wrong.

use std::time::Instant;

use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;

use crate::host::{Host, Target, tap};
use crate::proxy::{Part, Proxy, Spoil};

/// What each of these is to the kernel: its own words when a connection is lost and made again.
const RECONNECTS: [&str; 18] = [
    "starting error recovery",
    "Reconnecting in ",
    "Successfully reconnected",
    "failed to send request",
    "no usable path - requeuing I/O",
    "resetting controller",
    "Failed reconnect attempt",
    "socket state ",
    "reading non-mdts-limits failed",
    "failed to connect socket",
    "Connect command failed",
    // A cut while it looks for what may have changed, or sets a queue up.
    "Identify ",
    "Could not set queue count",
    "Failed to configure AEN",
    "failed to connect queue",
    "failed nvme_keep_alive_end_io",
    "receive failed",
    "ANA log",
];
/// And when a digest is wrong.
const DIGESTS: [&str; 6] = [
    "data digest error",
    "digest error",
    "header digest flag is cleared",
    "receive failed",
    "unsupported pdu type",
    "Received C2HTermReq (FES = Header Digest Error)",
];

const ROUNDS: &str = r#"
connect --hdr-digest --data-digest
for n in $(seq "$ROUNDS"); do
  dd if=/dev/urandom of=/tmp/f bs=128k count=4 2>/dev/null
  tell "ready$n"; await "go$n"
  dd if=/tmp/f of=$D bs=128k oflag=direct 2>/dev/null
  dd if=$D bs=128k count=4 iflag=direct 2>/dev/null | cmp - /tmp/f
  tell "done$n"
done
until_so '[ "$(state)" = live ]'
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

/// Linux sends in the name of who submits, and without MSG_NOSIGNAL: whoever writes when the socket
/// has just been closed gets SIGPIPE, of which fio dies. The request itself is not lost.
const LOAD: &str = r#"
trap '' PIPE
connect
while ! heard enough; do
  fio --name=v --filename=$D --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=8 --size=1m \
    --verify=crc32c --do_verify=1 >/tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }
  echo . >> /tmp/rounds
  tell busy
done
say "$(wc -l < /tmp/rounds) rounds of fio"
until_so '[ "$(state)" = live ]'
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

/// PDU types (TCP section 3.6).
const CAPSULE: u8 = 0x04;
const RESPONSE: u8 = 0x05;
const H2C_DATA: u8 = 0x06;
const C2H_DATA: u8 = 0x07;
const R2T: u8 = 0x09;

#[test]
fn a_linux_kernel_gets_no_wrong_byte_over_a_wire_that_spoils_digests() {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let proxy = Proxy::before(setup.engine_address(1));
    let spoils = [
        (C2H_DATA, Part::Data),
        (H2C_DATA, Part::Data),
        (C2H_DATA, Part::Header),
        (H2C_DATA, Part::Header),
        (R2T, Part::Header),
        (CAPSULE, Part::Header),
        (RESPONSE, Part::Header),
    ];
    let rounds = ("ROUNDS", spoils.len().to_string());
    let target = Target::of(&setup, Some(proxy.address));
    let mut host = Host::start(&target, &[rounds], ROUNDS);
    for (n, (kind, part)) in (1..).zip(spoils) {
        host.await_word(&format!("ready{n}"));
        proxy.spoil(Spoil { kind, part });
        host.tell(&format!("go{n}"));
        host.await_word(&format!("done{n}"));
        assert!(proxy.has_spoiled(), "no PDU {kind:02x}h with {part:?}");
    }
    let expected: Vec<_> = RECONNECTS.into_iter().chain(DIGESTS).collect();
    host.finish(&expected);
}

/// How often the wire is cut; the kernel waits a second before it connects again.
const CUTS: u64 = 100;

#[test]
#[ignore = "minutes: make reconnects"]
fn a_linux_kernel_reconnects_a_hundred_times_under_verified_writes() {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let proxy = Proxy::before(setup.engine_address(1));
    let mut host = Host::start(&Target::of(&setup, Some(proxy.address)), &[], LOAD);
    host.await_word("busy");
    let began = Instant::now();
    for cut in 1..=CUTS {
        let before = proxy.writes();
        proxy.cut();
        // Not before: a kernel whose sockets close while it connects may notice only after its
        // time-outs.
        host.until("the kernel writes again", || {
            proxy.writes() > before + 8 + cut % 5 * 16
        });
        if cut % 20 == 0 {
            println!("{cut} of {CUTS} cuts after {} s", began.elapsed().as_secs());
        }
    }
    host.tell("enough");
    host.finish(&RECONNECTS);
}
