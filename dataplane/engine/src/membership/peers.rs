//! What is known of each slice.

use super::rules::left_out;
use super::{Action, Membership, Phase, Testimony, votes};
use std::collections::BTreeMap;
use weft_spec::drive::{Config, RecordSwap, SliceRecord};
use weft_spec::ids::{Boot, FencePair, SliceUid};

/// See the module.
pub type Peers = BTreeMap<SliceUid, Peer>;

/// One slice.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// What it said last.
    pub heard: Option<Testimony>,
    /// It has promised the pair, and its association lives.
    pub live: bool,
    /// It was waited for long enough.
    pub given_up: bool,
    /// Durable there, as far as is known.
    pub record: Option<SliceRecord>,
    /// On its way there.
    pub putting: Option<SliceRecord>,
    /// How far it is with its way back.
    pub way: Way,
}

/// How far a slice that is not in-sync is with its way back.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Way {
    /// Not begun.
    #[default]
    Out,
    /// Being rebuilt.
    Rebuilding,
    /// Has everything, not yet flushed while writes are held.
    Rebuilt,
    /// Has everything, durably.
    Flushed,
}

impl Peer {
    /// Has no record of the lineage: whatever it holds is none of the volume's.
    fn is_unknown(&self, of: &SliceRecord) -> bool {
        self.record.as_ref().map(|record| record.lineage) != Some(of.lineage)
    }

    /// Is connected, and needs a full copy by its own word: it is unknown, or its record says so.
    /// In doubt that word counts against it, never for it.
    fn is_foreign(&self, slice: SliceUid, of: &SliceRecord) -> bool {
        let mut out = self.record.iter().flat_map(|record| &record.out_of_sync);
        let full = out.any(|out| out.slice == slice && out.since == Config(0));
        self.live && (full || self.is_unknown(of))
    }

    /// Its own record is what tells that it needs a full copy: one that says otherwise waits until
    /// the full copy is recorded.
    fn may_have(&self, slice: SliceUid, newest: &SliceRecord) -> bool {
        let mut out = newest.out_of_sync.iter();
        let partly = out.any(|out| out.slice == slice && out.since != Config(0));
        let member = votes::in_sync(newest, slice);
        !(partly && self.is_foreign(slice, newest) || member && self.is_unknown(newest))
    }
}

impl Membership {
    pub(super) fn foreign(&self, of: &SliceRecord, slice: SliceUid) -> bool {
        let foreign = |peer: &Peer| peer.is_foreign(slice, of);
        self.peers.get(&slice).is_some_and(foreign) && !left_out!(self, UnknownIsCopied)
    }

    pub(super) fn peer(&mut self, slice: SliceUid) -> &mut Peer {
        self.peers.entry(slice).or_default()
    }

    pub(super) fn live(&self, slice: SliceUid) -> bool {
        self.peers.get(&slice).is_some_and(|peer| peer.live)
    }

    pub(super) fn heard(&self, slice: SliceUid) -> Option<&Testimony> {
        self.peers.get(&slice)?.heard.as_ref()
    }

    pub(super) fn inspected(&mut self, slice: SliceUid, testimony: Testimony) -> Vec<Action> {
        if testimony.fence.term > self.assignment.term {
            return self.park(Some(testimony.fence));
        }
        let peer = self.peer(slice);
        peer.heard = Some(testimony);
        if matches!(self.phase, Phase::Inspecting(_)) {
            return Vec::new();
        }
        // Found after the fence was raised elsewhere.
        vec![Action::Connect(slice, self.pair())]
    }

    pub(super) fn promised(&mut self, slice: SliceUid, testimony: Testimony) -> Vec<Action> {
        let mut actions = Vec::new();
        let recorded = self.recorded_incarnation(slice);
        let same = recorded == Some(testimony.incarnation);
        self.marks.heard(slice, testimony.generation);
        let peer = self.peer(slice);
        peer.record = testimony.record.clone();
        peer.heard = Some(testimony);
        (peer.live, peer.given_up) = (true, false);
        if self.phase == Phase::Serving && same {
            actions.push(Action::Reconnected(slice));
        }
        actions
    }

    /// The drive has a pair that is not lower. Before this engine has told anybody that it serves,
    /// another process of the same pod may have chosen the same pair at the same time.
    pub(super) fn refused(&mut self, slice: SliceUid, testimony: Testimony) -> Vec<Action> {
        if matches!(self.phase, Phase::Inspecting(_)) {
            return Vec::new();
        }
        if testimony.fence > self.pair() {
            if left_out!(self, FencedParks) {
                return self.inspect_again();
            }
            return self.park(Some(testimony.fence));
        }
        if testimony.fence < self.pair() || self.phase != Phase::Fencing {
            return vec![Action::Connect(slice, self.pair())];
        }
        self.inspect_again()
    }

    /// Puts and Marks under way get no answer any more.
    pub(super) fn lost(&mut self, slice: SliceUid) -> Vec<Action> {
        let pair = self.pair();
        let peer = self.peer(slice);
        (peer.live, peer.putting, peer.way) = (false, None, Way::Out);
        match self.phase {
            Phase::Inspecting(_) => Vec::new(),
            _ => vec![Action::Connect(slice, pair)],
        }
    }

    pub(super) fn given_up(&mut self, slice: SliceUid) -> Vec<Action> {
        self.peer(slice).given_up = true;
        Vec::new()
    }

    pub(super) fn recorded(&mut self, slice: SliceUid) -> Vec<Action> {
        let peer = self.peer(slice);
        if let Some(record) = peer.putting.take() {
            peer.record = Some(record);
        }
        Vec::new()
    }

    /// Puts the newest record wherever it is not, one at a time for each slice: a later one never
    /// overtakes an earlier one.
    pub(super) fn put_everywhere(&mut self, actions: &mut Vec<Action>) {
        let Some(newest) = self.proposal.as_ref().or(self.base.as_ref()) else {
            return;
        };
        // A record that was taken over is another engine's: only its own may be put.
        if newest.fence != self.pair() {
            return;
        }
        let newest = newest.clone();
        let serving = self.phase == Phase::Serving;
        for (slice, peer) in &mut self.peers {
            let record = votes::copy_for(&newest, *slice);
            let known = serving && !left_out!(self, UnknownIsCopied);
            if known && !peer.may_have(*slice, &newest) {
                continue;
            }
            if !peer.live || peer.putting.is_some() || peer.record.as_ref() == Some(&record) {
                continue;
            }
            peer.putting = Some(record.clone());
            let expected = peer.record.clone();
            let swap = RecordSwap { expected, record };
            actions.push(Action::Put(*slice, Box::new(swap)));
        }
    }

    fn recorded_incarnation(&self, slice: SliceUid) -> Option<uuid::Uuid> {
        let members = &self.base.as_ref()?.in_sync;
        let member = members.iter().find(|member| member.slice == slice)?;
        Some(member.incarnation)
    }

    /// Whether a slice is connected and has lost nothing since the record says that it is in-sync.
    pub(super) fn kept(&self, slice: SliceUid) -> bool {
        let recorded = self.recorded_incarnation(slice);
        let now = self.heard(slice).map(|testimony| testimony.incarnation);
        self.live(slice) && recorded.is_some() && recorded == now
    }

    /// Whether a slice is there again and has lost something, or was waited for long enough.
    pub(super) fn failed(&self, slice: SliceUid) -> bool {
        let gone = |peer: &Peer| !peer.live && peer.given_up;
        self.peers.get(&slice).is_some_and(gone) || self.live(slice) && !self.kept(slice)
    }

    pub(super) fn inspect_again(&mut self) -> Vec<Action> {
        let slices = self.slices();
        self.phase = Phase::Inspecting(super::Obstacle::None);
        for slice in &slices {
            *self.peer(*slice) = Peer::default();
        }
        slices.into_iter().map(Action::Inspect).collect()
    }

    /// One more than the greatest that those who answer have heard for the term.
    pub(super) fn next_boot(&self) -> Boot {
        let heard = self.peers.values().filter_map(|peer| peer.heard.as_ref());
        let of_term = |fence: FencePair| (fence.term == self.assignment.term).then_some(fence.boot);
        let greatest = heard.filter_map(|testimony| of_term(testimony.fence)).max();
        Boot(
            greatest
                .unwrap_or_default()
                .0
                .saturating_add(1)
                .max(self.boot.0),
        )
    }
}
