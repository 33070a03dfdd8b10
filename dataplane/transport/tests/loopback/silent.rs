//! A target that says nothing more and keeps its connections.

use crate::harness::{Held, SIZE, Target, pattern, until};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_transport::{Probe, RemoteDisk};

const PROBE: Probe = Probe {
    quiet: Duration::from_millis(50),
    answer: Duration::from_millis(400),
};

/// A disk whose reads stop the thread of the target, and so the target, until the sender is dropped.
struct Stopping(Mutex<mpsc::Receiver<()>>);

#[async_trait]
impl Disk for Stopping {
    fn size(&self) -> u64 {
        SIZE
    }
    async fn read(&self, _: u64, _: &mut BytesMut) -> Result<(), DiskError> {
        let _dropped = self.0.lock().unwrap().recv();
        Ok(())
    }
    async fn write_stamped(&self, _: u64, _: Bytes, _: Write, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn write_zeroes_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
    async fn discard_stamped(&self, _: u64, _: u64, _: Stamp) -> Result<(), DiskError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_target_that_stops_while_it_is_asked_is_left_long_before_its_keep_alive() {
    let (go, stopped) = mpsc::channel();
    let (tell, told) = oneshot::channel();
    let (finish, finished) = oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let target = Target::start(Arc::new(Stopping(Mutex::new(stopped)))).await;
            tell.send(target.options()).unwrap();
            let _dropped = finished.await;
        });
    });
    let mut options = told.await.unwrap();
    options.keep_alive_ms = 120_000;
    options.probe = Some(PROBE);
    let disk = RemoteDisk::connect(options).await.unwrap();
    disk.flush().await.unwrap();
    assert!(!disk.fell_silent());
    let mut into = BytesMut::zeroed(4096);
    let read = timeout(Duration::from_secs(30), disk.read(0, &mut into)).await;
    assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::Gone);
    assert!(disk.fell_silent() && disk.is_closed());
    drop((go, finish));
    thread.join().unwrap();
}

#[tokio::test]
async fn a_target_whose_disk_is_slow_is_not_left() {
    let held = Held::new();
    let target = Target::start(held.clone()).await;
    let mut options = target.options();
    options.probe = Some(PROBE);
    let disk = Arc::new(RemoteDisk::connect(options).await.unwrap());
    let write = tokio::spawn({
        let disk = disk.clone();
        async move { disk.write(0, pattern(1, 4096), Write::Cached).await }
    });
    held.holds(1).await;
    // What is slow takes this long: several times what a silent target is waited for.
    sleep(5 * PROBE.answer).await;
    held.pass.add_permits(1);
    write.await.unwrap().unwrap();
    until("it is still there", || !disk.is_closed()).await;
}
