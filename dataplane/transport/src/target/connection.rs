//! One connection: bytes from the socket become commands, answers become bytes, and the first
//! command says which association it belongs to.

use super::association::{Association, Associations};
use super::execute::{self, Answer};
use super::halfopen::Place;
use super::news::{self, News};
use super::{ConnectRequest, DISCOVERY_SUBSYSTEM, Gate, Limits, Refusal};
use crate::{polling, socket};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Duration, Instant, sleep_until, timeout_at};
use weft_nvme::command::fabrics;
use weft_nvme::command::fabrics::{
    BadParameter, Connect, ConnectData, DYNAMIC_CONTROLLER, FabricsCommand,
};
use weft_nvme::status::Status;
use weft_nvme::target::{self as nvme, Budget, Command, Tag};

/// How long answers and a termination request may take to leave when a connection ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// Silence beyond the Keep Alive Timeout that is forgiven: a lost segment and its repetitions.
const GRACE: Duration = Duration::from_secs(2);

/// What all connections of a listener share.
pub(super) struct Server {
    pub gate: Arc<dyn Gate>,
    pub limits: Limits,
    pub associations: Associations,
    pub budget: Budget,
    /// Places of admitted connections.
    pub room: Arc<Semaphore>,
}

/// The queue that a connection has become.
struct Queue {
    association: Arc<Association>,
    _room: OwnedSemaphorePermit,
    /// 0 is the admin queue.
    number: u16,
    settled: bool,
}

impl Queue {
    fn new(association: Arc<Association>, number: u16, room: OwnedSemaphorePermit) -> Self {
        association.begin();
        Self {
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
    Socket,
    Answer(Answer),
    Ending,
    /// Something may have to be told.
    News,
    Late,
}

pub(super) struct Connection {
    server: Arc<Server>,
    stream: TcpStream,
    peer: SocketAddr,
    nvme: nvme::Connection,
    queue: Option<Queue>,
    running: FuturesUnordered<BoxFuture<'static, Answer>>,
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
            let at_end = !self.closing && self.has_room() && self.receive()?;
            self.execute().await;
            self.tell();
            self.send()?;
            if at_end {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if self.closing && self.running.is_empty() {
                return self.farewell().await;
            }
            match self.wait().await? {
                Event::Socket => {}
                Event::Answer(answer) => self.answer_all(answer),
                Event::Ending => self.closing = true,
                Event::News => self.tell(),
                Event::Late => self.late()?,
            }
        }
    }

    async fn wait(&mut self) -> io::Result<Event> {
        let reads = !self.closing && self.has_room();
        let interest = match (reads, !self.nvme.outbox().is_empty()) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let ending = self
            .queue
            .as_ref()
            .filter(|_| !self.closing)
            .map(|q| q.association.ending.clone());
        let deadline = self.deadline;
        let give_way = self.place.as_ref().map(|place| place.give_way.clone());
        let listening = !self.held.is_empty();
        tokio::select! {
            biased;
            Some(answer) = self.running.next() => Ok(Event::Answer(answer)),
            ready = async { self.stream.ready(interest.unwrap_or(Interest::READABLE)).await }, if interest.is_some() => {
                ready.map(|_| Event::Socket)
            }
            () = async { if let Some(ending) = &ending { ending.cancelled().await } }, if ending.is_some() => Ok(Event::Ending),
            () = async { if let Some(place) = &give_way { place.cancelled().await } }, if give_way.is_some() => {
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

    /// Takes what the socket has; true at its end.
    fn receive(&mut self) -> io::Result<bool> {
        match self.stream.try_read_buf(&mut self.nvme.buffer()) {
            Ok(0) => Ok(true),
            Ok(count) => {
                polling::busy();
                self.nvme.received(count);
                if let Some(queue) = &self.queue {
                    queue.association.hear(Instant::now());
                }
                Ok(false)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Starts every command that has come whole.
    async fn execute(&mut self) {
        while !self.closing {
            match self.nvme.next_command() {
                Ok(Some(command)) => self.start(command).await,
                Ok(None) => return self.greet(),
                Err(fault) => {
                    tracing::warn!(peer = %self.peer, %fault, "connection terminated");
                    self.closing = true;
                    self.explaining = true;
                }
            }
        }
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
        let mut running = if queue.number == 0 {
            execute::admin(association, command).boxed()
        } else {
            execute::io(association, command).boxed()
        };
        // Most admin commands, and I/O on memory, need not wait.
        match (&mut running).now_or_never() {
            Some(answer) => self.answer(answer),
            None => self.running.push(running),
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
                self.nvme.share(self.server.budget.clone());
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

    async fn admit(&mut self, command: &Command) -> Result<(Queue, Connect), (Status, u64)> {
        if command.sqe.opcode != fabrics::OPCODE {
            return Err((Status::COMMAND_SEQUENCE, 0));
        }
        let connect = match FabricsCommand::parse(&command.sqe).map_err(|status| (status, 0))? {
            FabricsCommand::Connect(connect) => connect,
            _ => return Err((Status::COMMAND_SEQUENCE, 0)),
        };
        let data = ConnectData::parse(&command.data).map_err(bad)?;
        if connect.sqsize == 0 || connect.sqsize >= self.server.limits.queue_size {
            return Err(bad(BadParameter::SqSize));
        }
        let room = self.server.room.clone().try_acquire_owned();
        let room = room.map_err(|_| (Status::CONNECT_BUSY, 0))?;
        let association = match connect.queue {
            0 => self.admit_host(&connect, data).await?,
            queue => self.admit_queue(queue, &data)?,
        };
        Ok((Queue::new(association, connect.queue, room), connect))
    }

    async fn admit_host(
        &mut self,
        connect: &Connect,
        data: ConnectData,
    ) -> Result<Arc<Association>, (Status, u64)> {
        if data.controller != DYNAMIC_CONTROLLER {
            return Err(bad(BadParameter::Controller));
        }
        let request = ConnectRequest {
            subsystem: data.subsystem,
            host: data.host,
            host_id: data.host_id,
            peer: self.peer,
        };
        let limits = &self.server.limits;
        if request.subsystem == DISCOVERY_SUBSYSTEM {
            let discovery = self.server.gate.discovery();
            let discovery = discovery.ok_or_else(|| bad(BadParameter::Subsystem))?;
            let local = self
                .stream
                .local_addr()
                .map_err(|_| (Status::INTERNAL, 0))?;
            let local = SocketAddr::new(local.ip().to_canonical(), local.port());
            return self
                .server
                .associations
                .admit_discovery(request, discovery, local, limits.queue_size, connect.kato)
                .ok_or((Status::CONNECT_BUSY, 0));
        }
        let admission = self
            .server
            .gate
            .connect(request.clone())
            .await
            .map_err(refused)?;
        self.server
            .associations
            .admit(
                request,
                admission,
                limits.queue_size,
                limits.io_queues,
                connect.kato,
            )
            .ok_or((Status::CONNECT_BUSY, 0))
    }

    fn admit_queue(
        &self,
        queue: u16,
        data: &ConnectData,
    ) -> Result<Arc<Association>, (Status, u64)> {
        let association = self
            .server
            .associations
            .find(&data.subsystem, data.controller)
            .filter(|association| !association.ending.is_cancelled())
            .ok_or_else(|| bad(BadParameter::Controller))?;
        if !association.is_host(data) {
            return Err(bad(BadParameter::Host));
        }
        let controller = association.controller();
        if !controller.is_ready() {
            return Err((Status::COMMAND_SEQUENCE, 0));
        }
        let allowed = controller.allows_queue(queue);
        drop(controller);
        if !allowed || !association.take_queue(queue) {
            return Err(bad(BadParameter::Queue));
        }
        Ok(association)
    }
}

fn bad(parameter: BadParameter) -> (Status, u64) {
    (Status::CONNECT_INVALID_PARAMETERS, parameter.result())
}

fn refused(refusal: Refusal) -> (Status, u64) {
    match refusal {
        Refusal::InvalidHost => (Status::CONNECT_INVALID_HOST, 0),
        Refusal::UnknownSubsystem => bad(BadParameter::Subsystem),
        Refusal::Busy => (Status::CONNECT_BUSY, 0),
    }
}

/// When the host must have been heard of again; `None` if it asked for no keep-alive.
fn keep_alive(association: &Association) -> Option<Instant> {
    let kato = association.controller().kato_ms();
    (kato > 0).then(|| association.heard() + Duration::from_millis(kato.into()) + GRACE)
}
