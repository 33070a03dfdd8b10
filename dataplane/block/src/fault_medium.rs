use crate::fault::{Operation, Request};
use crate::medium::check;
use crate::{BLOCK, DiskError, ErrorKind, Medium, Write};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a medium does with one request, mostly behind the back of who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Harm {
    /// What was asked.
    None,
    /// Refused: EIO, or ENOSPC of the file below.
    Fail(ErrorKind),
    /// A write that is answered well and not done: what was there stays, stale.
    Lost,
    /// A write that is done to another place, whose first byte this is.
    Misdirected(u64),
    /// A write of which so many bytes are done, and which is answered well: torn if they end
    /// within a block, else short.
    Short(u64),
    /// The same, but the answer is an error.
    ShortAndTold(u64),
    /// This bit of the bytes is the other one; of a write on the medium, of a read in its answer.
    Flipped(u64),
    /// A read that answers what each block was before its last write.
    Stale,
}

type Script = Box<dyn FnMut(Request) -> Harm + Send>;

/// Wraps any medium; a script decides what happens to each request. For tests. The sibling of
/// [`crate::FaultDisk`] for what is below a [`crate::Disk`].
pub struct FaultMedium {
    inner: Arc<dyn Medium>,
    script: Mutex<Script>,
    requests: AtomicU64,
    /// Of each block written through this: what it was before.
    older: Mutex<HashMap<u64, Vec<u8>>>,
}

impl std::fmt::Debug for FaultMedium {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultMedium({:?})", self.inner)
    }
}

impl FaultMedium {
    /// Starts without faults.
    pub fn new(inner: Arc<dyn Medium>) -> Self {
        Self {
            inner,
            script: Mutex::new(Box::new(|_| Harm::None)),
            requests: AtomicU64::new(0),
            older: Mutex::default(),
        }
    }

    /// Replaces the script; requests under way keep what they got.
    pub fn script(&self, script: impl FnMut(Request) -> Harm + Send + 'static) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(script);
    }

    /// Does without faults from here on.
    pub fn heal(&self) {
        self.script(|_| Harm::None);
    }

    fn meet(&self, operation: Operation, offset: u64, length: u64) -> Result<Harm, DiskError> {
        let sequence = self.requests.fetch_add(1, Ordering::Relaxed);
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        let harm = script(Request {
            operation,
            offset,
            length,
            sequence,
        });
        match harm {
            Harm::Fail(kind) => Err(injected(kind, operation, offset)),
            harm => Ok(harm),
        }
    }

    fn older(&self) -> MutexGuard<'_, HashMap<u64, Vec<u8>>> {
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes and remembers what was there.
    fn put(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        let mut before = vec![0; data.len()];
        self.inner.read_at(offset, &mut before)?;
        let blocks = before.chunks(BLOCK as usize).map(<[u8]>::to_vec);
        self.older()
            .extend((offset..).step_by(BLOCK as usize).zip(blocks));
        self.inner.write_at(offset, data, mode)
    }

    /// Writes the first `length` bytes, and leaves the rest of their last block as it was.
    fn put_part(
        &self,
        offset: u64,
        data: &[u8],
        length: u64,
        mode: Write,
    ) -> Result<(), DiskError> {
        let length = (length as usize).min(data.len());
        let whole = length.next_multiple_of(BLOCK as usize);
        if whole == 0 {
            return Ok(());
        }
        let mut part = vec![0; whole];
        self.inner.read_at(offset, &mut part)?;
        part[..length].copy_from_slice(&data[..length]);
        self.put(offset, &part, mode)
    }
}

fn injected(kind: ErrorKind, operation: Operation, offset: u64) -> DiskError {
    DiskError::new(kind, format!("injected into {operation:?} at {offset}"))
}

fn flip(bytes: &mut [u8], bit: u64) {
    let bit = bit % (bytes.len() as u64 * 8);
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
}

impl Medium for FaultMedium {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        let harm = self.meet(Operation::Read, offset, into.len() as u64)?;
        self.inner.read_at(offset, into)?;
        match harm {
            Harm::Flipped(bit) => flip(into, bit),
            Harm::Stale => {
                let older = self.older();
                let places = (offset..).step_by(BLOCK as usize);
                for (at, block) in places.zip(into.chunks_mut(BLOCK as usize)) {
                    if let Some(before) = older.get(&at) {
                        block.copy_from_slice(before);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8], mode: Write) -> Result<(), DiskError> {
        check("write", self.size(), offset, data.len() as u64)?;
        match self.meet(Operation::Write, offset, data.len() as u64)? {
            Harm::Lost => Ok(()),
            Harm::Misdirected(elsewhere) => self.put(elsewhere, data, mode),
            Harm::Short(length) => self.put_part(offset, data, length, mode),
            Harm::ShortAndTold(length) => {
                self.put_part(offset, data, length, mode)?;
                Err(injected(ErrorKind::MediaWrite, Operation::Write, offset))
            }
            Harm::Flipped(bit) => {
                let mut data = data.to_vec();
                flip(&mut data, bit);
                self.put(offset, &data, mode)
            }
            Harm::None | Harm::Fail(_) | Harm::Stale => self.put(offset, data, mode),
        }
    }

    fn flush(&self) -> Result<(), DiskError> {
        match self.meet(Operation::Flush, 0, 0)? {
            Harm::Lost => Ok(()),
            _ => self.inner.flush(),
        }
    }

    fn zero_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        match self.meet(Operation::WriteZeroes, offset, length)? {
            Harm::Lost => Ok(()),
            _ => self.inner.zero_at(offset, length),
        }
    }

    fn discard_at(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.meet(Operation::Discard, offset, length)?;
        self.inner.discard_at(offset, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryDisk;

    const PAGE: usize = BLOCK as usize;

    fn world() -> FaultMedium {
        let medium = FaultMedium::new(Arc::new(MemoryDisk::new(1 << 20)));
        medium.write_at(0, &[1; 4 * PAGE], Write::Cached).unwrap();
        medium
    }

    /// The first byte of each of the first four blocks, and the last of the first.
    fn bytes(medium: &FaultMedium) -> [u8; 5] {
        medium.heal();
        let mut all = vec![0; 4 * PAGE];
        medium.read_at(0, &mut all).unwrap();
        [
            all[0],
            all[PAGE],
            all[2 * PAGE],
            all[3 * PAGE],
            all[PAGE - 1],
        ]
    }

    #[test]
    fn each_harm_does_what_it_says() {
        let cases = [
            (Harm::None, [2, 2, 1, 1, 2], true),
            (Harm::Fail(ErrorKind::MediaWrite), [1, 1, 1, 1, 1], false),
            (Harm::Lost, [1, 1, 1, 1, 1], true),
            (Harm::Misdirected(2 * BLOCK), [1, 1, 2, 2, 1], true),
            (Harm::Short(BLOCK), [2, 1, 1, 1, 2], true),
            (Harm::Short(512), [2, 1, 1, 1, 1], true),
            (Harm::ShortAndTold(512), [2, 1, 1, 1, 1], false),
            (Harm::Flipped(0), [3, 2, 1, 1, 2], true),
        ];
        for (harm, left, answered) in cases {
            let medium = world();
            medium.script(move |_| harm);
            let done = medium.write_at(0, &[2; 2 * PAGE], Write::Cached);
            assert_eq!((bytes(&medium), done.is_ok()), (left, answered), "{harm:?}");
        }
    }

    #[test]
    fn a_stale_read_answers_what_was_there_before() {
        let medium = world();
        medium.write_at(0, &[2; PAGE], Write::Cached).unwrap();
        medium.script(|_| Harm::Stale);
        let mut block = vec![0; PAGE];
        medium.read_at(0, &mut block).unwrap();
        assert_eq!(block[0], 1);
        assert_eq!(bytes(&medium)[0], 2);
    }
}
