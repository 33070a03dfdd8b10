//! The host: a path to the engine that its attachment names, and several requests at a time, sent again
//! until they are answered.

use crate::network::{Network, Remote};
use crate::oracle::{Kind, Oracle};
use crate::target::{Command, Refused};
use crate::world::{Place, World, say};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_block::{BLOCK, ErrorKind, Stamp, Write};
use weft_spec::ids::AttachGeneration;
use weft_spec::nqn::{self, HostNqn};
use weft_transport::ConnectOptions;

/// Blocks that are used: some of each region, and a region's border with whole chunks on both sides.
const USED: [(u64, u64); 8] = [
    (0, 8),
    (240, 32),
    (520, 4),
    (784, 6),
    (1040, 4),
    (1288, 8),
    (1544, 4),
    (1800, 6),
];
/// Of these so many are in use at a time, the next one after so many requests: so there are regions that
/// a drive that was away has not heard of, and some that have cooled.
const AT_A_TIME: u64 = 3;
const MOVES: u64 = 12;
/// Of a chunk.
const BLOCKS: u64 = 16;
/// Between two tries to connect, or to have an inaccessible namespace do something.
const AGAIN: Duration = Duration::from_millis(100);
const NOW: Stamp = Stamp {
    config: 0,
    number: 0,
    checkpoint: 0,
};

/// What the host's attachment says.
#[derive(Clone, PartialEq, Eq)]
pub struct Attachment {
    pub generation: AttachGeneration,
    pub address: SocketAddr,
    pub name: HostNqn,
}

/// See the module.
pub struct Host {
    world: Arc<World>,
    network: Arc<Network>,
    oracle: Arc<Oracle>,
    attachment: Mutex<Option<Attachment>>,
    path: Mutex<Option<(Arc<Remote>, AttachGeneration)>>,
    changed: Notify,
    pub done: Mutex<u64>,
}

impl Host {
    pub fn new(world: Arc<World>, network: Arc<Network>, oracle: Arc<Oracle>) -> Arc<Self> {
        let host = Arc::new(Self {
            world,
            network,
            oracle,
            attachment: Mutex::new(None),
            path: Mutex::new(None),
            changed: Notify::new(),
            done: Mutex::new(0),
        });
        tokio::spawn(host.clone().keep_path());
        host
    }

    /// From now on this is its attachment: a path to another engine ends first.
    pub fn attach(&self, attachment: Option<Attachment>) {
        *self.attachment.lock().unwrap() = attachment;
        self.changed.notify_waiters();
    }

    async fn keep_path(self: Arc<Self>) {
        let network = self.network.of(Place::HOST, CancellationToken::new());
        loop {
            let changed = self.changed.notified();
            let wanted = self.attachment.lock().unwrap().clone();
            let Some(wanted) = wanted else {
                changed.await;
                continue;
            };
            let options = ConnectOptions::new(
                wanted.address,
                nqn::volume(crate::drive::VOLUME),
                wanted.name.expose(),
                wanted.name.host_id(),
            );
            let Ok(path) = network.associate(options).await else {
                sleep(AGAIN).await;
                continue;
            };
            say!(self.world, "the host is connected to {}", wanted.address);
            self.serve(path, &wanted).await;
        }
    }

    /// Uses the path until it is lost or another is wanted.
    async fn serve(&self, path: Arc<Remote>, wanted: &Attachment) {
        *self.path.lock().unwrap() = Some((path.clone(), wanted.generation));
        self.changed.notify_waiters();
        loop {
            let changed = self.changed.notified();
            if self.attachment.lock().unwrap().as_ref() != Some(wanted) {
                break;
            }
            tokio::select! {
                biased;
                () = path.lost() => break,
                () = changed => {}
            }
        }
        *self.path.lock().unwrap() = None;
        path.end().await;
    }

    async fn path(&self) -> (Arc<Remote>, AttachGeneration) {
        loop {
            let changed = self.changed.notified();
            let path = self.path.lock().unwrap().clone();
            match path {
                Some(path) => return path,
                None => changed.await,
            }
        }
    }

    /// Sends a command until it is answered, over whatever path there is.
    async fn send(&self, command: &Command) -> (Result<Bytes, ErrorKind>, AttachGeneration) {
        loop {
            let (path, generation) = self.path().await;
            match path.ask(command.clone()).await {
                Ok(bytes) => return (Ok(bytes), generation),
                Err(Refused::Inaccessible) => sleep(AGAIN).await,
                Err(Refused::Disk(ErrorKind::Gone)) => {
                    path.lost().await;
                    // Whoever keeps the path sees it as well.
                    tokio::task::yield_now().await;
                }
                Err(Refused::Disk(kind)) => return (Err(kind), generation),
            }
        }
    }

    /// So many workers make so many requests each.
    pub async fn work(self: &Arc<Self>, workers: u64, requests: u64, pause: Duration) {
        let mut working = JoinSet::new();
        for _ in 0..workers {
            let host = self.clone();
            working.spawn(async move {
                for _ in 0..requests {
                    sleep(host.world.time(pause)).await;
                    host.one().await;
                }
            });
        }
        while let Some(worked) = working.join_next().await {
            worked.unwrap();
        }
    }

    fn place(&self) -> (u64, u64) {
        let places = USED.len() as u64;
        let window = *self.done.lock().unwrap() / MOVES;
        let at = match self.world.below(8) {
            0 => self.world.below(places),
            _ => window + self.world.below(AT_A_TIME),
        };
        USED[(at % places) as usize]
    }

    async fn one(&self) {
        let (start, count) = self.place();
        let length = match self.world.below(8) {
            0 => 1 + self.world.below(count.min(16)),
            _ => 1 + self.world.below(4),
        };
        let mut first = start + self.world.below(count - length.min(count) + 1);
        let mut length = length.min(count);
        match self.world.below(100) {
            0..30 => drop(self.can_read(first, length).await),
            30..60 => self.change(Kind::Write, first, length, Write::Cached).await,
            60..70 => {
                self.change(Kind::Write, first, length, Write::Durable)
                    .await
            }
            70..86 => self.flush().await,
            kind => {
                // Now and then whole chunks, which are freed.
                if start == 240 && self.world.below(2) == 0 {
                    (first, length) = (240 + 16 * self.world.below(2), 16);
                }
                let kind = if kind < 95 {
                    Kind::Zeroes
                } else {
                    Kind::Discard
                };
                self.change(kind, first, length, Write::Cached).await;
            }
        }
        *self.done.lock().unwrap() += 1;
    }

    async fn change(&self, kind: Kind, first: u64, count: u64, mode: Write) {
        let (offset, length) = (first * BLOCK, count * BLOCK);
        let loss = self.oracle.recorded_loss();
        let (change, bytes) = self.oracle.begin(kind, first, count);
        let (data, stamp) = (Bytes::from(bytes), NOW);
        let command = match kind {
            Kind::Write => Command::Write {
                offset,
                data,
                mode,
                stamp,
            },
            Kind::Zeroes => Command::Zeroes {
                offset,
                length,
                stamp,
            },
            Kind::Discard => Command::Discard {
                offset,
                length,
                stamp,
            },
        };
        let (done, generation) = self.send(&command).await;
        let durable = mode == Write::Durable;
        match done {
            Ok(_) => {
                self.check_loss(durable, loss, generation);
                self.oracle.acknowledge(&change, durable);
            }
            Err(kind) => {
                self.oracle.lose(change);
                self.refused(&command, kind);
            }
        }
    }

    async fn flush(&self) {
        let loss = self.oracle.recorded_loss();
        let flush = self.oracle.begin_flush();
        let command = Command::Flush { stamp: NOW };
        match self.send(&command).await {
            (Ok(_), generation) => {
                self.check_loss(true, loss, generation);
                self.oracle.flushed(&flush);
            }
            (Err(kind), _) => self.refused(&command, kind),
        }
    }

    /// Nobody is told that bytes are safe of which some were lost before the request began.
    fn check_loss(
        &self,
        durable: bool,
        loss: Option<AttachGeneration>,
        generation: AttachGeneration,
    ) {
        if durable && loss >= Some(generation) {
            let what = "a flush is acknowledged after a loss, to a host admitted before it";
            self.world.wrong(what.to_owned());
        }
    }

    /// An error that a host may get only where media fail or bytes were lost.
    fn refused(&self, command: &Command, kind: ErrorKind) {
        say!(self.world, "the host is told {kind:?}: {command:?}");
        let of_media = matches!(kind, ErrorKind::MediaRead | ErrorKind::MediaWrite);
        let excused = self.world.spoils_media() || self.oracle.recorded_loss().is_some();
        if !of_media || !excused {
            self.world.wrong(format!("{command:?} fails: {kind:?}"));
        }
    }

    /// Reads everything that has chunks, and writes what cannot be read. True if all could.
    pub async fn look(&self) -> bool {
        let mut all = true;
        for (start, count) in USED {
            let last = (start + count).next_multiple_of(BLOCKS);
            for first in (start / BLOCKS * BLOCKS..last).step_by(BLOCKS as usize) {
                if !self.can_read(first, BLOCKS).await {
                    all = false;
                    self.mend(first).await;
                }
            }
        }
        all
    }

    async fn mend(&self, first: u64) {
        for block in first..first + BLOCKS {
            if !self.can_read(block, 1).await {
                self.change(Kind::Write, block, 1, Write::Cached).await;
            }
        }
    }

    async fn can_read(&self, first: u64, count: u64) -> bool {
        let reading = self.oracle.begin_read(first);
        let command = Command::Read {
            offset: first * BLOCK,
            length: count * BLOCK,
        };
        match self.send(&command).await.0 {
            Ok(bytes) => {
                self.oracle.judge(&reading, &bytes);
                true
            }
            Err(kind) => {
                self.oracle.failed(&reading);
                self.refused(&command, kind);
                false
            }
        }
    }
}
