//! Of which members the mirror is made now.

use super::pace::Pace;
use super::report::{Failure, Role};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use tokio::time::Instant;
use weft_block::Disk;
use weft_spec::drive::Config;
use weft_spec::ids::SliceUid;

/// One slice and the way to it.
#[derive(Clone)]
pub struct Member {
    /// Names it in reports.
    pub slice: SliceUid,
    /// Where its bytes are. After [`Mirror::give_up`](super::Mirror::give_up) another object must be
    /// here, one behind which nothing of what was sent before can still be done.
    pub disk: Arc<dyn Disk>,
}

/// What the membership says is in force.
#[derive(Clone)]
pub struct Composition {
    /// Number of the in-sync set; each change carries it.
    pub config: Config,
    /// They have every acknowledged change; not empty.
    pub in_sync: Vec<Member>,
    /// They get every change, and may not have earlier ones.
    pub targets: Vec<Member>,
    /// The in-sync member whose bytes count where the members are not yet equal.
    pub leader: SliceUid,
}

/// Why a composition cannot be put in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ComposeError {
    /// Hold, and wait until [`Flow::Drained`](super::Flow::Drained).
    #[error("changes are still in flight under the composition before")]
    InFlight,
    /// Nobody is in-sync, or the leader is not, or a slice is named twice.
    #[error("the composition contradicts itself")]
    Contradiction,
    /// An older config than the one before.
    #[error("config {} is older than {}", .0.0, .1.0)]
    Older(Config, Config),
    /// It has missed changes as a target since it was last composed; it must be a target first.
    #[error("slice {0} has missed changes and cannot be in-sync")]
    Missed(SliceUid),
    /// It ends before what hosts have seen.
    #[error("slice {0} is smaller than the volume")]
    TooSmall(SliceUid),
    /// Nothing is in force any more.
    #[error("a newer engine is in force")]
    Fenced,
}

/// A member and what is known of it since it was composed.
pub struct Peer {
    pub slice: SliceUid,
    pub disk: Arc<dyn Disk>,
    pub role: Role,
    pub pace: Pace,
    failed: AtomicBool,
    given_up: AtomicBool,
    reads: AtomicU64,
}

impl Peer {
    /// What it says does not count any more.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    /// Nobody waits for its answers any more.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Relaxed)
    }

    /// True for the first failure.
    pub fn fail(&self, failure: Failure) -> bool {
        if failure == Failure::GivenUp {
            self.given_up.store(true, Relaxed);
        }
        !self.failed.swap(true, Relaxed)
    }

    /// What a read sent now is likely to take.
    pub fn expected(&self) -> u64 {
        self.pace.expected(self.reads.load(Relaxed))
    }

    /// Counts a read until the end of the guard.
    pub fn begin_read(&self) -> Reading<'_> {
        self.reads.fetch_add(1, Relaxed);
        Reading {
            peer: self,
            began: Instant::now(),
        }
    }
}

/// A read at a member, answered or given up when this is dropped.
pub struct Reading<'a> {
    peer: &'a Peer,
    began: Instant,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.peer.reads.fetch_sub(1, Relaxed);
        self.peer.pace.took(self.began.elapsed());
    }
}

/// A composition in force.
pub struct Current {
    pub config: Config,
    /// The in-sync ones first.
    pub peers: Vec<Arc<Peer>>,
    in_sync: usize,
    leader: usize,
}

impl Current {
    /// # Errors
    ///
    /// [`ComposeError`] if `next` may not follow `before`.
    pub fn follow(
        before: Option<&Self>,
        next: Composition,
        size: u64,
    ) -> Result<Self, ComposeError> {
        let config = next.config;
        if let Some(before) = before.filter(|before| config < before.config) {
            return Err(ComposeError::Older(config, before.config));
        }
        let known = |slice| before.and_then(|before| before.peer(slice));
        let peer = |member: Member, role| {
            let pace = known(member.slice).map(|peer| peer.pace.copy());
            Arc::new(Peer {
                slice: member.slice,
                disk: member.disk,
                role,
                pace: pace.unwrap_or_default(),
                failed: AtomicBool::new(false),
                given_up: AtomicBool::new(false),
                reads: AtomicU64::new(0),
            })
        };
        for member in &next.in_sync {
            let missed = |peer: &Arc<Peer>| peer.role == Role::Target && peer.has_failed();
            if known(member.slice).is_some_and(missed) {
                return Err(ComposeError::Missed(member.slice));
            }
            if member.disk.size() < size {
                return Err(ComposeError::TooSmall(member.slice));
            }
        }
        let in_sync = next.in_sync.len();
        let leads = |member: &Member| member.slice == next.leader;
        let leader = next.in_sync.iter().position(leads);
        let synced = next.in_sync.into_iter().map(|one| peer(one, Role::InSync));
        let targets = next.targets.into_iter().map(|one| peer(one, Role::Target));
        let peers: Vec<_> = synced.chain(targets).collect();
        let twice = |at: usize| peers[..at].iter().any(|one| one.slice == peers[at].slice);
        let Some(leader) = leader.filter(|_| !(0..peers.len()).any(twice)) else {
            return Err(ComposeError::Contradiction);
        };
        Ok(Self {
            config,
            peers,
            in_sync,
            leader,
        })
    }

    /// The in-sync members.
    pub fn in_sync(&self) -> &[Arc<Peer>] {
        &self.peers[..self.in_sync]
    }

    /// The in-sync members, the leader first.
    pub fn leader_first(&self) -> impl Iterator<Item = &Arc<Peer>> {
        let (before, rest) = self.in_sync().split_at(self.leader);
        rest.iter().chain(before)
    }

    /// The member of this name.
    pub fn peer(&self, slice: SliceUid) -> Option<&Arc<Peer>> {
        self.peers.iter().find(|peer| peer.slice == slice)
    }

    /// What every in-sync member has.
    pub fn size(&self) -> u64 {
        let sizes = self.in_sync().iter().map(|peer| peer.disk.size());
        sizes.min().unwrap_or(0)
    }
}
