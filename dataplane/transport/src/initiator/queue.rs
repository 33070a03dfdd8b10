//! One queue: a socket, its state machine, and the task that moves bytes between them.

use super::ConnectError;
use crate::polling::Busy;
use crate::socket::{self, Moved};
use bytes::{Bytes, BytesMut};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant, sleep_until, timeout};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
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
}

/// The caller's end of a queue.
pub(super) struct Queue {
    requests: mpsc::UnboundedSender<Request>,
    closed: CancellationToken,
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
        let (requests, receiver) = mpsc::unbounded_channel();
        let closed = shared.closed.clone();
        let task = Task {
            stream,
            busy: Busy::default(),
            nvme: Connection::new(options.digests, options.depth, options.in_capsule),
            requests: receiver,
            closing: Box::pin(shared.closed.clone().cancelled_owned()),
            shared,
            keep_alive: options.keep_alive,
            next_keep_alive: options.keep_alive.map(|every| Instant::now() + every),
            waiting_for_keep_alive: false,
        };
        tokio::spawn(task.run());
        Ok(Self {
            requests,
            closed,
            local,
        })
    }

    /// Sends a command and waits for its completion; `None` when the association is lost.
    pub async fn command(&self, sqe: Sqe, payload: Payload) -> Option<Completion> {
        let (sender, receiver) = oneshot::channel();
        if self.closed.is_cancelled() {
            return None;
        }
        self.requests
            .send(Request {
                sqe,
                payload,
                token: Token::Caller(sender),
            })
            .ok()?;
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

struct Task {
    stream: TcpStream,
    busy: Busy,
    nvme: Connection<Token>,
    requests: mpsc::UnboundedReceiver<Request>,
    shared: Shared,
    /// Made once: whoever waits anew for each answer takes locks for each.
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    keep_alive: Option<Duration>,
    next_keep_alive: Option<Instant>,
    waiting_for_keep_alive: bool,
}

/// What a queue waits for.
enum Event {
    Moved(Moved),
    Request(Request),
    Closed,
    KeepAlive,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.serve().await
            && !self.shared.closed.is_cancelled()
        {
            tracing::debug!(%error, "association lost");
        }
        self.shared.closed.cancel();
        // Whoever waits sees its sender dropped: the association is lost.
        drop(self.nvme.abandon());
    }

    async fn serve(&mut self) -> io::Result<()> {
        loop {
            self.send()?;
            match self.wait().await? {
                Event::Moved(Moved::Received(0)) => return Err(ErrorKind::UnexpectedEof.into()),
                Event::Moved(Moved::Received(count)) => self.received(count)?,
                Event::Moved(Moved::Sendable) => {}
                Event::Request(request) => self.submit_all(request),
                Event::Closed => return Ok(()),
                Event::KeepAlive => self.keep_alive()?,
            }
        }
    }

    async fn wait(&mut self) -> io::Result<Event> {
        let sends = !self.nvme.outbox().is_empty();
        let room = self.nvme.is_ready() && self.nvme.has_room();
        let deadline = self.next_keep_alive;
        tokio::select! {
            biased;
            () = self.closing.as_mut() => Ok(Event::Closed),
            moved = socket::moved(&mut self.stream, &mut self.busy, Some(self.nvme.buffer()), sends) => {
                moved.map(Event::Moved)
            }
            request = self.requests.recv(), if room => {
                Ok(request.map_or(Event::Closed, Event::Request))
            }
            () = async { if let Some(deadline) = deadline { sleep_until(deadline).await } }, if deadline.is_some() => Ok(Event::KeepAlive),
        }
    }

    /// Takes everything that has been asked for in the meantime: one system call sends it all.
    fn submit_all(&mut self, first: Request) {
        self.submit(first);
        while self.nvme.has_room() {
            let Ok(request) = self.requests.try_recv() else {
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

    fn received(&mut self, count: usize) -> io::Result<()> {
        self.busy.heard();
        self.nvme.received(count);
        self.shared.heard.store(true, Ordering::Relaxed);
        self.complete()
    }

    fn complete(&mut self) -> io::Result<()> {
        loop {
            match self.nvme.next_done() {
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
                    let _lost_anyway = self.send();
                    return Err(io::Error::new(ErrorKind::InvalidData, fault));
                }
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        socket::send(&self.stream, self.nvme.outbox())
    }

    /// Half the keep-alive time is over (Base section 3.9). One is sent whatever else is: without
    /// TBKAS other commands do not count, and beside other commands one more costs nothing. A
    /// target that was silent on all queues since the last one is lost.
    fn keep_alive(&mut self) -> io::Result<()> {
        let heard = self.shared.heard.swap(false, Ordering::Relaxed);
        if self.waiting_for_keep_alive && !heard {
            return Err(ErrorKind::TimedOut.into());
        }
        if !self.waiting_for_keep_alive && self.nvme.is_ready() && self.nvme.has_room() {
            self.waiting_for_keep_alive = true;
            self.submit(Request {
                sqe: AdminCommand::KeepAlive.to_sqe(),
                payload: Payload::None,
                token: Token::KeepAlive,
            });
        }
        self.next_keep_alive = self.keep_alive.map(|every| Instant::now() + every);
        Ok(())
    }
}
