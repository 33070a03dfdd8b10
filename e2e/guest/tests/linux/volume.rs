//! What every user of a volume does.

use weft_e2e_local::namespace;
use weft_e2e_local::process::Role;
use weft_e2e_local::setup::Setup;

use crate::host::{Host, Target, tap};

/// Connects, makes a file system, writes, looks again after a reconnect, checks, disconnects.
const SCRIPT: &str = r#"
say connect $DIGESTS
connect $DIGESTS
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
connect $DIGESTS
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
    let digests = ("DIGESTS", digests.to_owned());
    Host::start(&Target::of(&setup, None), &[digests], SCRIPT).finish(&[]);
}
