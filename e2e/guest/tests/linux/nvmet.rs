//! The guest as a target: the kernel's own `nvmet`, ordered about by the test, and the oracle over
//! Weft's initiator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinHandle;
use uuid::Uuid;
use weft_e2e_local::host::attach;
use weft_e2e_local::wait::{until_async, within};
use weft_transport::{ConnectOptions, ReconnectingDisk};
use weft_verify::block::VolumeMark;
use weft_verify::history::Beginning;
use weft_verify::{History, Report, Workload};

use crate::host::{Host, Target};

/// Bytes of each namespace at first.
pub const SIZE: u64 = 64 << 20;
/// Where the guest serves.
pub const ADDRESS: &str = "10.77.0.11:4420";
const SUBSYSTEM: &str = "nqn.2026-11.storage.weft:nvmet";
const HOST: &str = "nqn.2026-11.storage.weft:host";
const HOST_ID: Uuid = Uuid::from_u128(0x77656674);

/// Serves `COUNT` subsystems to one host, then does what it is ordered to. `S`, `N` and `P` are the
/// first subsystem, its namespace and the port in configfs.
const SCRIPT: &str = r#"
C=/sys/kernel/config/nvmet
P=$C/ports/1
mkdir "$C/hosts/$HOSTNQN" $P
echo tcp > $P/addr_trtype; echo ipv4 > $P/addr_adrfam
echo "${ADDRESS%:*}" > $P/addr_traddr; echo "${ADDRESS#*:}" > $P/addr_trsvcid
# Not on tmpfs, which cannot write zeroes.
mkfs.ext4 -q -b 4096 /dev/ram0
mkdir -p /mnt/disks; mount /dev/ram0 /mnt/disks
for i in $(seq "$COUNT" -1 1); do
  S=$C/subsystems/$NQN$i N=$C/subsystems/$NQN$i/namespaces/1
  truncate -s "$SIZE" /mnt/disks/$i
  mkdir $S; ln -s "$C/hosts/$HOSTNQN" "$S/allowed_hosts/"
  mkdir $N; echo -n /mnt/disks/$i > $N/device_path; echo 1 > $N/buffered_io; echo 1 > $N/enable
  ln -s $S $P/subsystems/
done
tell serving
n=0
while :; do
  await "order$n"
  . "$SHARE/order$n"
  tell "done$n"
  n=$((n + 1))
done
"#;

/// The guest, serving.
pub struct Nvmet {
    host: Host,
    orders: u32,
}

impl Nvmet {
    /// Starts it with so many subsystems; the caller is in a network of its own.
    pub fn start(count: u32) -> Self {
        let target = Target {
            port: 0,
            subsystem: SUBSYSTEM.to_owned(),
            host: HOST.to_owned(),
            host_id: HOST_ID.to_string(),
            size: SIZE,
        };
        let more = [
            ("COUNT", count.to_string()),
            ("ADDRESS", ADDRESS.to_owned()),
        ];
        let mut host = Host::start(&target, &more, SCRIPT);
        host.await_word("serving");
        Self { host, orders: 0 }
    }

    /// Has the guest run this, and waits until it has.
    pub async fn order(&mut self, command: &str) {
        let number = self.orders;
        self.orders += 1;
        self.host.give(&format!("order{number}"), command);
        let done = format!("done{number}");
        let what = format!("the guest has done: {command}");
        until_async(&what, || self.host.has_told(&done).then_some(())).await;
    }

    /// Ends the guest, whose kernel said nothing but what is expected.
    pub fn finish(self, expected: &[&str]) {
        let last = format!("order{}", self.orders);
        self.host.give(&last, "say done; exit 0");
        self.host.finish(expected);
    }
}

/// How the one allowed host connects to a subsystem, counted from 1.
pub fn options(address: SocketAddr, subsystem: u32) -> ConnectOptions {
    ConnectOptions::new(address, name(subsystem), HOST, HOST_ID)
}

/// Name of a subsystem.
pub fn name(subsystem: u32) -> String {
    format!("{SUBSYSTEM}{subsystem}")
}

/// Requests over a disk, without pause, each answer judged by the oracle.
pub struct Load {
    pub disk: Arc<ReconnectingDisk>,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: JoinHandle<Report>,
}

impl Load {
    /// Connects and begins.
    pub async fn start(options: ConnectOptions, seed: u64) -> Self {
        /// Blocks: few enough for requests to meet.
        const BLOCKS: u64 = 2048;
        let disk = attach(options).await;
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (user, enough, count) = (disk.clone(), stop.clone(), done.clone());
        let task = tokio::spawn(async move {
            let workload = Workload::new(seed, BLOCKS, u64::MAX);
            let history = History::new(VolumeMark(Uuid::new_v4()), Beginning::Anything);
            let history = Mutex::new(history.without_power_cuts());
            let over = |report: &Report| {
                count.store(report.done, Ordering::SeqCst);
                let is_bad = report.failed > 0 || !report.violations.is_empty();
                is_bad || enough.load(Ordering::SeqCst)
            };
            let mut report = workload.run(&*user, &history, over).await;
            history
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .settle();
            let last = workload.look(&*user, &history).await;
            report.done += last.done;
            report.failed += last.failed;
            report.violations.extend(last.violations);
            report
        });
        Self {
            disk,
            stop,
            done,
            task,
        }
    }

    /// Waits until so many more requests were answered.
    pub async fn progress(&self, requests: u64) {
        let goal = self.done.load(Ordering::SeqCst) + requests;
        until_async("requests are answered", || {
            let over = self.task.is_finished();
            (over || self.done.load(Ordering::SeqCst) >= goal).then_some(())
        })
        .await;
        assert!(!self.task.is_finished(), "a request failed or was wrong");
    }

    /// Local address of the association of now.
    pub fn local(&self) -> Option<SocketAddr> {
        self.disk.state().borrow().local
    }

    /// Waits for an association that is not the one with this local address.
    pub async fn reconnects(&self, before: Option<SocketAddr>) {
        let mut state = self.disk.state();
        let again = state.wait_for(|now| now.connected && now.local != before);
        let again = within("the next association", again).await.map(drop);
        again.expect("the disk is there");
    }

    /// Ends the load and the association; everything was answered, and nothing was wrong.
    pub async fn finish(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        let report = within("the end of the load", self.task).await;
        let report = report.expect("the load does not panic");
        assert!(report.violations.is_empty(), "{:?}", report.violations);
        assert_eq!(report.failed, 0, "of {} requests", report.done);
        self.disk.stop().await;
        report.done
    }
}
