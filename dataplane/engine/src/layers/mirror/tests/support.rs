//! Members that note what they are asked, and fail by script.

use crate::layers::mirror::*;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use weft_block::{
    BLOCK, Disk, DiskError, ErrorKind, Fault, FaultDisk, MemoryDisk, Operation, Request, Stamp,
    Write,
};
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// Blocks of each member.
pub const BLOCKS: u64 = 64;

/// A change or flush as a member got it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Note {
    pub operation: Operation,
    pub offset: u64,
    pub stamp: Stamp,
    pub durable: bool,
}

/// One member: memory that fails by script, and notes what it gets.
pub struct Noted {
    pub slice: SliceUid,
    pub memory: Arc<MemoryDisk>,
    pub faults: FaultDisk,
    pub notes: Mutex<Vec<Note>>,
}

impl Noted {
    pub fn new(number: u128, blocks: u64) -> Arc<Self> {
        let memory = Arc::new(MemoryDisk::new(blocks * BLOCK));
        Arc::new(Self {
            slice: SliceUid(Uuid::from_u128(number)),
            faults: FaultDisk::new(memory.clone()),
            memory,
            notes: Mutex::default(),
        })
    }

    fn note(&self, operation: Operation, offset: u64, stamp: Stamp, durable: bool) {
        self.notes.lock().unwrap().push(Note {
            operation,
            offset,
            stamp,
            durable,
        });
    }

    pub fn member(self: &Arc<Self>) -> Member {
        Member {
            slice: self.slice,
            disk: self.clone(),
        }
    }

    /// What it was asked since the last look.
    pub fn noted(&self) -> Vec<Note> {
        std::mem::take(&mut self.notes.lock().unwrap())
    }

    /// Fails each request of this kind.
    pub fn fails(&self, operation: Operation, kind: ErrorKind) {
        self.script(move |request| match request.operation == operation {
            true => Fault::Fail(kind),
            false => Fault::None,
        });
    }

    /// Holds each request of this kind.
    pub fn holds(&self, operation: Operation) {
        self.script(move |request| match request.operation == operation {
            true => Fault::Hold,
            false => Fault::None,
        });
    }

    pub fn script(&self, script: impl FnMut(Request) -> Fault + Send + 'static) {
        self.faults.script(script);
    }

    /// Does what it is asked, and lets go of what it held.
    pub fn works(&self) {
        self.script(|_| Fault::None);
        self.faults.release();
    }

    /// The first byte of a block.
    pub fn byte(&self, block: u64) -> u8 {
        self.memory.to_bytes()[(block * BLOCK) as usize]
    }
}

#[async_trait]
impl Disk for Noted {
    fn size(&self) -> u64 {
        self.faults.size()
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        self.note(Operation::Read, offset, Stamp::default(), false);
        self.faults.read(offset, into).await
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.note(Operation::Write, offset, stamp, mode == Write::Durable);
        self.faults.write_stamped(offset, data, mode, stamp).await
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        self.note(Operation::Flush, 0, stamp, false);
        self.faults.flush_stamped(stamp).await
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        self.note(Operation::WriteZeroes, offset, stamp, false);
        self.faults
            .write_zeroes_stamped(offset, length, stamp)
            .await
    }

    async fn discard_stamped(&self, offset: u64, _: u64, stamp: Stamp) -> Result<(), DiskError> {
        self.note(Operation::Discard, offset, stamp, false);
        Ok(())
    }
}

/// A mirror and what may be its members.
pub struct Rig {
    pub mirror: Arc<Mirror>,
    pub members: Vec<Arc<Noted>>,
    pub fenced: CancellationToken,
}

impl Rig {
    /// So many members, all in-sync under config 1.
    pub fn new(count: usize) -> Self {
        let rig = Self::waiting(count);
        let all: Vec<_> = (0..count).collect();
        rig.compose(1, &all, &[]).unwrap();
        rig
    }

    /// So many members and no composition.
    pub fn waiting(count: usize) -> Self {
        let fenced = CancellationToken::new();
        let members = (1..=count).map(|number| Noted::new(number as u128, BLOCKS));
        Self {
            mirror: Arc::new(Mirror::new(fenced.clone())),
            members: members.collect(),
            fenced,
        }
    }

    /// Puts these members in force.
    pub fn compose(
        &self,
        config: u64,
        in_sync: &[usize],
        targets: &[usize],
    ) -> Result<(), ComposeError> {
        self.compose_unequal(config, in_sync, targets, &[])
    }

    pub fn compose_unequal(
        &self,
        config: u64,
        in_sync: &[usize],
        targets: &[usize],
        unequal: &[Span],
    ) -> Result<(), ComposeError> {
        let members = |which: &[usize]| which.iter().map(|at| self.members[*at].member()).collect();
        let composition = Composition {
            config: Config(config),
            in_sync: members(in_sync),
            targets: members(targets),
            leader: self.members[in_sync[0]].slice,
        };
        self.mirror.compose(composition, unequal.iter().copied())
    }

    pub fn report(&self) -> Report {
        self.mirror.report().borrow().clone()
    }

    /// Which members have failed, as it is reported.
    pub fn failed(&self) -> Vec<(usize, Failure)> {
        let number = |failed: &Failed| failed.slice.0.as_u128() as usize - 1;
        let report = self.report();
        let failed = report.failed.iter();
        failed.map(|one| (number(one), one.failure)).collect()
    }

    /// Waits until this holds of the report.
    pub async fn until(&self, holds: impl FnMut(&Report) -> bool) {
        self.mirror.report().wait_for(holds).await.unwrap();
    }

    /// Begins a write of one block.
    pub fn write(&self, block: u64, byte: u8) -> tokio::task::JoinHandle<()> {
        let mirror = self.mirror.clone();
        tokio::spawn(async move {
            let data = block_of(byte);
            let done = mirror.write(block * BLOCK, data, Write::Cached).await;
            done.unwrap();
        })
    }

    /// Begins a flush.
    pub fn flush(&self) -> tokio::task::JoinHandle<Result<(), DiskError>> {
        let mirror = self.mirror.clone();
        tokio::spawn(async move { mirror.flush().await })
    }

    /// Reads one block.
    pub async fn read(&self, block: u64) -> Result<u8, DiskError> {
        let mut into = BytesMut::zeroed(BLOCK as usize);
        self.mirror.read(block * BLOCK, &mut into).await?;
        assert!(into.iter().all(|byte| *byte == into[0]));
        Ok(into[0])
    }

    /// Whether all members have the same bytes.
    pub fn is_equal(&self) -> bool {
        let first = self.members[0].memory.to_bytes();
        let mut others = self.members.iter();
        others.all(|member| member.memory.to_bytes() == first)
    }
}

pub fn block_of(byte: u8) -> Bytes {
    Bytes::from(vec![byte; BLOCK as usize])
}

pub fn span(first: u64, blocks: u64) -> Span {
    Span {
        start: first * BLOCK,
        end: (first + blocks) * BLOCK,
    }
}

/// Lets every task do what it can. For a runtime of one thread without timers under way.
pub async fn settle() {
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
}
