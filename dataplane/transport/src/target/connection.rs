//! One connection: bytes from the socket become commands, answers become bytes, and the first
//! command says which association it belongs to.

use super::association::{Association, Associations};
use super::execute::{self, Answer};
use super::halfopen::Place;
use super::news::{self, News};
use super::{Gate, Limits};
use crate::polling::Busy;
use crate::socket::{self, Moved};
use bytes::BytesMut;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::future::pending;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep_until, timeout_at};
use tokio_util::sync::{ReusableBoxFuture, WaitForCancellationFutureOwned};
use weft_nvme::status::Status;
use weft_nvme::target::{self as nvme, Budget, Command, Tag};

/// How long answers and a termination request may take to leave when a connection ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Silence beyond the Keep Alive Timeout that is forgiven: a lost segment and its repetitions.
const GRACE: Duration = Duration::from_secs(2);

/// Answers that wait are sent when there are so many bytes of them, also while more commands are
/// at hand: the host has something to do then, and their memory is used again while it is warm.
const BATCH: usize = 64 << 10;

/// What all connections of a listener share.
pub(super) struct Server {
    pub gate: Arc<dyn Gate>,
    pub limits: Limits,
    pub associations: Associations,
    pub budget: Budget,
    /// Of memory that connections keep between commands.
    pub spare: Budget,
    /// Places of admitted connections.
    pub room: Arc<Semaphore>,
}

/// The queue that a connection has become.
pub(super) struct Queue {
    association: Arc<Association>,
    /// Made once: whoever waits anew for each command takes locks for each.
    ending: Pin<Box<WaitForCancellationFutureOwned>>,
    _room: OwnedSemaphorePermit,
    /// 0 is the admin queue.
    number: u16,
    settled: bool,
}

impl Queue {
    pub(super) fn new(
        association: Arc<Association>,
        number: u16,
        room: OwnedSemaphorePermit,
    ) -> Self {
        association.begin();
        Self {
            ending: Box::pin(association.ending.clone().cancelled_owned()),
            association,
            _room: room,
            number,
            settled: false,
        }
    }

    fn settle(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.association.settle();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.settle();
        if self.number == 0 {
            // The I/O queues go with the admin queue (Fabrics section 2.2).
            self.association.ending.cancel();
        } else {
            self.association.free_queue(self.number);
        }
    }
}

/// What a connection waits for.
enum Event {
    Moved(Moved),
    Answer(Answer),
    Ending,
    /// Something may have to be told.
    News,
    Late,
}

pub(super) struct Connection {
    pub(super) server: Arc<Server>,
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    nvme: nvme::Connection,
    queue: Option<Queue>,
    running: FuturesUnordered<ReusableBoxFuture<'static, Answer>>,
    /// Memory of a command that ended at once, for the next one.
    idle: Option<ReusableBoxFuture<'static, Answer>>,
    busy: Busy,
    /// Asynchronous Event Requests that wait for something to tell.
    held: Vec<Tag>,
    /// Wakes the admin queue when there may be news.
    news: Option<News>,
    /// Held until it is known who this is.
    place: Option<Place>,
    /// Until when the handshake must be over, or the host be heard of again.
    deadline: Option<Instant>,
    /// ICReq has come.
    greeted: bool,
    /// Nothing more is read.
    closing: bool,
    /// The host is told why it is left, so it must come to read that.
    explaining: bool,
}

impl Connection {
    pub fn new(server: Arc<Server>, stream: TcpStream, peer: SocketAddr, place: Place) -> Self {
        let deadline = Some(Instant::now() + server.limits.handshake);
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        Self {
            server,
            stream,
            peer,
            nvme: nvme::Connection::new(),
            queue: None,
            running: FuturesUnordered::new(),
            idle: None,
            busy: Busy::default(),
            held: Vec::new(),
            news: None,
            place: Some(place),
            deadline,
            greeted: false,
            closing: false,
            explaining: false,
        }
    }

    /// Runs until the host or the gate ends it. Commands that run are waited for: only then is the
    /// association let go of.
    pub async fn run(mut self) {
        if let Err(error) = self.serve().await {
            tracing::debug!(peer = %self.peer, %error, "connection ended");
        }
        // The I/O queues need not wait for what still runs here.
        if let Some(queue) = self.queue.as_ref().filter(|queue| queue.number == 0) {
            queue.association.ending.cancel();
        }
        while self.running.next().await.is_some() {}
    }

    async fn serve(&mut self) -> io::Result<()> {
        socket::prepare(&self.stream)?;
        loop {
            // First of all, so that no host can put its own end off by being busy.
            let queue = self.queue.as_ref();
            self.closing |= queue.is_some_and(|queue| queue.association.ending.is_cancelled());
            self.execute().await?;
            self.tell();
            self.send()?;
            if self.closing && self.running.is_empty() {
                return self.farewell().await;
            }
            match self.wait().await? {
                Event::Moved(Moved::Received(0)) => return Err(ErrorKind::UnexpectedEof.into()),
                Event::Moved(Moved::Received(count)) => self.received(count),
                Event::Moved(Moved::Sendable) => {}
                Event::Answer(answer) => self.answer_all(answer),
                Event::Ending => self.closing = true,
                Event::News => self.tell(),
                Event::Late => self.late()?,
            }
        }
    }

    async fn wait(&mut self) -> io::Result<Event> {
        let reads = !self.closing && self.has_room();
        let sends = !self.nvme.outbox().is_empty();
        let listening = !self.held.is_empty();
        let ending = self.queue.as_mut().filter(|_| !self.closing);
        let (deadline, place) = (self.deadline, &self.place);
        tokio::select! {
            biased;
            Some(answer) = self.running.next() => Ok(Event::Answer(answer)),
            moved = socket::moved(&mut self.stream, &mut self.busy, reads.then(|| self.nvme.buffer()), sends), if reads || sends => {
                moved.map(Event::Moved)
            }
            () = async { if let Some(queue) = ending { queue.ending.as_mut().await } else { pending().await } } => {
                Ok(Event::Ending)
            }
            () = async { if let Some(place) = place { place.give_way.cancelled().await } }, if place.is_some() => {
                Err(io::Error::new(ErrorKind::ConnectionAborted, "gave way to a newer connection"))
            }
            () = news::changed(&mut self.news), if listening => Ok(Event::News),
            () = async { if let Some(deadline) = deadline { sleep_until(deadline).await } }, if deadline.is_some() => Ok(Event::Late),
        }
    }

    /// A host that does not take its answers is not read from.
    fn has_room(&mut self) -> bool {
        self.nvme.outbox().len() <= self.server.limits.queue_memory
    }

    fn received(&mut self, count: usize) {
        self.busy.heard();
        self.nvme.received(count);
        if let Some(queue) = &self.queue {
            queue.association.hear(Instant::now());
        }
    }

    /// Starts every command that has come whole.
    async fn execute(&mut self) -> io::Result<()> {
        while !self.closing {
            match self.nvme.next_command() {
                Ok(Some(command)) => self.start(command).await,
                Ok(None) => {
                    self.greet();
                    break;
                }
                Err(fault) => {
                    tracing::warn!(peer = %self.peer, %fault, "connection terminated");
                    self.closing = true;
                    self.explaining = true;
                }
            }
            if self.nvme.outbox().len() >= BATCH {
                self.send()?;
            }
        }
        Ok(())
    }

    /// After ICReq the host has as long again until Connect (`security.md` section 5.4).
    fn greet(&mut self) {
        if self.queue.is_none() && !self.greeted && self.nvme.is_ready() {
            self.greeted = true;
            self.deadline = Some(Instant::now() + self.server.limits.handshake);
        }
    }

    async fn start(&mut self, command: Command) {
        let Some(queue) = &self.queue else {
            return self.connect(command).await;
        };
        let association = queue.association.clone();
        if queue.number != 0 && execute::is_disconnect(&command) {
            self.nvme.complete(command.tag, Status::SUCCESS, 0);
            self.closing = true;
            return;
        }
        let idle = self.idle.take();
        let mut running = if queue.number == 0 {
            placed(idle, execute::admin(association, command))
        } else {
            let room = if execute::reads(&command) {
                self.nvme.room(&command)
            } else {
                BytesMut::new()
            };
            placed(idle, execute::io(association, command, room))
        };
        // Most admin commands, and I/O on memory, need not wait.
        match running.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(answer) => {
                self.idle = Some(running);
                self.answer(answer);
            }
            Poll::Pending => self.running.push(running),
        }
        self.keep_time();
    }

    /// The admin queue's connection keeps the time for the whole association.
    fn keep_time(&mut self) {
        if let Some(queue) = &self.queue
            && queue.number == 0
        {
            self.deadline = keep_alive(&queue.association);
        }
    }

    fn answer_all(&mut self, first: Answer) {
        self.answer(first);
        while let Some(Some(answer)) = self.running.next().now_or_never() {
            self.answer(answer);
        }
    }

    fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Plain(tag, status, result) => self.nvme.complete(tag, status, result),
            Answer::Written(tag, data) => {
                self.nvme.complete(tag, Status::SUCCESS, 0);
                self.nvme.recycle(data);
            }
            Answer::Data(tag, data) => self.nvme.complete_with(tag, data, 0),
            Answer::Held(tag) => self.held.push(tag),
        }
    }

    /// Answers held requests with what has happened.
    fn tell(&mut self) {
        let Some(queue) = self.queue.as_ref().filter(|_| !self.held.is_empty()) else {
            return;
        };
        for notice in queue.association.notices() {
            // The controller counts what is held, so there is a tag for each.
            if let Some(tag) = self.held.pop() {
                self.nvme.complete(tag, Status::SUCCESS, notice.result());
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        socket::send(&self.stream, self.nvme.outbox())
    }

    /// Lets the last bytes leave. Closing a socket with unread bytes resets the connection, and a
    /// reset may overtake what was sent last: whoever is told why is read from until it has gone.
    async fn farewell(&mut self) -> io::Result<()> {
        let until = Instant::now() + FAREWELL;
        while !self.nvme.outbox().is_empty() {
            timeout_at(until, self.stream.writable()).await??;
            self.send()?;
        }
        if let Some(queue) = &mut self.queue
            && queue.association.ending.is_cancelled()
        {
            queue.settle();
            queue.association.settled().await;
        }
        if self.explaining {
            self.stream.shutdown().await?;
            let mut ignored = [0; 512];
            while timeout_at(until, self.stream.read(&mut ignored)).await?? > 0 {}
        }
        Ok(())
    }

    /// The handshake took too long, or the host was not heard of for its keep-alive time
    /// (Base section 3.9).
    fn late(&mut self) -> io::Result<()> {
        self.keep_time();
        match self.deadline {
            Some(deadline) if deadline <= Instant::now() => Err(ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    async fn connect(&mut self, command: Command) {
        let tag = command.tag;
        match self.admit(&command).await {
            Ok((queue, connect)) => {
                self.place = None;
                let (budget, spare) = (&self.server.budget, &self.server.spare);
                self.nvme.share(budget.clone(), spare.clone());
                self.nvme.admit(nvme::Limits {
                    depth: connect.sqsize.saturating_add(1),
                    memory: self.server.limits.queue_memory,
                    flow_control: !connect.no_flow_control,
                });
                self.nvme.complete_connect(tag, queue.association.id);
                self.deadline = None;
                self.news = (queue.number == 0).then(|| News::of(&queue.association));
                self.queue = Some(queue);
                self.keep_time();
            }
            Err((status, result)) => self.refuse(tag, status, result),
        }
    }

    fn refuse(&mut self, tag: Tag, status: Status, result: u64) {
        self.nvme.complete(tag, status, result);
        self.closing = true;
        self.explaining = true;
    }
}

/// The future in the memory of an earlier one of its kind.
fn placed(
    idle: Option<ReusableBoxFuture<'static, Answer>>,
    command: impl Future<Output = Answer> + Send + 'static,
) -> ReusableBoxFuture<'static, Answer> {
    match idle {
        Some(mut memory) => {
            memory.set(command);
            memory
        }
        None => ReusableBoxFuture::new(command),
    }
}

/// When the host must have been heard of again; `None` if it asked for no keep-alive.
fn keep_alive(association: &Association) -> Option<Instant> {
    let kato = association.controller().kato_ms();
    (kato > 0).then(|| association.heard() + Duration::from_millis(kato.into()) + GRACE)
}
