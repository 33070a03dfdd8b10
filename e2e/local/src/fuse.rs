//! A disk as a file of the kernel: the user-space initiator's worker serves it through FUSE. So
//! whoever opens the file as its medium meets whatever the disk does on purpose.

use rustix::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use tempfile::TempDir;
use tokio::sync::oneshot;
use uuid::Uuid;
use weft_block::Disk;
use weft_initiator::fuse::channel::Channel;
use weft_initiator::fuse::handshake;
use weft_initiator::kept::{Keeper, Kept};
use weft_initiator::path::Path;
use weft_initiator::volume::Volume;
use weft_initiator::worker::Worker;
use weft_spec::ids::{Term, VolumeUid};
use weft_spec::initiator::VolumePath;
use weft_transport::initiator::{ConnectOptions, ReconnectingDisk};

/// A mounted disk, in the mount namespace of the thread that made it.
pub struct DiskFile {
    directory: TempDir,
    _worker: WorkerThread,
}

impl DiskFile {
    /// Mounts it.
    ///
    /// # Panics
    /// Without root or /dev/fuse.
    pub fn mount(disk: Arc<dyn Disk>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let device = handshake::mount(directory.path(), "weft:test");
        let device = device.expect("root may mount /dev/fuse");
        let size = disk.size();
        Self {
            directory,
            _worker: WorkerThread::start(device, disk, size),
        }
    }

    /// The file.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("volume")
    }
}

impl Drop for DiskFile {
    fn drop(&mut self) {
        // Before the temporary directory is removed: it must not be emptied through FUSE.
        let _gone_with_the_namespace = handshake::detach(self.directory.path());
    }
}

/// A worker that serves a disk. When it is dropped it goes as it does by SIGKILL: nothing is
/// answered any more.
pub struct WorkerThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerThread {
    /// Serves so many bytes of the disk on a mounted device; whatever another worker has left
    /// unanswered comes again.
    pub fn start(device: OwnedFd, disk: Arc<dyn Disk>, size: u64) -> Self {
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            crate::namespace::runtime().block_on(async move {
                let worker = worker(device, disk, size);
                tokio::select! {
                    _ = worker.serve() => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            stop: Some(stop),
            thread: Some(thread),
        }
    }
}

impl Drop for WorkerThread {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ended_already = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// A worker whose path nobody uses.
fn worker(device: OwnedFd, disk: Arc<dyn Disk>, size: u64) -> Arc<Worker> {
    let path = VolumePath {
        term: Term(3),
        address: ([127, 0, 0, 1], 9).into(),
    };
    let options = ConnectOptions::new(path.address, "nqn.test", "nqn.host", Uuid::nil());
    let remote = ReconnectingDisk::start(options, None);
    let volume = Arc::new(Volume::new(disk, size));
    let keeper = Keeper::create().expect("room for what is kept");
    let kept = Kept { path, size };
    let uid = VolumeUid::random();
    let path = Arc::new(Path::new(kept, keeper, remote, volume.clone(), uid));
    let channel = Channel::new(device).expect("the device takes another reader");
    channel.resend().expect("the kernel sends again (6.9)");
    Worker::new(channel, volume, path)
}
