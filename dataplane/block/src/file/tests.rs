use super::*;
use crate::{Disk, ThreadedDisk};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::time::Duration;

/// Each test on each back-end.
macro_rules! on_both {
    (blocking: $($test:ident)*; async: $($later:ident)*) => {
        mod plain {
            use super::Io;
            $(#[test] fn $test() { super::$test(Io::Plain); })*
            $(#[tokio::test] async fn $later() { super::$later(Io::Plain).await; })*
        }
        mod uring {
            use super::Io;
            $(#[test] fn $test() { super::$test(Io::Uring); })*
            $(#[tokio::test] async fn $later() { super::$later(Io::Uring).await; })*
        }
    };
}

on_both! {
    blocking:
    a_new_file_is_preallocated_and_reads_as_zeros
    a_file_that_is_there_is_left_as_it_is
    a_second_holder_waits_until_the_first_is_gone
    a_file_is_no_block_device
    reads_beyond_the_end_of_a_file_that_shrank_are_errors;
    async:
    what_is_written_is_read_back_at_any_alignment_of_memory
    requests_beyond_the_end_or_between_blocks_are_out_of_range
    more_requests_than_the_medium_takes_are_all_done
    a_request_goes_on_when_its_caller_leaves
}

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn a_new_file_is_preallocated_and_reads_as_zeros(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    let medium = FileMedium::open_file(&path, 1 << 20, io, || ()).unwrap();
    assert_eq!(medium.size(), 1 << 20);
    let mut bytes = vec![1; 8192];
    medium.read_at(4096, &mut bytes).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0));
    let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&path).unwrap());
    assert!(blocks * 512 >= 1 << 20, "{blocks} blocks");
}

fn a_file_that_is_there_is_left_as_it_is(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    std::fs::write(&path, [7; 8192]).unwrap();
    let mut medium = FileMedium::open_file(&path, 1 << 20, io, || ()).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), [7; 8192]);
    assert_eq!(medium.size(), 8192);
    medium.extend(1 << 20).unwrap();
    assert_eq!(medium.size(), 1 << 20);
}

async fn what_is_written_is_read_back_at_any_alignment_of_memory(io: Io) {
    let directory = scratch();
    let medium =
        FileMedium::open_file(&directory.path().join("d0.img"), 1 << 20, io, || ()).unwrap();
    let disk = ThreadedDisk::new(Arc::new(medium));
    for (mode, shift) in [(Write::Cached, 1), (Write::Durable, 3)] {
        let data =
            Bytes::from((0..=255u8).cycle().take(12288 + shift).collect::<Vec<_>>()).slice(shift..);
        disk.write(8192, data.clone(), mode).await.unwrap();
        let mut back = BytesMut::zeroed(12288);
        disk.read(8192, &mut back).await.unwrap();
        assert_eq!(back, data);
    }
    disk.flush().await.unwrap();
    disk.write_zeroes(8192, 4096).await.unwrap();
    disk.discard(12288, 4096).await.unwrap();
    let mut back = BytesMut::zeroed(8192);
    disk.read(8192, &mut back).await.unwrap();
    assert!(back.iter().all(|byte| *byte == 0));
}

async fn requests_beyond_the_end_or_between_blocks_are_out_of_range(io: Io) {
    let directory = scratch();
    let medium =
        FileMedium::open_file(&directory.path().join("d0.img"), 1 << 20, io, || ()).unwrap();
    let disk = ThreadedDisk::new(Arc::new(medium));
    for (offset, length) in [
        (1 << 20, 4096),
        ((1 << 20) - 4096, 8192),
        (512, 4096),
        (0, 100),
        (u64::MAX - 4095, 4096),
    ] {
        let mut into = BytesMut::zeroed(length);
        let error = disk.read(offset, &mut into).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{offset} {length}");
        assert_eq!(into.len(), length, "the buffer is given back");
    }
}

fn a_second_holder_waits_until_the_first_is_gone(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    let first = FileMedium::open_file(&path, 1 << 20, io, || ()).unwrap();
    let (told, waits) = std::sync::mpsc::channel();
    let second = std::thread::spawn(move || {
        FileMedium::open_file(&path, 1 << 20, io, || told.send(()).unwrap())
            .unwrap()
            .size()
    });
    waits.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(!second.is_finished());
    drop(first);
    assert_eq!(second.join().unwrap(), 1 << 20);
}

fn a_file_is_no_block_device(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    std::fs::write(&path, [0; 4096]).unwrap();
    assert!(matches!(
        FileMedium::open_device(&path, io, || ()),
        Err(OpenError::Kind { .. })
    ));
    assert!(matches!(
        FileMedium::open_file(directory.path(), 4096, io, || ()),
        Err(OpenError::System { .. })
    ));
}

fn reads_beyond_the_end_of_a_file_that_shrank_are_errors(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    let medium = FileMedium::open_file(&path, 1 << 20, io, || ()).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8192).unwrap();
    let mut bytes = vec![1; 8192];
    medium.read_at(0, &mut bytes).unwrap();
    // Half of it is there: a short read is no success.
    let error = medium.read_at(4096, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MediaRead);
}

async fn more_requests_than_the_medium_takes_are_all_done(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    let medium = FileMedium::open_file(&path, 4 << 20, io, || ()).unwrap();
    let disk = ThreadedDisk::new(Arc::new(medium));
    let block = |n: u64| Bytes::from(vec![n as u8 ^ (n >> 8) as u8; 4096]);
    let writes = (0..1000).map(|n| disk.write(n * 4096, block(n), Write::Cached));
    futures::future::try_join_all(writes).await.unwrap();
    let reads = (0..1000).map(|n| {
        let disk = &disk;
        async move {
            let mut into = BytesMut::zeroed(4096);
            disk.read(n * 4096, &mut into).await.unwrap();
            assert_eq!(into, block(n), "block {n}");
        }
    });
    futures::future::join_all(reads).await;
}

async fn a_request_goes_on_when_its_caller_leaves(io: Io) {
    let directory = scratch();
    let path = directory.path().join("d0.img");
    let medium = FileMedium::open_file(&path, 1 << 20, io, || ()).unwrap();
    let disk = ThreadedDisk::new(Arc::new(medium));
    for n in 0..200u64 {
        let data = Bytes::from(vec![n as u8 + 1; 4096]);
        let write = disk.write(n * 4096, data, Write::Cached);
        // Polled once, which starts it, and dropped.
        assert!(write.now_or_never().is_none_or(|done| done.is_ok()));
    }
    // Whatever was begun ends before the medium does.
    let path = path.clone();
    tokio::task::spawn_blocking(move || drop(disk))
        .await
        .unwrap();
    let medium = FileMedium::open_file(&path, 1 << 20, Io::Plain, || ()).unwrap();
    for n in 0..200u64 {
        let mut bytes = vec![0; 4096];
        medium.read_at(n * 4096, &mut bytes).unwrap();
        assert!(bytes.iter().all(|byte| *byte == n as u8 + 1), "block {n}");
    }
}

#[test]
fn the_words_for_a_back_end_are_these_three() {
    assert_eq!("auto".parse(), Ok(Io::Auto));
    assert_eq!("plain".parse(), Ok(Io::Plain));
    assert_eq!("io_uring".parse(), Ok(Io::Uring));
    let refused = "uring".parse::<Io>().unwrap_err();
    assert!(refused.contains("\"uring\" is none of auto, plain and io_uring"));
}

#[test]
fn a_refused_ring_is_replaced_only_where_that_was_asked_for() {
    let path = Path::new("/d0.img");
    for (errno, why) in [
        (Errno::PERM, "forbidden"),
        (Errno::NOSYS, "not in this kernel"),
    ] {
        let said = without_ring(errno, path, Io::Auto).unwrap();
        assert!(said.contains("preadv") && said.contains(why), "{said}");
        let refused = without_ring(errno, path, Io::Uring).unwrap_err();
        assert!(matches!(refused, OpenError::System { source, .. } if source == errno));
    }
}
