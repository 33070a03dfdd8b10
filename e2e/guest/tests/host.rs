//! A Linux kernel as NVMe/TCP host of a real engine and a real drive, without Kubernetes.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;
use weft_guest::{Guest, Job, Link, Network, Report};

/// The host's end of the tap; drive and engine listen on every address.
const GATEWAY: &str = "10.77.0.1";
/// The guest's address.
const ADDRESS: &str = "10.77.0.11/24";

/// Connects, makes a file system, writes, looks again after a reconnect, checks, disconnects.
const SCRIPT: &str = r#"
set -eu
say() { echo "[$(cut -d' ' -f1 /proc/uptime)] $*"; }
connect() {
  nvme connect -t tcp -a "$TARGET" -s "$PORT" -n "$NQN" --hostnqn="$HOSTNQN" --hostid="$HOSTID" -i 1 $DIGESTS
  for _ in $(seq 100); do D=$(ls /dev/nvme*n1 2>/dev/null | head -1) || true; [ -b "${D:-/none}" ] && return 0; sleep 0.1; done
  echo "no namespace appeared"; return 1
}
say connect $DIGESTS
connect
[ "$(blockdev --getsize64 $D)" = "$SIZE" ]
[ "$(blockdev --getss $D)" = 4096 ]
say mkfs
mkfs.ext4 -q $D
mkdir -p /mnt/x; mount $D /mnt/x
say write
dd if=/dev/urandom of=/mnt/x/f bs=1M count=32 conv=fsync 2>/dev/null
S=$(sha256sum < /mnt/x/f)
umount /mnt/x
say fsck
e2fsck -fn $D
say reconnect
nvme disconnect -n "$NQN" >/dev/null
connect
mount -o ro $D /mnt/x
[ "$S" = "$(sha256sum < /mnt/x/f)" ]
umount /mnt/x
say discard and zeroes
blkdiscard -z -o 0 -l 1048576 $D
cmp -n 1048576 $D /dev/zero
blkdiscard $D
say fio
fio --name=v --filename=$D --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=16 --size=8m --verify=crc32c --do_verify=1 >/tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }
say disconnect
nvme disconnect -n "$NQN" >/dev/null
[ -z "$(ls /dev/nvme*n1 2>/dev/null)" ]
say done
"#;

#[test]
fn a_linux_kernel_uses_a_volume_without_digests() {
    uses_a_volume("");
}

#[test]
fn a_linux_kernel_uses_a_volume_with_header_and_data_digests() {
    uses_a_volume("--hdr-digest --data-digest");
}

fn uses_a_volume(digests: &str) {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let host = setup.host();
    let variables = [
        ("TARGET", GATEWAY.to_owned()),
        ("PORT", setup.engine_address(1).port().to_string()),
        ("NQN", weft_spec::nqn::volume(setup.volume)),
        ("HOSTNQN", host.expose().to_owned()),
        ("HOSTID", host.host_id().to_string()),
        ("SIZE", weft_e2e_local::setup::VOLUME_SIZE.to_string()),
        ("DIGESTS", digests.to_owned()),
    ];
    let variables: String = variables
        .iter()
        .map(|(k, v)| format!("{k}='{v}'\n"))
        .collect();
    let report = guest()
        .run(&Job {
            script: format!("{variables}{SCRIPT}"),
            network: Some(Network {
                enter: Vec::new(),
                link: Link {
                    tap: "tap0".to_owned(),
                    address: ADDRESS.to_owned(),
                    gateway: Some(GATEWAY.to_owned()),
                },
            }),
            time_limit: Duration::from_secs(180),
            ..Job::default()
        })
        .expect("the guest runs");
    println!("{}", report.out);
    assert_eq!(report.status, Some(0), "{}\n{}", report.out, report.dmesg);
    assert_eq!(
        complaints(&report),
        Vec::<&str>::new(),
        "the kernel complains of nvme:\n{}",
        report.dmesg
    );
}

/// Lines of the kernel log about NVMe that are not the usual three: queue counts, mapping, removal.
fn complaints(report: &Report) -> Vec<&str> {
    let usual = [
        "creating ",
        "mapped ",
        "new ctrl: NQN",
        "Removing ctrl: NQN",
        "Disabled WRITE ZEROES",
    ];
    let nvme = report.dmesg.lines().filter(|line| line.contains("nvme"));
    nvme.filter(|line| {
        line.contains("nvme nvme") || line.contains("warn") || line.contains("error")
    })
    .filter(|line| !usual.iter().any(|word| line.contains(word)))
    .collect()
}

fn tap() {
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
