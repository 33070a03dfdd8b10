//! What a target tells its hosts while they use a namespace: it grows, its ANA state changes.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::MemoryDisk;
use weft_e2e_local::namespace;
use weft_transport::{Admission, AnaState, ConnectRequest, Events, Export, Gate, Limits, Refusal};

use crate::host::{Host, Target, tap};

const SMALL: u64 = 64 << 20;
const LARGE: u64 = 96 << 20;
const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:test";

/// Grows a mounted file system, on the association that it was mounted on.
const GROWS: &str = r#"
connect
[ "$(blockdev --getsize64 $D)" = "$SIZE" ]
mkfs.ext4 -q $D
mkdir -p /mnt/x; mount $D /mnt/x
dd if=/dev/urandom of=/mnt/x/f bs=1M count=8 conv=fsync 2>/dev/null
S=$(sha256sum < /mnt/x/f)
B=$(df --output=size -B1 /mnt/x | tail -1)
tell small
until_so '[ "$(blockdev --getsize64 $D)" = "$LARGE" ]'
resize2fs $D 2>&1
A=$(df --output=size -B1 /mnt/x | tail -1)
[ $((A - B)) -gt 25000000 ]
dd if=/dev/urandom of=/mnt/x/g bs=1M count=60 conv=fsync 2>/dev/null
[ "$S" = "$(sha256sum < /mnt/x/f)" ]
umount /mnt/x
e2fsck -fn $D
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

/// Writes through states that come and go.
const WAITS: &str = r#"
connect
for n in $(seq 10); do
  dd if=/dev/urandom of=/tmp/f bs=64k count=4 2>/dev/null
  tell "ready$n"
  until_so '[ "$(ana)" = inaccessible ]'
  dd if=/tmp/f of=$D bs=64k oflag=direct 2>/dev/null &
  W=$!
  waits $W
  tell "waiting$n"
  wait $W
  [ "$(ana)" = optimized ]
  dd if=$D bs=64k count=4 iflag=direct 2>/dev/null | cmp - /tmp/f
done
nvme disconnect -n "$NQN" >/dev/null
say done
"#;

#[test]
fn a_linux_kernel_sees_a_namespace_grow_under_a_mounted_file_system() {
    namespace::enter();
    tap();
    let served = Served::start();
    let large = ("LARGE", LARGE.to_string());
    let mut host = Host::start(&served.target(), &[large], GROWS);
    host.await_word("small");
    served.disk.grow(LARGE);
    served.events.resized();
    let report = host.finish(&[]);
    let connects = report.dmesg.matches("new ctrl: NQN").count();
    assert_eq!(connects, 1, "one association:\n{}", report.dmesg);
}

#[test]
fn a_linux_kernel_follows_ten_changes_of_the_ana_state() {
    namespace::enter();
    tap();
    let served = Served::start();
    let mut host = Host::start(&served.target(), &[], WAITS);
    for n in 1..=10 {
        host.await_word(&format!("ready{n}"));
        served.events.set_ana(AnaState::Inaccessible);
        host.await_word(&format!("waiting{n}"));
        served.events.set_ana(AnaState::Optimized);
    }
    let report = host.finish(&["no usable path - requeuing I/O"]);
    let connects = report.dmesg.matches("new ctrl: NQN").count();
    assert_eq!(connects, 1, "one association:\n{}", report.dmesg);
}

/// A target of the test's own, on a thread in the test's network.
struct Served {
    address: SocketAddr,
    disk: Arc<MemoryDisk>,
    events: Events,
    _until: oneshot::Sender<()>,
}

impl Served {
    fn start() -> Self {
        let disk = Arc::new(MemoryDisk::new(SMALL));
        let events = Events::new();
        let gate = Arc::new(Door(Export {
            disk: disk.clone(),
            uuid: Uuid::new_v4(),
            serial: "0123456789".to_owned(),
            first_controller: 1,
            read_only: false,
            events: events.clone(),
            vendor: None,
        }));
        let (until, ended) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        // A thread begins in the network of the one that starts it.
        std::thread::spawn(move || {
            namespace::runtime().block_on(async {
                let listener = TcpListener::bind("0.0.0.0:0").await.expect("a port");
                tell.send(listener.local_addr().expect("its address"))
                    .expect("the test waits");
                tokio::select! {
                    served = weft_transport::serve(listener, gate, Limits::default()) => {
                        served.expect("it serves");
                    }
                    _ = ended => {}
                }
            });
        });
        Self {
            address: told.recv().expect("the target listens"),
            disk,
            events,
            _until: until,
        }
    }

    fn target(&self) -> Target {
        Target {
            port: self.address.port(),
            subsystem: SUBSYSTEM.to_owned(),
            host: "nqn.2026-11.storage.weft:test-host".to_owned(),
            host_id: Uuid::new_v4().to_string(),
            size: SMALL,
        }
    }
}

struct Door(Export);

#[async_trait]
impl Gate for Door {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        if request.subsystem != SUBSYSTEM {
            return Err(Refusal::UnknownSubsystem);
        }
        Ok(Admission {
            export: self.0.clone(),
            revoke: CancellationToken::new(),
            ended: Box::new(()),
        })
    }
}
