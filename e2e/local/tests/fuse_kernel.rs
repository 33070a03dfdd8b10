//! The worker against the real kernel: a real mount (in a mount namespace of the test's own
//! thread, so nothing can be left behind), a disk in memory. Needs root and /dev/fuse.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use rustix::io::Errno;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use weft_block::{ErrorKind, Fault, FaultDisk, MemoryDisk, Operation};
use weft_e2e_local::files::{self, FileSystem};
use weft_e2e_local::fuse::WorkerThread;
use weft_e2e_local::loopdev::LoopDevice;
use weft_e2e_local::namespace;
use weft_e2e_local::wait::{DEADLINE, until};
use weft_initiator::fuse::handshake;
use weft_spec::ids::Term;
use weft_spec::initiator::{InitiatorStatus, VolumePath};

const SIZE: u64 = 16 << 20;

/// A file system whose workers come and go.
struct Mounted {
    directory: TempDir,
    device: OwnedFd,
    disk: Arc<FaultDisk>,
    memory: Arc<MemoryDisk>,
    worker: Option<WorkerThread>,
}

impl Mounted {
    fn new() -> Self {
        Self::sized(SIZE)
    }

    fn sized(size: u64) -> Self {
        namespace::enter();
        let directory = tempfile::tempdir().unwrap();
        let device = handshake::mount(directory.path(), "weft:test").unwrap();
        let memory = Arc::new(MemoryDisk::new(size));
        let disk = Arc::new(FaultDisk::new(memory.clone()));
        let mut mounted = Self {
            directory,
            device,
            disk,
            memory,
            worker: None,
        };
        mounted.start(size);
        mounted
    }

    fn start(&mut self, size: u64) {
        let device = self.device.try_clone().unwrap();
        self.worker = Some(WorkerThread::start(device, self.disk.clone(), size));
    }

    /// The worker goes as it does by SIGKILL: nothing is answered any more.
    fn kill(&mut self) {
        self.worker.take();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn open_direct(&self) -> std::fs::File {
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        rustix::fs::open(self.path("volume"), flags, Mode::empty())
            .unwrap()
            .into()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Before the temporary directory is removed: it must not be emptied through FUSE.
        let _ = handshake::detach(self.directory.path());
    }
}

/// Bytes that do not repeat. Their memory is not page-aligned, so the kernel cuts long requests
/// in the middle of blocks.
fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

#[test]
fn what_is_written_with_direct_io_is_on_the_disk_and_reads_back() {
    let mounted = Mounted::new();
    let file = mounted.open_direct();
    assert_eq!(file.metadata().unwrap().len(), SIZE);
    let data = pattern(5 << 20, 1);
    file.write_all_at(&data, 8192).unwrap();
    file.sync_all().unwrap();
    assert!(mounted.memory.to_bytes()[8192..8192 + data.len()] == data[..]);
    let mut back = vec![0; data.len()];
    file.read_exact_at(&mut back, 8192).unwrap();
    assert!(back == data);
    let mut tail = vec![0; 8192];
    assert_eq!(file.read_at(&mut tail, SIZE - 4096).unwrap(), 4096);
    assert_eq!(file.read_at(&mut tail, SIZE).unwrap(), 0);
}

#[test]
fn holes_and_zeroed_ranges_read_as_zeros_and_nothing_goes_beyond_the_end() {
    let mounted = Mounted::new();
    let file = mounted.open_direct();
    file.write_all_at(&pattern(1 << 20, 2), 0).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, 4096, 65536).unwrap();
    let zero = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, zero, 1 << 19, 65536).unwrap();
    let bytes = mounted.memory.to_bytes();
    assert!(bytes[4096..4096 + 65536].iter().all(|byte| *byte == 0));
    assert!(
        bytes[1 << 19..(1 << 19) + 65536]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(bytes[..4096].iter().any(|byte| *byte != 0));
    let beyond = file.write_at(&[1; 4096], SIZE).unwrap_err();
    assert_eq!(beyond.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
}

#[test]
fn an_error_of_the_medium_reaches_the_writer_and_nobody_else() {
    let mounted = Mounted::new();
    let file = mounted.open_direct();
    mounted.disk.script(|request| match request.operation {
        Operation::Write if request.offset == 4096 => Fault::Fail(ErrorKind::MediaWrite),
        Operation::Write if request.offset == 8192 => Fault::Fail(ErrorKind::NoSpace),
        _ => Fault::None,
    });
    let block = pattern(4096, 3);
    file.write_all_at(&block, 0).unwrap();
    let media = file.write_at(&block, 4096).unwrap_err();
    assert_eq!(media.raw_os_error(), Some(Errno::IO.raw_os_error()));
    let full = file.write_at(&block, 8192).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
    file.write_all_at(&block, 12288).unwrap();
}

/// A system call on a thread of its own, which nothing here waits for when a test fails.
fn aside<T: Send + 'static>(
    call: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::sync::mpsc::Receiver<std::io::Result<T>> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(call()));
    told
}

#[test]
fn requests_of_a_killed_worker_are_answered_by_the_next() {
    let mut mounted = Mounted::new();
    let file = Arc::new(mounted.open_direct());
    for round in 0..20u64 {
        mounted.disk.script(|_| Fault::Hold);
        let taken = mounted.disk.requests();
        let data = pattern(3 << 20, 100 + round);
        let (writes, bytes) = (file.clone(), data.clone());
        let writer = aside(move || writes.write_all_at(&bytes, round * 4096));
        let reads = file.clone();
        let reader = aside(move || reads.read_at(&mut [0; 4096], SIZE - 4096));
        // The write goes out one MiB after the other, so one of its parts is held.
        until("both are with the worker", || {
            (mounted.disk.requests() >= taken + 2).then_some(())
        });
        mounted.kill();
        mounted.disk.script(|_| Fault::None);
        assert!(writer.try_recv().is_err() && reader.try_recv().is_err());
        mounted.start(SIZE);
        writer.recv_timeout(DEADLINE).unwrap().unwrap();
        assert_eq!(reader.recv_timeout(DEADLINE).unwrap().unwrap(), 4096);
        let from = round as usize * 4096;
        assert!(
            mounted.memory.to_bytes()[from..from + data.len()] == data[..],
            "round {round}"
        );
    }
}

#[test]
fn a_flush_and_a_hole_survive_the_worker_too() {
    let mut mounted = Mounted::new();
    let file = Arc::new(mounted.open_direct());
    file.write_all_at(&pattern(4096, 7), 0).unwrap();
    for call in [
        (|file| file.sync_data()) as fn(&std::fs::File) -> std::io::Result<()>,
        |file| {
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(file, hole, 0, 4096)?)
        },
    ] {
        mounted.disk.script(|_| Fault::Hold);
        let taken = mounted.disk.requests();
        let used = file.clone();
        let called = aside(move || call(&used));
        until("it is with the worker", || {
            (mounted.disk.requests() > taken).then_some(())
        });
        mounted.kill();
        mounted.disk.script(|_| Fault::None);
        mounted.start(SIZE);
        called.recv_timeout(DEADLINE).unwrap().unwrap();
    }
    assert!(
        mounted.memory.to_bytes()[..4096]
            .iter()
            .all(|byte| *byte == 0)
    );
}

#[test]
fn a_request_that_came_while_there_was_no_worker_waits_for_one() {
    let mut mounted = Mounted::new();
    let file = mounted.open_direct();
    mounted.kill();
    let written = aside(move || file.write_all_at(&pattern(4096, 4), 0));
    mounted.start(SIZE);
    written.recv_timeout(DEADLINE).unwrap().unwrap();
    assert!(mounted.memory.to_bytes()[..4096] == pattern(4096, 4)[..]);
}

#[test]
fn a_process_that_waits_for_a_read_can_be_killed() {
    let mounted = Mounted::new();
    mounted.disk.script(|_| Fault::Hold);
    let taken = mounted.disk.requests();
    let input = std::fs::File::open(mounted.path("volume")).unwrap();
    let mut reader = std::process::Command::new("cat")
        .stdin(input)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    until("the read is with the worker", || {
        (mounted.disk.requests() > taken).then_some(())
    });
    reader.kill().unwrap();
    until("the reader is gone", || reader.try_wait().unwrap());
}

#[test]
fn a_file_system_on_a_loop_device_does_not_notice_that_workers_die() {
    let mut mounted = Mounted::sized(128 << 20);
    let mount_point = tempfile::tempdir().unwrap();
    let mut fs = FileSystem::make(&mounted.path("volume"), mount_point.path()).unwrap();
    let file = fs.path("random");
    let written = file.clone();
    let writer = std::thread::spawn(move || files::write_random(&written, 64 << 20, 5));
    let mut kills = 0;
    while !writer.is_finished() {
        let taken = mounted.disk.requests();
        mounted.kill();
        mounted.start(128 << 20);
        kills += 1;
        until("the writer goes on", || {
            (mounted.disk.requests() > taken + 2 || writer.is_finished()).then_some(())
        });
    }
    let sum = writer.join().unwrap().unwrap();
    assert!(kills > 20, "only {kills} kills while it wrote");
    fs.unmount().unwrap();
    fs.check().unwrap();
    fs.mount().unwrap();
    assert_eq!(files::sum(&file).unwrap(), sum);
    fs.unmount().unwrap();
}

#[test]
fn a_loop_device_follows_a_volume_that_grew_between_two_workers() {
    let mut mounted = Mounted::sized(2 * SIZE);
    mounted.kill();
    mounted.start(SIZE);
    let file = mounted.path("volume");
    let device = LoopDevice::attach(&file).unwrap();
    assert_eq!(device.follow_size(&file).unwrap(), SIZE);
    mounted.kill();
    mounted.start(2 * SIZE);
    assert_eq!(device.follow_size(&file).unwrap(), 2 * SIZE);
    let end = 2 * SIZE - 4096;
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .open(device.path())
        .unwrap();
    opened.write_all_at(&[9; 4096], end).unwrap();
    opened.sync_all().unwrap();
    assert!(mounted.memory.to_bytes()[end as usize..] == [9; 4096]);
}

#[test]
fn a_volume_of_unknown_size_is_absent_and_the_other_files_are_there() {
    let mut mounted = Mounted::new();
    mounted.kill();
    mounted.start(0);
    let names = |mounted: &Mounted| {
        let listed = std::fs::read_dir(mounted.directory.path()).unwrap();
        let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(&mounted), ["path", "status"]);
    assert!(!mounted.path("volume").exists());
    mounted.kill();
    mounted.start(SIZE);
    assert_eq!(names(&mounted), ["path", "status", "volume"]);
    assert!(mounted.path("volume").exists());
}

#[test]
fn the_path_is_switched_by_writing_it_and_an_older_term_is_refused() {
    let mounted = Mounted::new();
    let status = || -> InitiatorStatus {
        serde_json::from_slice(&std::fs::read(mounted.path("status")).unwrap()).unwrap()
    };
    assert_eq!((status().path.term, status().size), (Term(3), SIZE));
    let next = VolumePath {
        term: Term(4),
        address: "127.0.0.1:10".parse().unwrap(),
    };
    std::fs::write(mounted.path("path"), serde_json::to_vec(&next).unwrap()).unwrap();
    assert_eq!(status().path, next);
    let read: VolumePath =
        serde_json::from_slice(&std::fs::read(mounted.path("path")).unwrap()).unwrap();
    assert_eq!(read, next);
    let older = VolumePath {
        term: Term(3),
        ..next
    };
    let refused = std::fs::write(mounted.path("path"), serde_json::to_vec(&older).unwrap());
    assert_eq!(
        refused.unwrap_err().raw_os_error(),
        Some(Errno::STALE.raw_os_error())
    );
    let garbage = std::fs::write(mounted.path("path"), "there").unwrap_err();
    assert_eq!(garbage.raw_os_error(), Some(Errno::INVAL.raw_os_error()));
    assert!(std::fs::write(mounted.path("status"), "x").is_err());
    assert!(std::fs::write(mounted.path("other"), "x").is_err());
    assert!(std::fs::remove_file(mounted.path("volume")).is_err());
}

#[test]
fn the_mount_of_an_initiator_that_was_killed_whole_is_replaced() {
    let mut mounted = Mounted::new();
    mounted.kill();
    let directory = mounted.directory.path().to_owned();
    // The last descriptor of the device goes: every use of the mount is ENOTCONN now.
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY, Mode::empty()).unwrap();
    drop(std::mem::replace(&mut mounted.device, null));
    assert_eq!(rustix::fs::stat(&directory).unwrap_err(), Errno::NOTCONN);
    mounted.device = handshake::mount(&directory, "weft:test").unwrap();
    mounted.start(SIZE);
    assert!(mounted.path("volume").exists());
}
