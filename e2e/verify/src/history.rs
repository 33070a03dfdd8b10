//! What was asked of a volume and what came of it; judges every read. Pure: no I/O, no clock. Time
//! is the order in which it is told: the beginning of a request before it is sent, its end after
//! it was answered.

use crate::block::{Block, BlockNumber, Content, Sequence, VolumeMark, Writer};
use crate::register::{Register, Time, Value};
use std::collections::{BTreeSet, HashMap};
use weft_block::BLOCK;

/// What a read may not find. Each names the block and what was there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Violation {
    /// As if the write had never been.
    #[error("block {}: lost acknowledged write {}: it reads as zeros", at.0, acknowledged.0)]
    Lost {
        /// Here.
        at: BlockNumber,
        /// This is missing.
        acknowledged: Sequence,
    },
    /// An older write than one acknowledged before the read began.
    #[error("block {}: write {} is older than acknowledged write {}", at.0, found.0, acknowledged.0)]
    Stale {
        /// Here.
        at: BlockNumber,
        /// This was there.
        found: Sequence,
        /// This should be, or a later one.
        acknowledged: Sequence,
    },
    /// An earlier read returned what came after it.
    #[error("block {}: not what an earlier read returned, but what was before that", at.0)]
    Unstable {
        /// Here.
        at: BlockNumber,
    },
    /// A write to another block.
    #[error("block {}: wrong place: write {} to block {}", at.0, found.0, meant.0)]
    Misplaced {
        /// Here.
        at: BlockNumber,
        /// This was there.
        found: Sequence,
        /// And belongs there.
        meant: BlockNumber,
    },
    /// Sectors of different writes.
    #[error("block {}: torn: sectors of write {} and of another", at.0, one.0)]
    Torn {
        /// Here.
        at: BlockNumber,
        /// One of them.
        one: Sequence,
    },
    /// A block of another volume.
    #[error("block {}: bytes of another volume, {}", at.0, volume.0)]
    Foreign {
        /// Here.
        at: BlockNumber,
        /// Whose.
        volume: VolumeMark,
    },
    /// Bytes that nobody wrote.
    #[error("block {}: damaged: nobody wrote sector {sector}", at.0)]
    Damaged {
        /// Here.
        at: BlockNumber,
        /// The first such.
        sector: usize,
    },
    /// A write of this volume that this history knows nothing of.
    #[error("block {}: write {} is not of this history", at.0, found.0)]
    Unknown {
        /// Here.
        at: BlockNumber,
        /// This was there.
        found: Sequence,
    },
}

/// What the volume held at first.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Zeros.
    Zeros,
    /// Anything: a block is judged from its first write on.
    Anything,
}

/// A write, write-zeroes or discard that has begun.
#[derive(Debug)]
#[must_use = "say how it ended"]
pub struct Writing {
    first: BlockNumber,
    count: u64,
    value: Value,
    discards: bool,
}

/// A read that has begun.
#[derive(Debug)]
#[must_use = "say how it ended"]
pub struct Reading {
    first: BlockNumber,
    began: Time,
}

/// A flush that has begun.
#[derive(Debug)]
#[must_use = "say how it ended"]
pub struct Flushing {
    began: Time,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    volume: VolumeMark,
    beginning: Beginning,
    /// Acknowledged writes may go with the power until they are flushed.
    cached: bool,
    now: Time,
    sequence: u64,
    registers: HashMap<u64, Register>,
    /// Blocks with something that may go with the power.
    dirty: BTreeSet<u64>,
    /// Writes without an answer that may still be done.
    unanswered: Vec<Writing>,
    /// When the reads under way began.
    reads: BTreeSet<Time>,
}

impl History {
    /// Of a volume that nobody else writes.
    pub fn new(volume: VolumeMark, beginning: Beginning) -> Self {
        Self {
            volume,
            beginning,
            cached: true,
            now: 0,
            sequence: 0,
            registers: HashMap::new(),
            dirty: BTreeSet::new(),
            unanswered: vec![],
            reads: BTreeSet::new(),
        }
    }

    /// Nobody's power will be cut: what is acknowledged stays. Uses less memory.
    #[must_use]
    pub fn without_power_cuts(mut self) -> Self {
        self.cached = false;
        self
    }

    fn tick(&mut self) -> Time {
        self.now += 1;
        self.now
    }

    /// A write of `count` blocks begins; the bytes to send with it.
    pub fn begin_write(
        &mut self,
        writer: Writer,
        first: BlockNumber,
        count: u64,
    ) -> (Writing, Vec<u8>) {
        let sequence = self.next_sequence();
        let mut bytes = vec![0; usize::try_from(count * BLOCK).unwrap_or_default()];
        for (number, bytes) in (first.0..).zip(bytes.chunks_exact_mut(BLOCK as usize)) {
            let block = Block {
                volume: self.volume,
                number: BlockNumber(number),
                writer,
                sequence,
            };
            block.fill(bytes);
        }
        let writing = self.begin(first, count, Value::Data(writer, sequence), false);
        (writing, bytes)
    }

    /// A write of zeros begins.
    pub fn begin_zeroes(&mut self, first: BlockNumber, count: u64) -> Writing {
        let value = Value::Zeros(self.next_sequence());
        self.begin(first, count, value, false)
    }

    /// A discard begins: afterwards the range reads as zeros or as before.
    pub fn begin_discard(&mut self, first: BlockNumber, count: u64) -> Writing {
        let value = Value::Zeros(self.next_sequence());
        self.begin(first, count, value, true)
    }

    fn next_sequence(&mut self) -> Sequence {
        self.sequence += 1;
        Sequence(self.sequence)
    }

    fn begin(&mut self, first: BlockNumber, count: u64, value: Value, discards: bool) -> Writing {
        let now = self.tick();
        for number in first.0..first.0 + count {
            let register = self.registers.entry(number).or_insert_with(Register::new);
            register.begin(value, now);
        }
        Writing {
            first,
            count,
            value,
            discards,
        }
    }

    /// It was acknowledged; `durable` if that was promised to survive a power cut.
    pub fn acknowledge(&mut self, writing: &Writing, durable: bool) {
        let now = self.tick();
        let oldest = self.oldest_read();
        let durable = durable || !self.cached;
        for number in writing.blocks() {
            let Some(register) = self.registers.get_mut(&number) else {
                continue;
            };
            if writing.discards {
                register.settle(writing.value, now);
            } else {
                register.acknowledge(writing.value, durable, now);
            }
            register.forget(oldest);
            if register.is_dirty() {
                self.dirty.insert(number);
            }
        }
        // The acknowledgement lies before whatever begins next.
        self.tick();
    }

    /// It failed or was never answered: it may have been done, or be done at any time until
    /// [`History::settle`].
    pub fn lose(&mut self, writing: Writing) {
        self.unanswered.push(writing);
    }

    /// Nothing that was never answered can be done any more: its sender was fenced, or is gone
    /// together with all that lay between.
    pub fn settle(&mut self) {
        let now = self.tick();
        for writing in std::mem::take(&mut self.unanswered) {
            for number in writing.blocks() {
                if let Some(register) = self.registers.get_mut(&number) {
                    register.settle(writing.value, now);
                }
            }
        }
    }

    /// A flush begins.
    pub fn begin_flush(&mut self) -> Flushing {
        Flushing { began: self.tick() }
    }

    /// It was acknowledged: all that was acknowledged before it began is durable.
    pub fn flushed(&mut self, flushing: &Flushing) {
        let oldest = self.oldest_read();
        let registers = &mut self.registers;
        self.dirty.retain(|number| {
            let Some(register) = registers.get_mut(number) else {
                return false;
            };
            register.make_durable(flushing.began);
            register.forget(oldest);
            register.is_dirty()
        });
    }

    /// The power of all copies was cut; nothing is under way any more.
    pub fn lose_power(&mut self) {
        self.settle();
        let now = self.tick();
        for register in self.registers.values_mut() {
            register.lose_power(now);
        }
        self.dirty.clear();
    }

    /// A read begins.
    pub fn begin_read(&mut self, first: BlockNumber) -> Reading {
        let began = self.tick();
        self.reads.insert(began);
        Reading { first, began }
    }

    /// It was refused: that says nothing about the bytes.
    pub fn failed(&mut self, reading: &Reading) {
        self.end(reading);
    }

    /// It returned these bytes: whole blocks. Every violation found in them.
    pub fn judge(&mut self, reading: &Reading, bytes: &[u8]) -> Vec<Violation> {
        let now = self.tick();
        let mut found = vec![];
        for (number, block) in (reading.first.0..).zip(bytes.chunks_exact(BLOCK as usize)) {
            let at = BlockNumber(number);
            found.extend(
                self.judge_block(at, Content::of(block), reading.began, now)
                    .err(),
            );
        }
        self.end(reading);
        self.tick();
        found
    }

    fn end(&mut self, reading: &Reading) {
        self.reads.remove(&reading.began);
    }

    fn oldest_read(&self) -> Time {
        self.reads.first().copied().unwrap_or(self.now)
    }

    fn judge_block(
        &mut self,
        at: BlockNumber,
        content: Content,
        began: Time,
        now: Time,
    ) -> Result<(), Violation> {
        let untouched = !self.registers.contains_key(&at.0);
        if untouched && self.beginning == Beginning::Anything {
            return Ok(());
        }
        let (mut fresh, anything) = (Register::new(), self.beginning == Beginning::Anything);
        let register = self.registers.get_mut(&at.0).unwrap_or(&mut fresh);
        // What was there at first may be anything, also what looks like a violation.
        let ours = match content {
            Content::Zeros => true,
            Content::Whole(block) => {
                let known = block.sequence.0 <= self.sequence;
                known && block.volume == self.volume && block.number == at
            }
            Content::Torn(..) | Content::Damaged(_) => false,
        };
        let initial = |value| value == Value::Initial;
        if anything && !ours && register.read(initial, began, now).is_ok() {
            return Ok(());
        }
        let superseded = match content {
            Content::Zeros => {
                let zeros = |value| matches!(value, Value::Initial | Value::Zeros(_));
                register.read(zeros, began, now).err()
            }
            Content::Torn(block, _) => {
                return Err(Violation::Torn {
                    at,
                    one: block.sequence,
                });
            }
            Content::Damaged(sector) => return Err(Violation::Damaged { at, sector }),
            Content::Whole(block) => {
                let Block {
                    volume,
                    number,
                    writer,
                    sequence: found,
                } = block;
                if volume != self.volume {
                    return Err(Violation::Foreign { at, volume });
                }
                if number != at {
                    return Err(Violation::Misplaced {
                        at,
                        found,
                        meant: number,
                    });
                }
                if found.0 > self.sequence || untouched {
                    return Err(Violation::Unknown { at, found });
                }
                let wanted = Value::Data(writer, found);
                register.read(|value| value == wanted, began, now).err()
            }
        };
        let Some(superseded) = superseded else {
            return Ok(());
        };
        let newer = match superseded.by {
            Value::Data(_, sequence) | Value::Zeros(sequence) => sequence,
            Value::Initial => return Err(Violation::Unstable { at }),
        };
        Err(match content {
            _ if !superseded.acknowledged => Violation::Unstable { at },
            Content::Whole(block) => Violation::Stale {
                at,
                found: block.sequence,
                acknowledged: newer,
            },
            _ => Violation::Lost {
                at,
                acknowledged: newer,
            },
        })
    }
}

impl Writing {
    fn blocks(&self) -> std::ops::Range<u64> {
        self.first.0..self.first.0 + self.count
    }
}
