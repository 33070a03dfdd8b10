//! Disks that are broken on purpose: each fault must be named for what it is.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on may as well say where"
)]

use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex};
use uuid::Uuid;
use weft_block::{
    BLOCK, Disk, ErrorKind, Fault, FaultDisk, Medium, MemoryDisk, Operation, Stamp, Write,
};
use weft_verify::block::{Block, BlockNumber, Sequence, VolumeMark, Writer};
use weft_verify::history::Beginning;
use weft_verify::{History, Violation, Workload};

const MARK: VolumeMark = VolumeMark(Uuid::from_u128(1));
const ME: Writer = Writer(1);
const AT: BlockNumber = BlockNumber(3);

/// A disk whose bytes can be changed behind its back.
struct Lab {
    memory: Arc<MemoryDisk>,
    history: History,
}

impl Lab {
    fn new() -> Self {
        Self {
            memory: Arc::new(MemoryDisk::new(64 * BLOCK)),
            history: History::new(MARK, Beginning::Zeros),
        }
    }

    fn write(&mut self, at: BlockNumber) {
        let (writing, bytes) = self.history.begin_write(ME, at, 1);
        self.put(at, &bytes);
        self.history.acknowledge(&writing, false);
    }

    fn put(&self, at: BlockNumber, bytes: &[u8]) {
        self.memory
            .write_at(at.0 * BLOCK, bytes, Write::Cached)
            .unwrap();
    }

    fn get(&self, at: BlockNumber) -> Vec<u8> {
        let mut bytes = vec![0; BLOCK as usize];
        self.memory.read_at(at.0 * BLOCK, &mut bytes).unwrap();
        bytes
    }

    fn read(&mut self, at: BlockNumber) -> Option<Violation> {
        let reading = self.history.begin_read(at);
        let bytes = self.get(at);
        self.history.judge(&reading, &bytes).first().copied()
    }
}

#[test]
fn a_lost_acknowledged_write_is_named() {
    let mut lab = Lab::new();
    lab.write(AT);
    assert_eq!(lab.read(AT), None);
    lab.put(AT, &[0; BLOCK as usize]);
    let acknowledged = Sequence(1);
    assert_eq!(
        lab.read(AT),
        Some(Violation::Lost {
            at: AT,
            acknowledged
        })
    );
}

#[test]
fn an_older_write_than_the_acknowledged_one_is_named() {
    let mut lab = Lab::new();
    lab.write(AT);
    let old = lab.get(AT);
    lab.write(AT);
    lab.put(AT, &old);
    let (found, acknowledged) = (Sequence(1), Sequence(2));
    let stale = Violation::Stale {
        at: AT,
        found,
        acknowledged,
    };
    assert_eq!(lab.read(AT), Some(stale));
}

#[test]
fn a_write_in_the_wrong_place_is_named() {
    let mut lab = Lab::new();
    lab.write(AT);
    lab.write(BlockNumber(4));
    let other = lab.get(BlockNumber(4));
    lab.put(AT, &other);
    let (found, meant) = (Sequence(2), BlockNumber(4));
    assert_eq!(
        lab.read(AT),
        Some(Violation::Misplaced {
            at: AT,
            found,
            meant
        })
    );
}

#[test]
fn a_torn_block_is_named() {
    let mut lab = Lab::new();
    lab.write(AT);
    let old = lab.get(AT);
    lab.write(AT);
    let mut torn = lab.get(AT);
    torn[1536..].copy_from_slice(&old[1536..]);
    lab.put(AT, &torn);
    assert_eq!(
        lab.read(AT),
        Some(Violation::Torn {
            at: AT,
            one: Sequence(2)
        })
    );
}

#[test]
fn a_flipped_bit_is_named_with_its_sector() {
    let mut lab = Lab::new();
    lab.write(AT);
    let mut bytes = lab.get(AT);
    bytes[2000] ^= 4;
    lab.put(AT, &bytes);
    assert_eq!(lab.read(AT), Some(Violation::Damaged { at: AT, sector: 3 }));
}

#[test]
fn bytes_of_another_volume_are_named() {
    let mut lab = Lab::new();
    lab.write(AT);
    let volume = VolumeMark(Uuid::from_u128(2));
    let mut bytes = [0; BLOCK as usize];
    let (number, writer, sequence) = (AT, ME, Sequence(1));
    Block {
        volume,
        number,
        writer,
        sequence,
    }
    .fill(&mut bytes);
    lab.put(AT, &bytes);
    assert_eq!(lab.read(AT), Some(Violation::Foreign { at: AT, volume }));
}

#[test]
fn an_unanswered_write_may_come_late_but_does_not_go_again() {
    let mut lab = Lab::new();
    lab.write(AT);
    let old = lab.get(AT);
    let (writing, new) = lab.history.begin_write(ME, AT, 1);
    lab.history.lose(writing);
    assert_eq!(lab.read(AT), None, "it was not done");
    lab.put(AT, &new);
    assert_eq!(lab.read(AT), None, "it came late");
    lab.put(AT, &old);
    assert_eq!(lab.read(AT), Some(Violation::Unstable { at: AT }));
}

#[test]
fn after_it_is_settled_an_unanswered_write_is_there_or_never() {
    let mut lab = Lab::new();
    lab.write(AT);
    let (writing, late) = lab.history.begin_write(ME, AT, 1);
    lab.history.lose(writing);
    lab.history.settle();
    assert_eq!(lab.read(AT), None);
    lab.put(AT, &late);
    assert!(
        matches!(lab.read(AT), Some(Violation::Stale { .. })),
        "it came after it could"
    );
}

#[test]
fn of_two_writes_at_once_either_may_stay_but_only_one_does() {
    let mut lab = Lab::new();
    let (first, one) = lab.history.begin_write(ME, AT, 1);
    let (second, two) = lab.history.begin_write(Writer(2), AT, 1);
    lab.history.acknowledge(&second, false);
    lab.history.acknowledge(&first, false);
    lab.put(AT, &one);
    assert_eq!(lab.read(AT), None);
    lab.put(AT, &two);
    assert!(lab.read(AT).is_some(), "it changed without a write");
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_find_what_was_before() {
    let mut lab = Lab::new();
    lab.write(AT);
    let old = lab.get(AT);
    let reading = lab.history.begin_read(AT);
    lab.write(AT);
    assert_eq!(lab.history.judge(&reading, &old), []);
}

#[test]
fn a_power_cut_may_take_what_was_not_flushed_and_nothing_else() {
    let mut lab = Lab::new();
    lab.write(AT);
    let flushed = lab.get(AT);
    let flushing = lab.history.begin_flush();
    lab.history.flushed(&flushing);
    lab.write(AT);
    lab.history.lose_power();
    lab.put(AT, &flushed);
    assert_eq!(lab.read(AT), None);
    lab.put(AT, &[0; BLOCK as usize]);
    assert!(
        matches!(lab.read(AT), Some(Violation::Lost { .. })),
        "it was flushed"
    );
}

#[test]
fn a_flush_covers_what_was_acknowledged_before_it_began() {
    let mut lab = Lab::new();
    let flushing = lab.history.begin_flush();
    lab.write(AT);
    lab.history.flushed(&flushing);
    lab.history.lose_power();
    lab.put(AT, &[0; BLOCK as usize]);
    assert_eq!(
        lab.read(AT),
        None,
        "the flush began before the write was acknowledged"
    );
}

#[test]
fn a_discard_leaves_zeros_or_what_was_there_and_then_it_stays() {
    let mut lab = Lab::new();
    lab.write(AT);
    let old = lab.get(AT);
    let discard = lab.history.begin_discard(AT, 1);
    lab.history.acknowledge(&discard, false);
    assert_eq!(lab.read(AT), None, "as before");
    let discard = lab.history.begin_discard(AT, 1);
    lab.history.acknowledge(&discard, false);
    lab.put(AT, &[0; BLOCK as usize]);
    assert_eq!(lab.read(AT), None, "zeros");
    lab.put(AT, &old);
    assert!(lab.read(AT).is_some(), "it came back");
}

#[test]
fn a_block_that_was_there_before_is_judged_from_its_first_write_on() {
    let mut lab = Lab::new();
    lab.history = History::new(MARK, Beginning::Anything);
    lab.put(AT, &[7; BLOCK as usize]);
    assert_eq!(lab.read(AT), None);
    lab.write(AT);
    assert_eq!(lab.read(AT), None);
    lab.put(AT, &[7; BLOCK as usize]);
    assert_eq!(lab.read(AT), Some(Violation::Damaged { at: AT, sector: 0 }));
}

fn history() -> Mutex<History> {
    Mutex::new(History::new(MARK, Beginning::Zeros))
}

#[tokio::test]
async fn a_sound_disk_passes_with_overlapping_requests_and_failures_of_every_kind() {
    for seed in 0..20 {
        let disk = FaultDisk::new(Arc::new(MemoryDisk::new(64 * BLOCK)));
        disk.script(move |request| match (request.sequence + seed) % 17 {
            0 => Fault::Fail(ErrorKind::MediaWrite),
            5 if request.operation == Operation::Write => Fault::Lie(ErrorKind::Gone),
            9 => Fault::Delay(std::time::Duration::from_micros(200)),
            _ => Fault::None,
        });
        let (history, workload) = (history(), Workload::new(seed, 64, 2000));
        let report = workload.run(&disk, &history, |_| false).await;
        assert_eq!(report.violations, [], "seed {seed}");
        assert!(
            report.done > 1500 && report.failed > 100,
            "seed {seed}: {report:?}"
        );
        disk.script(|_| Fault::None);
        let last = workload.look(&disk, &history).await;
        assert_eq!((last.done, last.violations), (1, vec![]), "seed {seed}");
    }
}

/// Acknowledges one write of `every` without doing it.
struct Forgetful {
    memory: MemoryDisk,
    every: u64,
    writes: std::sync::atomic::AtomicU64,
}

#[async_trait::async_trait]
impl Disk for Forgetful {
    fn size(&self) -> u64 {
        Medium::size(&self.memory)
    }
    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), weft_block::DiskError> {
        self.memory.read_at(offset, into)
    }
    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        _: Stamp,
    ) -> Result<(), weft_block::DiskError> {
        let number = self
            .writes
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        match number % self.every {
            7 => Ok(()),
            _ => self.memory.write_at(offset, &data, mode),
        }
    }
    async fn flush_stamped(&self, _: Stamp) -> Result<(), weft_block::DiskError> {
        Ok(())
    }
    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), weft_block::DiskError> {
        self.memory.zero_at(offset, length)
    }
    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        _: Stamp,
    ) -> Result<(), weft_block::DiskError> {
        self.memory.discard_at(offset, length)
    }
}

#[tokio::test]
async fn a_few_forgotten_writes_among_hundreds_are_found_with_every_seed() {
    for seed in 0..20 {
        let disk = Forgetful {
            memory: MemoryDisk::new(64 * BLOCK),
            every: 60,
            writes: 0.into(),
        };
        let (history, workload) = (history(), Workload::new(seed, 64, 600));
        let mut report = workload.run(&disk, &history, |_| false).await;
        let last = workload.look(&disk, &history).await;
        report.violations.extend(last.violations);
        let named = |violation: &Violation| {
            matches!(
                violation,
                Violation::Lost { .. } | Violation::Stale { .. } | Violation::Unstable { .. }
            )
        };
        assert!(
            report.violations.iter().any(named),
            "seed {seed}: {report:?}"
        );
    }
}
