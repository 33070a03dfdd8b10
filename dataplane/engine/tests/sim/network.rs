//! The network: who listens where, what is blocked, and associations over it.
//!
//! An association is an ordered stream both ways, as TCP makes it: what is blocked comes later, or the
//! association ends. Its far end is in `target.rs`.

use crate::target::{self, Command, Message, Refused, Reply};
use crate::world::{Place, World, say};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_block::{Disk, DiskError, ErrorKind, Stamp, Write};
use weft_engine::network::{self as product, Association};
use weft_transport::{ConnectError, ConnectOptions, Gate, Refusal};

/// How long the initiator waits for a connection or an answer of the handshake.
const STEP: Duration = Duration::from_secs(5);

pub fn address(place: Place) -> SocketAddr {
    let [high, low] = place.0.to_be_bytes();
    SocketAddr::from(([10, 0, high, low], 4420))
}

/// A process that listens.
#[derive(Clone)]
pub struct Listener {
    pub gate: Arc<dyn Gate>,
    pub place: Place,
    /// Cancelled when the process dies.
    pub death: CancellationToken,
    /// The machine has died with it: nobody says that its connections have ended.
    pub is_silent: Arc<AtomicBool>,
    pub watch: Arc<target::Watch>,
}

/// See the module.
pub struct Network {
    pub world: Arc<World>,
    listeners: Mutex<BTreeMap<SocketAddr, Listener>>,
    /// How often each way is blocked.
    blocked: Mutex<BTreeMap<(Place, Place), u32>>,
    opened: Notify,
    links: Mutex<Vec<Weak<Link>>>,
    serial: AtomicU64,
}

impl Network {
    pub fn new(world: Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world,
            listeners: Mutex::default(),
            blocked: Mutex::default(),
            opened: Notify::new(),
            links: Mutex::default(),
            serial: AtomicU64::new(0),
        })
    }

    pub fn listen(&self, listener: Listener) {
        let at = address(listener.place);
        self.listeners.lock().unwrap().insert(at, listener);
    }

    fn listener(&self, at: SocketAddr) -> Option<Listener> {
        let found = self.listeners.lock().unwrap().get(&at).cloned();
        found.filter(|listener| !listener.death.is_cancelled())
    }

    /// Nothing goes these ways for so long.
    pub fn block(self: &Arc<Self>, ways: &[(Place, Place)], time: Duration) {
        say!(self.world, "blocked for {time:?}: {ways:?}");
        let ways: BTreeSet<_> = ways.iter().copied().collect();
        for way in &ways {
            *self.blocked.lock().unwrap().entry(*way).or_default() += 1;
        }
        let network = self.clone();
        tokio::spawn(async move {
            sleep(time).await;
            for way in &ways {
                let mut blocked = network.blocked.lock().unwrap();
                let times = blocked.get_mut(way);
                times
                    .into_iter()
                    .for_each(|times| *times = times.saturating_sub(1));
            }
            network.opened.notify_waiters();
        });
    }

    /// Everything goes every way.
    pub fn heal(&self) {
        self.blocked.lock().unwrap().clear();
        self.opened.notify_waiters();
    }

    pub fn is_blocked(&self, from: Place, to: Place) -> bool {
        let blocked = self.blocked.lock().unwrap();
        blocked.get(&(from, to)).is_some_and(|times| *times > 0)
    }

    /// Until a message may go this way.
    pub async fn passes(&self, from: Place, to: Place) {
        loop {
            let opened = self.opened.notified();
            if !self.is_blocked(from, to) {
                return;
            }
            opened.await;
        }
    }

    /// What a message takes.
    pub fn delay(&self) -> Duration {
        let most = self.world.faults().delay.as_millis() as u64;
        Duration::from_millis(self.world.below(most + 1))
    }

    /// One association ends, wherever its messages are.
    pub fn cut_one(&self) {
        let mut links = self.links.lock().unwrap();
        links.retain(|link| {
            link.upgrade()
                .is_some_and(|link| !link.closed.is_cancelled())
        });
        let at = self.world.below(links.len() as u64) as usize;
        if let Some(link) = links.get(at).and_then(Weak::upgrade) {
            say!(self.world, "association {} is cut", link.serial);
            link.closed.cancel();
        }
    }

    /// How this process reaches others.
    pub fn of(self: &Arc<Self>, place: Place, death: CancellationToken) -> Arc<Process> {
        Arc::new(Process {
            network: self.clone(),
            place,
            death,
        })
    }
}

/// What both ends of an association share.
pub struct Link {
    pub serial: u64,
    pub from: Place,
    pub to: Place,
    /// The initiator's end is gone.
    pub closed: CancellationToken,
}

/// The network as one process has it.
pub struct Process {
    network: Arc<Network>,
    place: Place,
    death: CancellationToken,
}

impl Process {
    /// Makes an association; the process that has died waits for ever.
    pub async fn associate(&self, options: ConnectOptions) -> Result<Arc<Remote>, ConnectError> {
        let connected = timeout(STEP, self.attempt(&options)).await;
        if self.death.is_cancelled() {
            std::future::pending::<()>().await;
        }
        connected.unwrap_or(Err(ConnectError::TimedOut))
    }

    async fn attempt(&self, options: &ConnectOptions) -> Result<Arc<Remote>, ConnectError> {
        let network = &self.network;
        sleep(network.delay()).await;
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = network.listener(options.address).ok_or_else(refused)?;
        let to = listener.place;
        network.passes(self.place, to).await;
        let closed = self.death.child_token();
        let guard = closed.clone().drop_guard();
        let link = Arc::new(Link {
            serial: network.serial.fetch_add(1, Relaxed),
            from: self.place,
            to,
            closed,
        });
        let (admin, admin_queue) = mpsc::unbounded_channel();
        let (io, io_queue) = mpsc::unbounded_channel();
        let (admitted, answer) = oneshot::channel();
        let far = target::Far {
            network: network.clone(),
            listener,
            link: link.clone(),
        };
        let request = far.request(options, address(self.place));
        far.begin(request, [admin_queue, io_queue], admitted);
        let size = match answer.await {
            Ok(Ok(size)) => size,
            Ok(Err(refusal)) => return Err(status(refusal)),
            Err(_) => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        };
        guard.disarm();
        network.links.lock().unwrap().push(Arc::downgrade(&link));
        let keep_alive = Duration::from_millis(options.keep_alive_ms.into());
        tokio::spawn(keep_alive_of(network.clone(), link.clone(), keep_alive));
        Ok(Arc::new(Remote {
            network: network.clone(),
            link,
            subsystem: options.subsystem.clone(),
            size,
            admin,
            io,
            death: self.death.clone(),
        }))
    }
}

fn status(refusal: Refusal) -> ConnectError {
    let (status, dnr) = match refusal {
        Refusal::InvalidHost => (0x184, true),
        Refusal::UnknownSubsystem => (0x182, true),
        Refusal::Busy => (0x181, false),
    };
    ConnectError::Refused { status, dnr }
}

/// Ends an association of which nothing is heard: at two looks in a row, half the keep-alive time
/// apart.
async fn keep_alive_of(network: Arc<Network>, link: Arc<Link>, time: Duration) {
    let mut is_missing = false;
    while !link.closed.is_cancelled() {
        let looked = timeout(time / 2, link.closed.cancelled()).await;
        let silent = network.is_blocked(link.from, link.to)
            || network.is_blocked(link.to, link.from)
            || network
                .listener(address(link.to))
                .is_none_or(|there| there.death.is_cancelled());
        if looked.is_err() && silent && is_missing {
            say!(network.world, "association {} is silent", link.serial);
            link.closed.cancel();
        }
        is_missing = silent;
    }
}

/// The initiator's end.
pub struct Remote {
    network: Arc<Network>,
    link: Arc<Link>,
    subsystem: String,
    size: u64,
    admin: mpsc::UnboundedSender<Message>,
    io: mpsc::UnboundedSender<Message>,
    death: CancellationToken,
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.link.closed.cancel();
    }
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "association lost")
}

impl Remote {
    /// Sends a command and waits for what comes back, as the initiator tells it.
    async fn command(&self, command: Command) -> Result<Bytes, DiskError> {
        match self.ask(command).await {
            Ok(bytes) => Ok(bytes),
            Err(Refused::Inaccessible) => Err(gone()),
            Err(Refused::Disk(kind)) => Err(DiskError::new(kind, "simulated answer")),
        }
    }

    /// The same, with what a host has to wait for told apart.
    pub async fn ask(&self, command: Command) -> Result<Bytes, Refused> {
        let world = &self.network.world;
        if world.happens(world.faults().request_lost) && !self.link.closed.is_cancelled() {
            say!(
                world,
                "association {} ends with a {command:?}",
                self.link.serial
            );
            self.link.closed.cancel();
        }
        let answer = match self.link.closed.is_cancelled() {
            true => None,
            false => self.answer(command).await,
        };
        if self.death.is_cancelled() {
            // Whoever asked does not run any more.
            std::future::pending::<()>().await;
        }
        let answer = answer.unwrap_or(Err(Refused::Disk(ErrorKind::Gone)));
        if let Err(Refused::Disk(ErrorKind::Gone)) = &answer {
            // What a status says of the path ends the association (`transport`).
            self.link.closed.cancel();
        }
        answer
    }

    async fn answer(&self, command: Command) -> Option<Reply> {
        let (reply, answer) = oneshot::channel();
        let queue = if command.is_admin() {
            &self.admin
        } else {
            &self.io
        };
        let message = Message {
            command,
            due: Instant::now() + self.network.delay(),
            reply,
        };
        queue.send(message).ok()?;
        tokio::select! {
            biased;
            answer = answer => answer.ok(),
            () = self.link.closed.cancelled() => None,
        }
    }

    pub async fn end(&self) {
        let _answer = timeout(Duration::from_secs(1), self.answer(Command::End)).await;
        self.link.closed.cancel();
    }

    pub async fn lost(&self) {
        self.link.closed.cancelled().await;
    }
}

#[async_trait]
impl Disk for Remote {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read(&self, offset: u64, into: &mut BytesMut) -> Result<(), DiskError> {
        let length = into.len() as u64;
        let bytes = self.command(Command::Read { offset, length }).await?;
        into.copy_from_slice(&bytes);
        Ok(())
    }

    async fn write_stamped(
        &self,
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let command = Command::Write {
            offset,
            data,
            mode,
            stamp,
        };
        self.command(command).await.map(drop)
    }

    async fn flush_stamped(&self, stamp: Stamp) -> Result<(), DiskError> {
        self.command(Command::Flush { stamp }).await.map(drop)
    }

    async fn write_zeroes_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let command = Command::Zeroes {
            offset,
            length,
            stamp,
        };
        self.command(command).await.map(drop)
    }

    async fn discard_stamped(
        &self,
        offset: u64,
        length: u64,
        stamp: Stamp,
    ) -> Result<(), DiskError> {
        let command = Command::Discard {
            offset,
            length,
            stamp,
        };
        self.command(command).await.map(drop)
    }
}

#[async_trait]
impl Association for Remote {
    async fn vendor_get(&self, opcode: u8, cdw10: u32, length: u32) -> Result<Bytes, DiskError> {
        let command = Command::Get {
            opcode,
            cdw10,
            length,
        };
        self.command(command).await
    }

    async fn vendor_put(&self, opcode: u8, cdw10: u32, data: Bytes) -> Result<(), DiskError> {
        let command = Command::Put {
            opcode,
            cdw10,
            data,
        };
        self.command(command).await.map(drop)
    }

    async fn disconnect(&self) {
        self.end().await;
    }

    fn abandon(&self) {
        self.link.closed.cancel();
    }

    fn closed(&self) -> BoxFuture<'static, ()> {
        self.link.closed.clone().cancelled_owned().boxed()
    }

    /// The simulation has no probe: who says nothing is found by its keep-alive.
    fn fell_silent(&self) -> bool {
        false
    }

    fn local(&self) -> SocketAddr {
        address(self.link.from)
    }

    fn subsystem(&self) -> &str {
        &self.subsystem
    }
}

#[async_trait]
impl product::Network for Process {
    async fn connect(&self, options: ConnectOptions) -> Result<Arc<dyn Association>, ConnectError> {
        Ok(self.associate(options).await?)
    }

    async fn listen(
        &self,
        _port: u16,
        gate: Arc<dyn Gate>,
    ) -> anyhow::Result<BoxFuture<'static, io::Result<()>>> {
        self.network.listen(Listener {
            gate,
            place: self.place,
            death: self.death.clone(),
            is_silent: Arc::default(),
            watch: Arc::default(),
        });
        Ok(std::future::pending().boxed())
    }
}
