//! A ring of the kernel's (io_uring) and the one thread that owns it.
//!
//! Whoever has a request hands it to the thread, which puts all that has come into the ring with
//! one system call and sleeps in the same call until something ends. With nothing to do it sleeps
//! there for ever: an idle medium makes no system call.

#![expect(
    unsafe_code,
    reason = "the kernel reads and writes memory through the ring after the call that says so has ended"
)]

use crate::AlignedBuf;
use bytes::{Bytes, BytesMut};
use io_uring::types::{Fd, FsyncFlags};
use io_uring::{IoUring, opcode, squeue};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, ReadWriteFlags};
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{JoinHandle, Thread};
use tokio::sync::oneshot;

/// Requests that the kernel has at a time: what one drive's queue is deep. More wait here.
const DEPTH: u32 = 128;
/// The thread touches little of it.
const STACK: usize = 128 << 10;
/// Names the wish to be woken among the requests.
const WAKE: u64 = u64::MAX;
/// What the wake-up counters of all rings are read into, to nobody's use. A ring may be closed
/// while the kernel still waits for its counter.
static WOKEN: AtomicU64 = AtomicU64::new(0);
/// What a request has while it has not ended; no system call ends with it.
const PENDING: i32 = i32::MIN;

/// Requests for one file. Dropped, it waits for those under way.
#[derive(Debug)]
pub(crate) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    intake: Mutex<Intake>,
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Intake {
    jobs: VecDeque<Job>,
    asleep: bool,
    stopping: bool,
}

/// One request, and what it has done of itself.
#[derive(Debug)]
struct Job {
    kind: Kind,
    offset: u64,
    address: *mut u8,
    length: usize,
    done: usize,
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Read,
    Write { durable: bool },
    Flush,
}

/// Who waits.
#[derive(Debug)]
enum End {
    /// A thread, whose memory this is.
    Thread(Thread, *const AtomicI32),
    /// A task. The memory is kept here, since a task may be dropped at any time.
    Task(Kept, oneshot::Sender<Ended>),
}

/// A task's memory, given back, and the outcome.
pub(crate) type Ended = (Kept, Result<(), Errno>);

/// Memory of a task's request.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Of a flush.
    Nothing,
    /// To be read into.
    Into(BytesMut),
    /// To be written from.
    From(Bytes),
    /// For either, where O_DIRECT takes it.
    Aligned(AlignedBuf),
}

// SAFETY: `address` points into the buffer that `end` keeps, or into memory of a thread that
// waits until the job has ended (see `Ring::wait`); so does the pointer in `End::Thread`. No other
// thread uses either of them meanwhile.
unsafe impl Send for Job {}

impl Ring {
    /// Makes the ring and its thread for this file. An error is that of `io_uring_setup(2)`:
    /// EPERM or ENOSYS where it is forbidden or missing.
    pub fn new(file: Arc<OwnedFd>) -> Result<Self, Errno> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC)?;
        let shared = Arc::new(Shared {
            intake: Mutex::default(),
            wake,
        });
        let (made, answer) = mpsc::channel();
        let worker = shared.clone();
        // The ring is made by the thread that uses it: the kernel may then skip its locks.
        let thread = std::thread::Builder::new()
            .name("io_uring".into())
            .stack_size(STACK)
            .spawn(move || match make() {
                Ok(ring) => {
                    // The other end waits for this answer.
                    let _ = made.send(Ok(()));
                    Worker::new(ring, file, worker).run();
                }
                Err(error) => drop(made.send(Err(error))),
            })
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
        answer.recv().unwrap_or(Err(Errno::IO))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Fills `into`.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), Errno> {
        self.wait(Kind::Read, offset, into.as_mut_ptr(), into.len())
    }

    /// Writes `data` whole.
    pub fn write(&self, offset: u64, data: &[u8], durable: bool) -> Result<(), Errno> {
        // The kernel only reads what is written from.
        let address = data.as_ptr().cast_mut();
        self.wait(Kind::Write { durable }, offset, address, data.len())
    }

    /// Makes what has ended durable.
    pub fn flush(&self) -> Result<(), Errno> {
        self.wait(Kind::Flush, 0, std::ptr::null_mut(), 0)
    }

    /// Reads into memory that is given back. Goes on to its end also if nobody waits for it.
    pub async fn read_into(&self, offset: u64, into: Kept) -> Ended {
        self.ask(Kind::Read, offset, into).await
    }

    /// Writes memory that is given back. Goes on to its end also if nobody waits for it.
    pub async fn write_from(&self, offset: u64, data: Kept, durable: bool) -> Ended {
        self.ask(Kind::Write { durable }, offset, data).await
    }

    /// Makes what has ended durable.
    pub async fn flushed(&self) -> Result<(), Errno> {
        self.ask(Kind::Flush, 0, Kept::Nothing).await.1
    }

    async fn ask(&self, kind: Kind, offset: u64, mut memory: Kept) -> Ended {
        let (sender, receiver) = oneshot::channel();
        // What holds the memory moves below; the memory itself stays where it is.
        let (address, length) = memory.span();
        self.start(kind, offset, address, length, End::Task(memory, sender));
        // The thread outlives `self` and answers everything.
        receiver.await.unwrap_or((Kept::Nothing, Err(Errno::IO)))
    }

    /// Blocks until the request has ended. Does not unwind before: the memory is the kernel's.
    fn wait(&self, kind: Kind, offset: u64, address: *mut u8, length: usize) -> Result<(), Errno> {
        let result = AtomicI32::new(PENDING);
        let end = End::Thread(std::thread::current(), &raw const result);
        self.start(kind, offset, address, length, end);
        loop {
            match result.load(Ordering::Acquire) {
                PENDING => std::thread::park(),
                0 => return Ok(()),
                errno => return Err(Errno::from_raw_os_error(errno)),
            }
        }
    }

    fn start(&self, kind: Kind, offset: u64, address: *mut u8, length: usize, end: End) {
        let job = Job {
            kind,
            offset,
            address,
            length,
            done: 0,
            end,
        };
        self.shared.tell(|intake| intake.jobs.push_back(job));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.shared.tell(|intake| intake.stopping = true);
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, nothing would be left to be ended.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is taken in, and wakes the thread if it sleeps.
    fn tell(&self, change: impl FnOnce(&mut Intake)) {
        let mut intake = self.intake();
        change(&mut intake);
        let asleep = std::mem::take(&mut intake.asleep);
        drop(intake);
        if asleep {
            // Eight bytes are always taken: the counter does not overflow by ones.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl Kept {
    fn span(&mut self) -> (*mut u8, usize) {
        match self {
            Self::Nothing => (std::ptr::null_mut(), 0),
            Self::Into(buffer) => (buffer.as_mut_ptr(), buffer.len()),
            // The kernel only reads what is written from.
            Self::From(bytes) => (bytes.as_ptr().cast_mut(), bytes.len()),
            Self::Aligned(buffer) => (buffer.as_mut_ptr(), buffer.len()),
        }
    }
}

impl End {
    fn tell(self, result: Result<(), Errno>) {
        // A task that was dropped wants no answer.
        match self {
            Self::Thread(thread, slot) => {
                let code = result.map_or_else(Errno::raw_os_error, |()| 0);
                // SAFETY: the thread that waits in `Ring::wait` owns it, and goes on only after
                // this store. `thread` is a handle of ours, not of its stack.
                unsafe { (*slot).store(code, Ordering::Release) };
                thread.unpark();
            }
            Self::Task(memory, sender) => drop(sender.send((memory, result))),
        }
    }
}

/// The best ring that this kernel makes.
fn make() -> Result<IoUring, Errno> {
    // Linux 6.1: completions are run when the thread asks for them, not by interrupting it.
    let best = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(DEPTH + 1);
    let made = match best {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            IoUring::new(DEPTH + 1)
        }
        made => made,
    };
    made.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// The thread.
struct Worker {
    ring: IoUring,
    file: Arc<OwnedFd>,
    shared: Arc<Shared>,
    /// Taken in, not in the ring.
    waiting: VecDeque<Job>,
    /// In the ring, by the number that its entry carries.
    running: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Numbers and results of what has just ended; kept for its memory.
    ended: Vec<(u64, i32)>,
}

impl Worker {
    fn new(ring: IoUring, file: Arc<OwnedFd>, shared: Arc<Shared>) -> Self {
        Self {
            ring,
            file,
            shared,
            waiting: VecDeque::new(),
            running: std::iter::repeat_with(|| None)
                .take(DEPTH as usize)
                .collect(),
            free: (0..DEPTH).rev().collect(),
            ended: Vec::with_capacity(2 * DEPTH as usize),
        }
    }

    fn run(mut self) {
        self.await_wake();
        while self.take_in() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => {
                    // Memory of others is in the kernel's hands and cannot be asked back.
                    tracing::error!(%error, "the ring of the medium is lost");
                    std::process::abort();
                }
            }
            self.reap();
        }
    }

    /// Takes what has come; false once nothing will come and nothing is under way.
    fn take_in(&mut self) -> bool {
        let mut intake = self.shared.intake();
        self.waiting.append(&mut intake.jobs);
        let idle = self.waiting.is_empty() && self.free.len() == self.running.len();
        if idle && intake.stopping {
            return false;
        }
        intake.asleep = true;
        drop(intake);
        while let Some(number) = self.free.pop() {
            let Some(job) = self.waiting.pop_front() else {
                self.free.push(number);
                break;
            };
            self.put(number, job);
        }
        true
    }

    fn put(&mut self, number: u32, job: Job) {
        let entry = self.entry(&job).user_data(number.into());
        if let Some(place) = self.running.get_mut(number as usize) {
            *place = Some(job);
        }
        self.push(&entry);
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: the descriptors live as long as this worker. The memory of a job lives until
        // the job's end is told, which `reap` does only after its completion; `WOKEN` lives for ever.
        let pushed = unsafe { self.ring.submission().push(entry) };
        // The ring has an entry for each number and one for the wake-up, and gives all that is in
        // it to the kernel at each `submit_and_wait`.
        debug_assert!(pushed.is_ok());
    }

    fn entry(&self, job: &Job) -> squeue::Entry {
        let fd = Fd(self.file.as_raw_fd());
        let offset = job.offset + job.done as u64;
        let address = job.address.wrapping_add(job.done);
        // What is longer than the kernel takes at once is cut by it, and goes on with the rest.
        let length = u32::try_from(job.length - job.done).unwrap_or(1 << 30);
        match job.kind {
            Kind::Read => opcode::Read::new(fd, address, length)
                .offset(offset)
                .build(),
            Kind::Write { durable } => {
                let flags = if durable {
                    ReadWriteFlags::DSYNC
                } else {
                    ReadWriteFlags::empty()
                };
                let write = opcode::Write::new(fd, address, length).offset(offset);
                write.rw_flags(flags.bits().cast_signed()).build()
            }
            Kind::Flush => opcode::Fsync::new(fd).flags(FsyncFlags::DATASYNC).build(),
        }
    }

    /// Asks to be woken when something was handed in.
    fn await_wake(&mut self) {
        let fd = Fd(self.shared.wake.as_raw_fd());
        let entry = opcode::Read::new(fd, WOKEN.as_ptr().cast(), 8).build();
        self.push(&entry.user_data(WAKE));
    }

    fn reap(&mut self) {
        let mut all = std::mem::take(&mut self.ended);
        let completions = self.ring.completion();
        all.extend(completions.map(|entry| (entry.user_data(), entry.result())));
        for (number, result) in all.drain(..) {
            if number == WAKE {
                self.await_wake();
                continue;
            }
            let number = number as u32;
            let place = self.running.get_mut(number as usize);
            let Some(job) = place.and_then(Option::take) else {
                continue;
            };
            self.ended(number, job, result);
        }
        self.ended = all;
    }

    fn ended(&mut self, number: u32, mut job: Job, result: i32) {
        let again = [Errno::INTR, Errno::AGAIN].map(|errno| -errno.raw_os_error());
        if again.contains(&result) {
            return self.put(number, job);
        }
        let moves = !matches!(job.kind, Kind::Flush);
        let outcome = match usize::try_from(result) {
            Err(_) => Err(Errno::from_raw_os_error(result.saturating_neg())),
            // The end of the file, inside of what the medium was said to have.
            Ok(0) if moves => Err(Errno::IO),
            Ok(count) => {
                job.done += count;
                if moves && job.done < job.length {
                    return self.put(number, job);
                }
                Ok(())
            }
        };
        self.free.push(number);
        job.end.tell(outcome);
    }
}

/// Nothing was lost: a signal came, or the kernel has too much to report first.
fn is_passing(error: &std::io::Error) -> bool {
    let passing = [Errno::INTR, Errno::BUSY, Errno::AGAIN];
    Errno::from_io_error(error).is_some_and(|errno| passing.contains(&errno))
}
