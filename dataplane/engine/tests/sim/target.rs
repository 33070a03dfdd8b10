//! The far end of an association: asks the real gate, runs commands on what it admits to, and ends as
//! `weft-transport`'s target does. What is in a queue begins in its order; commands run beside each
//! other; the admission is let go of when nothing of it runs and nothing can begin.

use crate::network::{Link, Listener, Network};
use crate::oracle::Oracle;
use crate::world::say;
use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_block::{DiskError, ErrorKind, Stamp, Write};
use weft_spec::drive::{RecordSwap, SliceRecord, VENDOR_PUT_RECORD};
use weft_spec::ids::{FencePair, SliceUid};
use weft_spec::nqn::HostNqn;
use weft_transport::{
    Admission, AnaState, ConnectOptions, ConnectRequest, Export, Refusal, VendorError,
};

/// What is asked over an association.
#[derive(Clone)]
pub enum Command {
    Read {
        offset: u64,
        length: u64,
    },
    Write {
        offset: u64,
        data: Bytes,
        mode: Write,
        stamp: Stamp,
    },
    Flush {
        stamp: Stamp,
    },
    Zeroes {
        offset: u64,
        length: u64,
        stamp: Stamp,
    },
    Discard {
        offset: u64,
        length: u64,
        stamp: Stamp,
    },
    Get {
        opcode: u8,
        cdw10: u32,
        length: u32,
    },
    Put {
        opcode: u8,
        cdw10: u32,
        data: Bytes,
    },
    /// Ends the association in order.
    End,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let block = |offset: &u64| offset / 4096;
        match self {
            Self::Read { offset, length } => write!(f, "read {}+{}", block(offset), block(length)),
            Self::Write {
                offset,
                data,
                mode,
                stamp,
            } => {
                let (at, count) = (block(offset), data.len() / 4096);
                write!(
                    f,
                    "write {at}+{count} {mode:?} c{} n{}",
                    stamp.config, stamp.number
                )
            }
            Self::Flush { stamp } => write!(f, "flush, checkpoint {}", stamp.checkpoint),
            Self::Zeroes {
                offset,
                length,
                stamp,
            } => {
                let (at, count) = (block(offset), block(length));
                write!(f, "zeroes {at}+{count} c{} n{}", stamp.config, stamp.number)
            }
            Self::Discard { offset, length, .. } => {
                write!(f, "discard {}+{}", block(offset), block(length))
            }
            Self::Get { opcode, .. } => write!(f, "get {opcode:#x}"),
            Self::Put {
                opcode: VENDOR_PUT_RECORD,
                data,
                ..
            } => {
                let RecordSwap { expected, record } = serde_json::from_slice(data).unwrap();
                let expected = expected.map(|expected| (expected.fence, expected.config.0));
                write!(f, "record {} over {expected:?}", said(&record))
            }
            Self::Put { opcode, data, .. } => {
                let body = String::from_utf8_lossy(data);
                write!(f, "put {opcode:#x} {}", &body[..body.len().min(60)])
            }
            Self::End => write!(f, "end"),
        }
    }
}

/// A record in short.
fn said(record: &SliceRecord) -> String {
    let number = |slice: SliceUid| slice.0.as_u128() & 0xff;
    let members: Vec<_> = record.in_sync.iter().map(|one| number(one.slice)).collect();
    let out = record.out_of_sync.iter();
    let out: Vec<_> = out.map(|out| (number(out.slice), out.since.0)).collect();
    let (fence, config, state) = (record.fence, record.config.0, record.state);
    let loss = record.loss.map(|loss| loss.0);
    format!("{fence} c{config} {members:?} out {out:?} loss {loss:?} {state:?}")
}

impl Command {
    /// The record that it puts.
    fn record(&self) -> Option<RecordSwap> {
        match self {
            Self::Put { opcode, data, .. } if *opcode == VENDOR_PUT_RECORD => {
                Some(serde_json::from_slice(data).unwrap())
            }
            _ => None,
        }
    }

    pub fn is_admin(&self) -> bool {
        matches!(self, Self::Get { .. } | Self::Put { .. } | Self::End)
    }
}

/// Why a command was not done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    Disk(ErrorKind),
    /// The namespace serves nobody now.
    Inaccessible,
}

pub type Reply = Result<Bytes, Refused>;

/// A command on its way.
pub struct Message {
    pub command: Command,
    pub due: Instant,
    pub reply: oneshot::Sender<Reply>,
}

/// What is watched at a drive's process.
#[derive(Default)]
pub struct Watch {
    /// Greatest pair that it has admitted: it may do nothing for older ones.
    greatest: Mutex<FencePair>,
    /// Hears of losses that are recorded.
    oracle: Option<Arc<Oracle>>,
}

impl Watch {
    pub fn new(oracle: Arc<Oracle>) -> Self {
        Self {
            oracle: Some(oracle),
            ..Self::default()
        }
    }

    fn admitted(&self, pair: FencePair) {
        let mut greatest = self.greatest.lock().unwrap();
        *greatest = pair.max(*greatest);
    }

    fn is_older(&self, pair: Option<FencePair>) -> bool {
        pair.is_some_and(|pair| pair < *self.greatest.lock().unwrap())
    }

    fn done(&self, command: &Command) {
        if let (Some(oracle), Some(swap)) = (&self.oracle, command.record()) {
            oracle.recorded(&swap);
        }
    }
}

/// See the module.
pub struct Far {
    pub network: Arc<Network>,
    pub listener: Listener,
    pub link: Arc<Link>,
}

type Queue = mpsc::UnboundedReceiver<Message>;

impl Far {
    pub fn request(&self, options: &ConnectOptions, peer: SocketAddr) -> ConnectRequest {
        ConnectRequest {
            subsystem: options.subsystem.clone(),
            host: options.host.clone(),
            host_id: options.host_id,
            peer,
        }
    }

    /// Admits or refuses, then serves these queues until the association or the process ends.
    pub fn begin(
        self,
        request: ConnectRequest,
        queues: [Queue; 2],
        admitted: oneshot::Sender<Result<u64, Refusal>>,
    ) {
        let death = self.listener.death.clone();
        let last_word = self.last_word();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = death.cancelled() => last_word.await,
                () = self.serve(request, queues, admitted) => {}
            }
        });
    }

    /// The kernel of a process that has died ends its connections.
    fn last_word(&self) -> impl Future<Output = ()> + use<> {
        let (network, link) = (self.network.clone(), self.link.clone());
        let is_silent = self.listener.is_silent.clone();
        async move {
            sleep(network.delay()).await;
            network.passes(link.to, link.from).await;
            if !is_silent.load(Relaxed) {
                link.closed.cancel();
            }
        }
    }

    async fn serve(
        self,
        request: ConnectRequest,
        queues: [Queue; 2],
        admitted: oneshot::Sender<Result<u64, Refusal>>,
    ) {
        let name = HostNqn::from_wire(&request.host);
        let pair = name.parse_at_slice().and_then(|host| host.fence());
        let decided = self.listener.gate.connect(request).await;
        let world = &self.network.world;
        if let (Ok(_), Some(pair)) = (&decided, pair) {
            say!(world, "{:?} admits {pair}", self.link.to);
            self.listener.watch.admitted(pair);
        }
        let answer = match &decided {
            Ok(admission) => Ok(admission.export.disk.size()),
            Err(refusal) => Err(*refusal),
        };
        if self.answers().await {
            // Who asked may be gone.
            let _ = admitted.send(answer);
        }
        let Ok(admission) = decided else { return };
        let Admission {
            export,
            revoke,
            ended,
        } = admission;
        let far = Arc::new(self);
        let served = Arc::new(Served { export, pair });
        let ending = far.ending(revoke);
        let queues = queues.map(|queue| far.clone().queue(queue, served.clone(), ending.clone()));
        let heard = far.clone().until_unheard();
        tokio::spawn(async move {
            heard.await;
            ending.cancel();
        });
        join_all(queues).await;
        drop(ended);
        sleep(far.network.delay()).await;
        far.network.passes(far.link.to, far.link.from).await;
        far.link.closed.cancel();
    }

    /// Cancelled when the gate has ended the association and the far end has seen it.
    fn ending(&self, revoke: CancellationToken) -> CancellationToken {
        let world = self.network.world.clone();
        let ending = CancellationToken::new();
        let seen = ending.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = seen.cancelled() => return,
                () = revoke.cancelled() => {}
            }
            if world.happens(world.faults().slow_to_end) {
                // Beyond what the drive waits for, now and then.
                let late = [50, 500, 4000][world.below(3) as usize];
                sleep(Duration::from_millis(late)).await;
            }
            seen.cancel();
        });
        ending
    }

    /// Starts what comes, in its order, and waits for all of it.
    async fn queue(
        self: Arc<Self>,
        mut queue: Queue,
        served: Arc<Served>,
        ending: CancellationToken,
    ) {
        let mut running = JoinSet::new();
        loop {
            let message = tokio::select! {
                biased;
                () = ending.cancelled() => break,
                message = queue.recv() => message,
                Some(_) = running.join_next() => continue,
            };
            let Some(message) = message else { break };
            let arrives = async {
                sleep_until(message.due).await;
                self.network.passes(self.link.from, self.link.to).await;
            };
            tokio::select! {
                biased;
                () = ending.cancelled() => break,
                () = arrives => {}
            }
            let Message { command, reply, .. } = message;
            if matches!(command, Command::End) {
                ending.cancel();
                let far = self.clone();
                running.spawn(async move { far.reply(reply, Ok(Bytes::new())).await });
                break;
            }
            let (far, served) = (self.clone(), served.clone());
            running.spawn(async move {
                let done = far.run(&served, &command).await;
                tokio::spawn(async move { far.reply(reply, done).await });
            });
        }
        // The queues of an association end together.
        ending.cancel();
        while running.join_next().await.is_some() {}
    }

    /// Until the initiator is gone and what it had sent has come or is lost, or it was not heard of
    /// for its keep-alive time and the grace.
    async fn until_unheard(self: Arc<Self>) {
        let silence = async {
            loop {
                self.network.passes(self.link.from, self.link.to).await;
                sleep(Duration::from_millis(500)).await;
                let mut silent = 0;
                while self.network.is_blocked(self.link.from, self.link.to) && silent < 14 {
                    sleep(Duration::from_millis(500)).await;
                    silent += 1;
                }
                if silent == 14 {
                    return;
                }
            }
        };
        let closed = async {
            self.link.closed.cancelled().await;
            // What lies in the socket may be read before the end is.
            let late = [0, 0, 5, 50, 500][self.network.world.below(5) as usize];
            sleep(Duration::from_millis(late)).await;
            self.network.passes(self.link.from, self.link.to).await;
        };
        tokio::select! {
            biased;
            () = silence => {}
            () = closed => {}
        }
    }

    /// Whether the initiator hears an answer; it comes to it when this ends.
    async fn answers(&self) -> bool {
        if self.listener.death.is_cancelled() {
            return false;
        }
        let world = &self.network.world;
        let lost = world.happens(world.faults().answer_lost);
        sleep(self.network.delay()).await;
        self.network.passes(self.link.to, self.link.from).await;
        if lost {
            say!(
                world,
                "association {} ends without an answer",
                self.link.serial
            );
            self.link.closed.cancel();
        }
        !lost
    }

    async fn reply(&self, reply: oneshot::Sender<Reply>, done: Reply) {
        if self.answers().await {
            let _ = reply.send(done);
        }
    }

    async fn run(&self, served: &Served, command: &Command) -> Reply {
        let world = &self.network.world;
        let is_older = self.listener.watch.is_older(served.pair);
        let done = served.run(command).await;
        let (serial, to) = (self.link.serial, self.link.to.0);
        match &done {
            Ok(_) => {
                say!(world, "{serial}@{to} {command:?}");
                self.listener.watch.done(command);
            }
            Err(refused) => say!(world, "{serial}@{to} {command:?}: {refused:?}"),
        }
        if is_older && done.is_ok() {
            let pair = served.pair.unwrap_or_default();
            world.wrong(format!(
                "{:?} did for the older {pair}: {command:?}",
                self.link.to
            ));
        }
        done
    }
}

/// What was admitted to.
struct Served {
    export: Export,
    pair: Option<FencePair>,
}

impl Served {
    /// As the target runs commands (`transport/src/target/execute.rs`).
    async fn run(&self, command: &Command) -> Reply {
        let Export {
            disk,
            events,
            vendor,
            read_only,
            ..
        } = &self.export;
        if !command.is_admin() && events.ana() != AnaState::Optimized {
            return Err(Refused::Inaccessible);
        }
        assert!(!read_only);
        let none = || Ok(Bytes::new());
        match command.clone() {
            Command::Read { offset, length } => {
                let mut into = BytesMut::zeroed(length as usize);
                disk.read(offset, &mut into)
                    .await
                    .map_err(|e| of_disk(&e))?;
                Ok(into.freeze())
            }
            Command::Write {
                offset,
                data,
                mode,
                stamp,
            } => {
                let done = disk.write_stamped(offset, data, mode, stamp).await;
                done.map_err(|e| of_disk(&e))?;
                none()
            }
            Command::Flush { stamp } => {
                disk.flush_stamped(stamp).await.map_err(|e| of_disk(&e))?;
                none()
            }
            Command::Zeroes {
                offset,
                length,
                stamp,
            } => {
                let done = disk.write_zeroes_stamped(offset, length, stamp).await;
                done.map_err(|e| of_disk(&e))?;
                none()
            }
            Command::Discard {
                offset,
                length,
                stamp,
            } => {
                let done = disk.discard_stamped(offset, length, stamp).await;
                done.map_err(|e| of_disk(&e))?;
                none()
            }
            Command::Get {
                opcode,
                cdw10,
                length,
            } => {
                let vendor = vendor
                    .as_ref()
                    .ok_or(Refused::Disk(ErrorKind::Unsupported))?;
                vendor.get(opcode, cdw10, length).await.map_err(of_vendor)
            }
            Command::Put {
                opcode,
                cdw10,
                data,
            } => {
                assert!(data.len() <= 8192, "more than a vendor command takes");
                let vendor = vendor
                    .as_ref()
                    .ok_or(Refused::Disk(ErrorKind::Unsupported))?;
                vendor.put(opcode, cdw10, data).await.map_err(of_vendor)?;
                none()
            }
            Command::End => none(),
        }
    }
}

/// An error, through the status that the target answers with, as the initiator understands it.
fn of_disk(error: &DiskError) -> Refused {
    Refused::Disk(match error.kind() {
        ErrorKind::Lost => ErrorKind::MediaWrite,
        kind => kind,
    })
}

fn of_vendor(error: VendorError) -> Refused {
    Refused::Disk(match error {
        VendorError::InvalidOpcode | VendorError::InvalidField => ErrorKind::Unsupported,
        // Not a status that the initiator knows: the path is given up.
        VendorError::Internal => ErrorKind::Gone,
        VendorError::Fenced => ErrorKind::Fenced,
        VendorError::SwapLost => ErrorKind::SwapLost,
    })
}
