//! Discovery, reset, and a volume whose drive is away for a while.

use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::{DRIVE_PORT, Setup};

use crate::host::{Host, Target, tap};

/// Finds the volume as the host that may use it, and as nobody else; not at the drive.
const DISCOVERS: &str = r#"
discover() { nvme discover -t tcp -a "$TARGET" -s "$1" --hostnqn="$2" --hostid="$3"; }
say discover
discover "$PORT" "$HOSTNQN" "$HOSTID" | tee /tmp/found
grep -q "subnqn: *$NQN" /tmp/found
grep -q "trsvcid: *$PORT" /tmp/found
grep -q "traddr: *$TARGET" /tmp/found
say discover as somebody else
discover "$PORT" nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555 \
  11111111-2222-3333-4444-555555555555 >/tmp/none 2>&1 || true
cat /tmp/none
! grep -q "$NQN" /tmp/none
say discover at the drive
! discover "$DRIVE" "$HOSTNQN" "$HOSTID" >/tmp/drive 2>&1
! grep -q subnqn /tmp/drive
say connect to all that was found
host connect-all -t tcp -a "$TARGET" -s "$PORT"
until_so 'ls /dev/nvme*n1 >/dev/null 2>&1'
nvme disconnect-all
say done
"#;

/// Resets the controller again and again under writes that are verified.
const RESETS: &str = r#"
connect
say resets
( while ! [ -e /tmp/enough ]; do
    fio --name=v --filename=$D --direct=1 --ioengine=libaio --rw=randwrite --bs=4k --iodepth=8 --size=2m \
      --verify=crc32c --do_verify=1 >/tmp/fio 2>&1 || { cat /tmp/fio; exit 1; }
    echo . >> /tmp/rounds
  done ) &
F=$!
for n in $(seq 20); do
  nvme reset /dev/nvme0
  until_so '[ "$(state)" = live ]'
done
touch /tmp/enough
wait $F
say "$(wc -l < /tmp/rounds) rounds of fio"
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

/// Writes while the drive is away: the write waits, and is done when the drive is back.
const WAITS: &str = r#"
connect
[ "$(ana)" = optimized ]
dd if=/dev/urandom of=/tmp/f bs=128k count=8 2>/dev/null
tell ready
await gone
until_so '[ "$(ana)" = inaccessible ]'
dd if=/tmp/f of=$D bs=128k oflag=direct 2>/dev/null &
W=$!
waits $W
tell waiting
await back
wait $W
[ "$(ana)" = optimized ]
[ "$(state)" = live ]
dd if=$D bs=128k count=8 iflag=direct 2>/dev/null | cmp - /tmp/f
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

#[test]
fn a_linux_kernel_discovers_the_volume_it_may_use_and_no_drive() {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let drive = ("DRIVE", DRIVE_PORT.to_string());
    // What the kernel says of a target that has no discovery subsystem.
    let expected = [
        "Connect Invalid Data Parameter",
        "failed to connect queue: 0 ret=",
    ];
    Host::start(&Target::of(&setup, None), &[drive], DISCOVERS).finish(&expected);
}

#[test]
fn a_linux_kernel_resets_its_controller_under_verified_writes() {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let _drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let expected = ["resetting controller", "no usable path - requeuing I/O"];
    Host::start(&Target::of(&setup, None), &[], RESETS).finish(&expected);
}

#[test]
fn a_linux_kernel_waits_for_a_volume_whose_drive_is_away() {
    namespace::enter();
    tap();
    let setup = Setup::new();
    let mut drive = setup.start_drive(Role::Supervised);
    let _engine = setup.start_engine(1, Role::Supervised);
    let mut host = Host::start(&Target::of(&setup, None), &[], WAITS);
    host.await_word("ready");
    drive.kill();
    host.tell("gone");
    host.await_word("waiting");
    let _drive = setup.start_drive(Role::Supervised);
    host.tell("back");
    host.finish(&["no usable path - requeuing I/O"]);
}
