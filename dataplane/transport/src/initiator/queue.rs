//! One queue: a socket, its state machine, and the task that moves bytes between them.

use super::ConnectError;
use super::probe::Asked;
use crate::polling::Busy;
use crate::socket;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use weft_nvme::command::{AdminCommand, Cqe, Sqe};
use weft_nvme::digest::Digests;
use weft_nvme::initiator::{Connection, Payload};

/// How long a TCP connection may take.
const CONNECT: Duration = Duration::from_secs(5);

/// A completed command and the buffer it was given.
pub(super) struct Completion {
    pub cqe: Cqe,
    pub data: BytesMut,
}

/// Who waits for a command.
enum Token {
    Caller(oneshot::Sender<Completion>),
    KeepAlive,
}

/// A command that waits for a place in the queue.
struct Request {
    sqe: Sqe,
    payload: Payload,
    token: Token,
}

/// What the queues of one association share.
#[derive(Clone)]
pub(super) struct Shared {
    /// Cancelled when the association is lost or ended.
    pub closed: CancellationToken,
    /// Something came from the target since the last look.
    pub heard: Arc<AtomicBool>,
    /// Told of each command, if somebody looks whether the target answers.
    pub asked: Option<Arc<Asked>>,
}

/// The caller's end of a queue.
pub(super) struct Queue {
    core: Arc<Mutex<Core>>,
    asked: Option<Arc<Asked>>,
    pub local: SocketAddr,
}

/// How a queue is made.
pub(super) struct QueueOptions {
    pub address: SocketAddr,
    pub digests: Digests,
    pub depth: u16,
    pub in_capsule: u32,
    /// Half the Keep Alive Timeout, on the admin queue.
    pub keep_alive: Option<Duration>,
}

impl Queue {
    /// Connects the socket and starts the queue's task.
    pub async fn open(options: QueueOptions, shared: Shared) -> Result<Self, ConnectError> {
        let stream = timeout(CONNECT, TcpStream::connect(options.address))
            .await
            .map_err(|_| ConnectError::TimedOut)??;
        socket::prepare(&stream)?;
        let local = stream.local_addr()?;
        let (reader, writer) = stream.into_split();
        let core = Arc::new(Mutex::new(Core {
            nvme: Connection::new(options.digests, options.depth, options.in_capsule),
            writer: Some(writer),
            waiting: VecDeque::new(),
            task: None,
        }));
        let asked = shared.asked.clone();
        let task = Task {
            reader,
            busy: Busy::default(),
            core: core.clone(),
            shared,
            keep_alive: options.keep_alive,
            next_keep_alive: options.keep_alive.map(|every| Instant::now() + every),
            waiting_for_keep_alive: false,
        };
        tokio::spawn(task.run());
        Ok(Self { core, asked, local })
    }

    /// Sends a command and waits for its completion; `None` when the association is lost.
    pub async fn command(&self, sqe: Sqe, payload: Payload) -> Option<Completion> {
        let _asking = self.asked.as_ref().map(|asked| asked.begin());
        self.send(sqe, payload).await
    }

    /// A command without data that the target answers when it likes: no silence after it counts.
    pub async fn leave(&self, sqe: Sqe) -> Option<Completion> {
        self.send(sqe, Payload::None).await
    }

    async fn send(&self, sqe: Sqe, payload: Payload) -> Option<Completion> {
        let (sender, receiver) = oneshot::channel();
        let token = Token::Caller(sender);
        lock(&self.core).ask(Request {
            sqe,
            payload,
            token,
        });
        // The sender is dropped with the association.
        receiver.await.ok()
    }

    /// A command without data for the controller, with `length` bytes of answer.
    pub async fn ask(&self, sqe: Sqe, length: usize) -> Option<Completion> {
        let payload = if length == 0 {
            Payload::None
        } else {
            Payload::ToHost(BytesMut::zeroed(length))
        };
        self.command(sqe, payload).await
    }

    /// A command with data for the controller.
    pub async fn tell(&self, sqe: Sqe, data: Bytes) -> Option<Completion> {
        self.command(sqe, Payload::ToController(data)).await
    }
}

/// What callers and the queue's task share. A caller that finds the queue empty sends at once, by
/// itself; with more under way the task sends for all.
struct Core {
    nvme: Connection<Token>,
    /// `None` once the association is lost.
    writer: Option<OwnedWriteHalf>,
    /// In the order in which they came.
    waiting: VecDeque<Request>,
    /// Wakes the task, if it has not been told yet that there is something to do.
    task: Option<Waker>,
}

fn lock(core: &Mutex<Core>) -> MutexGuard<'_, Core> {
    // No state machine is left half changed: it does not panic.
    core.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn ask(&mut self, request: Request) {
        if self.writer.is_none() {
            return;
        }
        self.waiting.push_back(request);
        self.submit_waiting();
        // What cannot be sent now, or fails, is the task's affair.
        let alone = self.nvme.outstanding() == 1;
        let sent = alone && self.send().is_ok() && self.nvme.outbox().is_empty();
        if !sent && let Some(task) = self.task.take() {
            task.wake();
        }
    }

    fn submit_waiting(&mut self) {
        while self.nvme.is_ready() && self.nvme.has_room() {
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            self.submit(request);
        }
    }

    fn submit(&mut self, request: Request) {
        // A payload that is too large is refused by dropping its sender; callers divide before.
        let _refused = self
            .nvme
            .submit(request.sqe, request.payload, request.token);
    }

    fn send(&mut self) -> io::Result<()> {
        let writer = self.writer.as_ref().ok_or(ErrorKind::NotConnected)?;
        socket::send(writer.as_ref(), self.nvme.outbox())
    }
}

struct Task {
    reader: OwnedReadHalf,
    busy: Busy,
    core: Arc<Mutex<Core>>,
    shared: Shared,
    keep_alive: Option<Duration>,
    next_keep_alive: Option<Instant>,
    waiting_for_keep_alive: bool,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.serve().await
            && !self.shared.closed.is_cancelled()
        {
            tracing::debug!(%error, "association lost");
        }
        self.shared.closed.cancel();
        let mut core = lock(&self.core);
        core.writer = None;
        // Whoever waits sees its sender dropped: the association is lost.
        core.waiting.clear();
        drop(core.nvme.abandon());
    }

    async fn serve(&mut self) -> io::Result<()> {
        let mut closing = pin!(self.shared.closed.clone().cancelled_owned());
        loop {
            let deadline = self.next_keep_alive;
            tokio::select! {
                biased;
                () = closing.as_mut() => return Ok(()),
                moved = poll_fn(|cx| self.poll_move(cx)) => return moved,
                () = async { if let Some(deadline) = deadline { sleep_until(deadline).await } }, if deadline.is_some() => {
                    self.keep_alive()?;
                }
            }
        }
    }

    /// Moves bytes both ways as long as there are any; ready only when the association is lost.
    fn poll_move(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let core = self.core.clone();
        let mut core = lock(&core);
        loop {
            core.submit_waiting();
            core.send()?;
            let mut buffer = core.nvme.buffer();
            let (reader, busy) = (&mut self.reader, &mut self.busy);
            match socket::poll_receive(reader, OwnedReadHalf::as_ref, busy, &mut buffer, cx)? {
                Poll::Ready(0) => return Poll::Ready(Err(ErrorKind::UnexpectedEof.into())),
                Poll::Ready(count) => {
                    self.received(&mut core, count)?;
                    continue;
                }
                Poll::Pending => {}
            }
            if !core.nvme.outbox().is_empty() {
                let writer = core.writer.as_ref().ok_or(ErrorKind::NotConnected)?;
                if writer.as_ref().poll_write_ready(cx)?.is_ready() {
                    continue;
                }
            }
            if !core
                .task
                .as_ref()
                .is_some_and(|task| task.will_wake(cx.waker()))
            {
                core.task = Some(cx.waker().clone());
            }
            return Poll::Pending;
        }
    }

    fn received(&mut self, core: &mut Core, count: usize) -> io::Result<()> {
        self.busy.heard();
        core.nvme.received(count);
        self.shared.heard.store(true, Ordering::Relaxed);
        if let Some(asked) = &self.shared.asked {
            asked.hear();
        }
        loop {
            match core.nvme.next_done() {
                Ok(Some(done)) => match done.token {
                    // A caller that has gone away does not want its answer.
                    Token::Caller(caller) => drop(caller.send(Completion {
                        cqe: done.cqe,
                        data: done.data,
                    })),
                    Token::KeepAlive => self.waiting_for_keep_alive = false,
                },
                Ok(None) => return Ok(()),
                Err(fault) => {
                    tracing::warn!(%fault, "the target broke the protocol");
                    let _lost_anyway = core.send();
                    return Err(io::Error::new(ErrorKind::InvalidData, fault));
                }
            }
        }
    }

    /// Half the keep-alive time is over (Base section 3.9). One is sent whatever else is: without
    /// TBKAS other commands do not count, and beside other commands one more costs nothing. A
    /// target that was silent on all queues since the last one is lost.
    fn keep_alive(&mut self) -> io::Result<()> {
        let heard = self.shared.heard.swap(false, Ordering::Relaxed);
        if self.waiting_for_keep_alive && !heard {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut core = lock(&self.core);
        if !self.waiting_for_keep_alive && core.nvme.is_ready() && core.nvme.has_room() {
            self.waiting_for_keep_alive = true;
            core.submit(Request {
                sqe: AdminCommand::KeepAlive.to_sqe(),
                payload: Payload::None,
                token: Token::KeepAlive,
            });
        }
        self.next_keep_alive = self.keep_alive.map(|every| Instant::now() + every);
        Ok(())
    }
}
