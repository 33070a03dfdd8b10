//! Who may use the volume: decides about each Connect of a host and keeps its association.
//!
//! A host is admitted if its NQN is, byte for byte, one that the accepted document names, and
//! its host identifier is the one that goes with that NQN. A host has one association: a new
//! one waits until every command of an older one has ended (`replication.md` rule 7).

use crate::layers::loss::Untold;
use async_trait::async_trait;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_block::Disk;
use weft_spec::engine::AllowedHost;
use weft_spec::ids::{AttachGeneration, FencePair, VolumeUid};
use weft_spec::nqn;
use weft_transport::{
    Admission, ConnectRequest, Discovery, DiscoveryRecord, Events, Export, Gate, Refusal,
};

/// How long a Connect waits for the end of the host's older association; then the host is told
/// to come again, before its own time-out for Connect makes it drop the connection.
const OLDER_TIMEOUT: Duration = Duration::from_secs(4);
/// Controller identifiers that one process may use: [`Export::first_controller`] and 15 more.
const CONTROLLERS_PER_BOOT: u64 = 16;
/// So many ranges of identifiers lie below FFF0h, the first reserved one.
const CONTROLLER_RANGES: u64 = 4094;

/// The gate of one volume.
pub struct HostGate {
    subsystem: String,
    export: Export,
    /// Hosts up to this generation have not been told of a loss.
    loss: Option<AttachGeneration>,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    /// The same for hosts that wait, woken in the order in which they came.
    left: Notify,
    /// Counts changes of who may find what.
    directory: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    allowed: Vec<AllowedHost>,
    live: Vec<Live>,
    next: u64,
}

struct Live {
    number: u64,
    host: AllowedHost,
    source: SocketAddr,
    revoke: CancellationToken,
}

/// A live association, as it is reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Association {
    /// Whose it is.
    pub host: AllowedHost,
    /// Source address of its admin queue.
    pub source: SocketAddr,
}

impl HostGate {
    /// A gate in front of `disk` that admits nobody yet. Of a `loss` the record in force tells; only
    /// the first one of an engine can tell another, so it stays what it is.
    pub fn new(
        volume: VolumeUid,
        pair: FencePair,
        disk: Arc<dyn Disk>,
        loss: Option<AttachGeneration>,
    ) -> Arc<Self> {
        let export = Export {
            disk,
            uuid: volume.0,
            serial: volume.0.simple().to_string()[..20].to_owned(),
            first_controller: first_controller(pair),
            read_only: false,
            events: Events::new(),
            vendor: None,
        };
        Arc::new(Self {
            subsystem: nqn::volume(volume),
            export,
            loss,
            state: Mutex::default(),
            changed: watch::Sender::new(()),
            left: Notify::new(),
            directory: watch::Sender::new(1),
        })
    }

    /// Through which hosts hear of changes of the volume.
    pub fn events(&self) -> &Events {
        &self.export.events
    }

    /// From now on exactly these may connect. Associations of all others are ended: commands in
    /// flight first.
    pub fn admit(&self, hosts: &[AllowedHost]) {
        let mut state = self.state();
        state.allowed = hosts.to_vec();
        for live in &state.live {
            if !state.allowed.contains(&live.host) {
                live.revoke.cancel();
            }
        }
        drop(state);
        self.directory.send_modify(|generation| *generation += 1);
    }

    /// Told after each association that begins or ends.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The associations that live now, oldest first.
    pub fn associations(&self) -> Vec<Association> {
        let state = self.state();
        let live = state.live.iter().map(|live| Association {
            host: live.host.clone(),
            source: live.source,
        });
        live.collect()
    }

    /// Whether no association is left of a host that has no right any more.
    pub fn settled(&self) -> bool {
        let state = self.state();
        let mut live = state.live.iter();
        live.all(|live| state.allowed.contains(&live.host))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and each change is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits, or tells which older association has to end first.
    fn try_admit(self: &Arc<Self>, request: &ConnectRequest) -> Result<Option<Admission>, Refusal> {
        let mut state = self.state();
        let host = find(&state.allowed, &request.host)
            .filter(|host| host.nqn.host_id() == request.host_id)
            .ok_or(Refusal::InvalidHost)?
            .clone();
        let mut older = false;
        for live in state.live.iter().filter(|live| live.host.nqn == host.nqn) {
            live.revoke.cancel();
            older = true;
        }
        if older {
            return Ok(None);
        }
        let number = state.next;
        state.next += 1;
        let revoke = CancellationToken::new();
        let export = Export {
            disk: Untold::unless_told(&self.export.disk, host.generation, self.loss),
            read_only: host.read_only,
            ..self.export.clone()
        };
        let source = SocketAddr::new(request.peer.ip().to_canonical(), request.peer.port());
        tracing::info!(attachment = host.attachment, %source, "host admitted");
        state.live.push(Live {
            number,
            host,
            source,
            revoke: revoke.clone(),
        });
        drop(state);
        self.changed.send_replace(());
        let ended = Box::new(Ended {
            gate: self.clone(),
            number,
        });
        Ok(Some(Admission {
            export,
            revoke,
            ended,
        }))
    }

    async fn admit_after_older(
        self: &Arc<Self>,
        request: &ConnectRequest,
    ) -> Result<Admission, Refusal> {
        loop {
            let mut left = pin!(self.left.notified());
            left.as_mut().enable();
            if let Some(admission) = self.try_admit(request)? {
                return Ok(admission);
            }
            left.await;
        }
    }
}

/// The gate as the target sees it.
pub struct Door(pub Arc<HostGate>);

#[async_trait]
impl Gate for Door {
    async fn connect(&self, request: ConnectRequest) -> Result<Admission, Refusal> {
        if request.subsystem != self.0.subsystem {
            return Err(Refusal::UnknownSubsystem);
        }
        let admitting = self.0.admit_after_older(&request);
        let decided = tokio::time::timeout(OLDER_TIMEOUT, admitting).await;
        let decided = decided.unwrap_or(Err(Refusal::Busy));
        if let Err(refusal) = &decided {
            let host = nqn::HostNqn::from_wire(&request.host);
            tracing::warn!(%host, peer = %request.peer, ?refusal, "host not admitted");
        }
        decided
    }

    fn discovery(&self) -> Option<Arc<dyn Discovery>> {
        Some(self.0.clone())
    }
}

impl Discovery for HostGate {
    /// The volume, for the hosts that may connect; nobody else learns that it exists.
    fn records(&self, host: &str, local: SocketAddr) -> Vec<DiscoveryRecord> {
        let state = self.state();
        let allowed = find(&state.allowed, host);
        let record = allowed.map(|_| DiscoveryRecord {
            subsystem: self.subsystem.clone(),
            address: local,
        });
        record.into_iter().collect()
    }

    fn generation(&self) -> watch::Receiver<u64> {
        self.directory.subscribe()
    }
}

/// Held by the target as long as any command of the association runs or may start.
struct Ended {
    gate: Arc<HostGate>,
    number: u64,
}

impl Drop for Ended {
    fn drop(&mut self) {
        let mut state = self.gate.state();
        if let Some(index) = state
            .live
            .iter()
            .position(|live| live.number == self.number)
        {
            let live = state.live.remove(index);
            tracing::info!(attachment = live.host.attachment, source = %live.source, "host left");
        }
        drop(state);
        self.gate.changed.send_replace(());
        self.gate.left.notify_waiters();
    }
}

/// Compares with every name, each to its end: the time taken tells nothing about a tag.
fn find<'a>(allowed: &'a [AllowedHost], name: &str) -> Option<&'a AllowedHost> {
    allowed.iter().fold(None, |found, host| {
        if equal(host.nqn.expose().as_bytes(), name.as_bytes()) {
            Some(host)
        } else {
            found
        }
    })
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && std::hint::black_box(differences) == 0
}

/// A range of its own for each pair near in time (`nvme-tcp.md` section 1.6): the host sees that
/// another process answers.
fn first_controller(pair: FencePair) -> u16 {
    let range = pair.term.0.wrapping_mul(8).wrapping_add(pair.boot.0) % CONTROLLER_RANGES;
    u16::try_from(range * CONTROLLERS_PER_BOOT + 1).unwrap_or(1)
}

#[cfg(test)]
mod tests;
