//! The program itself.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use weft_drive::superblock::{Copies, Superblock};
use weft_spec::DOCUMENT_VERSION;
use weft_spec::drive::{Adoption, DriveDocument, Medium, SliceGrant, SliceRequest};
use weft_spec::ids::{ClusterUid, DocumentGeneration, DriveUid, SliceUid, VolumeUid};
use weft_spec::keys::Key;

const DEADLINE: Duration = Duration::from_secs(30);

/// A running drive, killed when dropped.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
}

impl Running {
    pub fn start(document: &Path) -> Self {
        Self::start_with("auto", document)
    }

    /// With this back-end for the medium.
    pub fn start_with(io: &str, document: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weft-drive"))
            .args(["--document", &document.display().to_string()])
            .args(["--io", io])
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (told, lines) = channel();
        let stderr = child.stderr.take().unwrap();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        Self { child, lines }
    }

    /// Until a line of the log has this in it.
    pub fn says(&self, what: &str) -> String {
        let mut seen = String::new();
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            if line.contains(what) {
                return line;
            }
            seen.push_str(&line);
            seen.push('\n');
        }
        panic!("{what:?} was not logged; but:\n{seen}")
    }

    /// Dead when this returns.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it logged since it was asked last.
    pub fn log(&self) -> String {
        self.lines.try_iter().collect::<Vec<_>>().join("\n")
    }

    pub fn terminate(mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Files {
    pub directory: tempfile::TempDir,
    pub document: DriveDocument,
}

impl Files {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let medium = Medium::File {
            path: directory.path().join("d0.img"),
            size: 64 << 20,
        };
        let request = SliceRequest {
            volume: VolumeUid::random(),
            size: 8 << 20,
            overcommit_percent: 100,
        };
        let document = DriveDocument {
            version: DOCUMENT_VERSION,
            generation: DocumentGeneration(3),
            cluster: ClusterUid::random(),
            drive: DriveUid::random(),
            name: "d0".into(),
            medium,
            adoption: Adoption::IfBlank,
            port: free_port(),
            key: Key::random(),
            slices: vec![SliceGrant {
                slice: SliceUid::random(),
                request,
            }],
            control: None,
        };
        Self {
            directory,
            document,
        }
    }

    pub fn medium(&self) -> PathBuf {
        self.directory.path().join("d0.img")
    }

    pub fn write(&self) -> PathBuf {
        let path = self.directory.path().join("document.json");
        std::fs::write(&path, serde_json::to_vec(&self.document).unwrap()).unwrap();
        path
    }
}

/// A port below those that the kernel gives to outgoing connections, so that it stays free
/// until the program listens on it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = 10_000
            + (std::process::id() as u16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed))
                % 20_000;
        if std::net::TcpListener::bind(("0.0.0.0", port)).is_ok() {
            return port;
        }
    }
}

/// Each test on each back-end.
macro_rules! on_both {
    ($($test:ident)*) => {
        mod plain { $(#[test] fn $test() { super::$test("plain"); })* }
        mod uring { $(#[test] fn $test() { super::$test("io_uring"); })* }
    };
}

on_both! {
    a_drive_is_formatted_served_ended_and_served_again
    a_foreign_medium_is_left_as_it_is_and_the_process_stays
    a_second_process_waits_for_the_first_even_when_that_one_is_killed
    a_process_that_waits_for_the_medium_ends_when_asked
    an_older_document_than_the_medium_knows_is_not_served
}

fn a_drive_is_formatted_served_ended_and_served_again(io: &str) {
    let mut files = Files::new();
    for generation in [3, 4] {
        files.document.generation = DocumentGeneration(generation);
        let running = Running::start_with(io, &files.write());
        let line = running.says("medium held");
        let backend = if io == "plain" { "preadv" } else { "io_uring" };
        assert!(line.contains(backend), "{line}");
        let line = running.says("serving");
        assert!(line.contains("slices=1"), "{line}");
        assert!(std::net::TcpStream::connect(("127.0.0.1", files.document.port)).is_ok());
        assert_eq!(running.terminate(), Some(0));
        let bytes = weft_block::MemoryDisk::from_bytes(std::fs::read(files.medium()).unwrap());
        let Copies::Good(superblock) = Superblock::read(&bytes).unwrap() else {
            panic!("no superblock")
        };
        assert_eq!(superblock.drive, files.document.drive);
        assert_eq!(superblock.document_generation.0, generation);
    }
}

fn a_foreign_medium_is_left_as_it_is_and_the_process_stays(io: &str) {
    let files = Files::new();
    let mut bytes = vec![0; 64 << 20];
    bytes[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    std::fs::write(files.medium(), &bytes).unwrap();
    let running = Running::start_with(io, &files.write());
    let line = running.says("ForeignData");
    assert!(line.contains("ext4") && line.contains("wipe"), "{line}");
    assert_eq!(running.terminate(), Some(0));
    assert!(
        std::fs::read(files.medium()).unwrap() == bytes,
        "something was written"
    );
}

fn a_second_process_waits_for_the_first_even_when_that_one_is_killed(io: &str) {
    let mut files = Files::new();
    let mut first = Running::start_with(io, &files.write());
    first.says("serving");
    files.document.port = free_port();
    let second = Running::start_with(io, &files.write());
    second.says("waiting until it is gone");
    first.kill();
    second.says("serving");
    assert_eq!(second.terminate(), Some(0));
}

fn a_process_that_waits_for_the_medium_ends_when_asked(io: &str) {
    let files = Files::new();
    let first = Running::start_with(io, &files.write());
    first.says("serving");
    let second = Running::start_with(io, &files.write());
    second.says("waiting until it is gone");
    assert_eq!(second.terminate(), Some(0));
}

fn an_older_document_than_the_medium_knows_is_not_served(io: &str) {
    let mut files = Files::new();
    let running = Running::start_with(io, &files.write());
    running.says("serving");
    assert_eq!(running.terminate(), Some(0));
    files.document.generation = DocumentGeneration(2);
    let running = Running::start_with(io, &files.write());
    let line = running.says("outdated");
    assert!(line.contains("older than 3"), "{line}");
}

#[test]
fn a_document_that_cannot_be_read_says_what_is_wrong_with_it() {
    let mut files = Files::new();
    files.document.version = 9;
    let mut running = Running::start(&files.write());
    running.says("version 9");
    assert_eq!(running.child.wait().unwrap().code(), Some(1));
}

#[test]
fn a_back_end_that_there_is_not_is_refused_with_the_words_there_are() {
    let files = Files::new();
    let mut running = Running::start_with("aio", &files.write());
    running.says("none of auto, plain and io_uring");
    assert_eq!(running.child.wait().unwrap().code(), Some(2));
}
