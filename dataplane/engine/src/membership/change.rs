//! The next record of an engine that serves (design section 6, lines 2, 6, 8 and 9).
//!
//! ```text
//! Idle ─ a change is due ─► Draining ─► Flushing ─► Recording ─ in force ─► Resending ─► Idle
//!                              └──── who returns ────┘    │
//!                                                         └ it fails again: a higher one ┘
//! ```
//!
//! From the moment that a record is asked for until one is in force nothing is acknowledged: a
//! takeover may find either.

use super::peers::Way;
use super::rules::left_out;
use super::{Access, Action, Membership, Phase, Rebuild, Region, View, votes};
use std::collections::BTreeSet;
use weft_spec::drive::{Config, InSync, OutOfSync, SliceRecord};
use weft_spec::ids::SliceUid;

/// How far a change is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Stage {
    /// There is none.
    Idle,
    /// New writes are held; those in flight at these slices end.
    Draining(Vec<SliceUid>),
    /// Who becomes in-sync is flushed.
    Flushing,
    /// The proposal is put in force.
    Recording,
    /// Writes are sent again under the new config.
    Resending,
}

impl Membership {
    pub(super) fn advance_change(&mut self, actions: &mut Vec<Action>) {
        if self.nobody_qualifies() {
            return self.start_again(actions);
        }
        match self.stage.clone() {
            Stage::Draining(survivors) if survivors != self.survivors(&survivors) => {
                self.drain(actions);
            }
            Stage::Flushing => self.propose_when_flushed(actions),
            Stage::Idle | Stage::Recording => self.settle(actions),
            Stage::Draining(_) | Stage::Resending => {}
        }
        // Also of what came into force this very moment: nothing else may come that asks again.
        let is_settled = matches!(self.stage, Stage::Idle | Stage::Resending);
        if is_settled && self.phase == Phase::Serving && self.due() {
            self.drain(actions);
        }
        self.put_everywhere(actions);
        self.begin_rebuilds(actions);
        self.advance_marks(actions);
    }

    /// Each member that this engine counted on has answered, and none of them kept everything.
    fn nobody_qualifies(&self) -> bool {
        let counted = match self.phase {
            Phase::Recording => &self.proposal,
            _ => &self.base,
        };
        let Some(record) = counted else { return false };
        let lost = |member: &InSync| {
            let now = self.heard(member.slice).map(|heard| heard.incarnation);
            self.live(member.slice) && now != Some(member.incarnation)
        };
        let given_up = |member: &InSync| {
            !self.live(member.slice) && self.peers.get(&member.slice).is_some_and(|p| p.given_up)
        };
        match self.phase {
            // Nobody waits for this engine yet: whoever starts in its place decides anew.
            Phase::Recording => record.in_sync.iter().any(|m| lost(m) || given_up(m)),
            _ => record.in_sync.iter().all(lost),
        }
    }

    fn drain(&mut self, actions: &mut Vec<Action>) {
        let Some(base) = &self.base else { return };
        let members = base.in_sync.iter().map(|member| member.slice);
        let returning = base.out_of_sync.iter().map(|out| out.slice);
        let counted: Vec<_> = members.chain(returning).collect();
        let survivors = self.survivors(&counted);
        for (slice, peer) in &mut self.peers {
            if peer.way == Way::Rebuilding && !survivors.contains(slice) {
                peer.way = Way::Out;
            }
        }
        self.stage = Stage::Draining(survivors.clone());
        actions.push(Action::Drain(survivors));
        if left_out!(self, DrainedFirst) {
            self.stage = Stage::Flushing;
            self.propose_when_flushed(actions);
        }
    }

    /// Those of `slices` whose writes in flight must end before the next record.
    fn survivors(&self, slices: &[SliceUid]) -> Vec<SliceUid> {
        let survives = |slice: &&SliceUid| {
            let member = self
                .base
                .as_ref()
                .is_some_and(|b| votes::in_sync(b, **slice));
            let returns = self.peers.get(slice).is_some_and(|p| p.way >= Way::Rebuilt);
            if member {
                !self.failed(**slice)
            } else {
                returns
            }
        };
        slices.iter().filter(survives).copied().collect()
    }

    pub(super) fn drained(&mut self) -> Vec<Action> {
        if !matches!(self.stage, Stage::Draining(_)) {
            return Vec::new();
        }
        self.stage = Stage::Flushing;
        let returning = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.way == Way::Rebuilt);
        if left_out!(self, FlushedBeforeInSync) {
            returning.for_each(|(_, peer)| peer.way = Way::Flushed);
            return Vec::new();
        }
        returning.map(|(slice, _)| Action::Flush(*slice)).collect()
    }

    pub(super) fn flushed(&mut self, slice: SliceUid) -> Vec<Action> {
        let peer = self.peer(slice);
        if peer.way == Way::Rebuilt {
            peer.way = Way::Flushed;
        }
        Vec::new()
    }

    pub(super) fn rebuilt(&mut self, slice: SliceUid) -> Vec<Action> {
        let peer = self.peer(slice);
        if peer.way == Way::Rebuilding {
            peer.way = Way::Rebuilt;
        }
        Vec::new()
    }

    pub(super) fn resent(&mut self) -> Vec<Action> {
        if self.stage == Stage::Resending {
            self.stage = Stage::Idle;
        }
        Vec::new()
    }

    fn propose_when_flushed(&mut self, actions: &mut Vec<Action>) {
        if self.peers.values().any(|peer| peer.way == Way::Rebuilt) {
            return;
        }
        self.stage = Stage::Recording;
        self.settle(actions);
    }

    /// Asks for the record that is due, and takes one that is in force.
    fn settle(&mut self, actions: &mut Vec<Action>) {
        if let Some(proposal) = &self.proposal {
            if self.in_force(proposal) {
                return self.adopt(actions);
            }
            if self.phase == Phase::Recording {
                return;
            }
        } else if self.stage == Stage::Idle {
            return;
        }
        let config = self.next_config();
        let Some(next) = self.next(config) else {
            return;
        };
        let last = self.proposal.as_ref().or(self.base.as_ref());
        let nothing_asked = self.proposal.is_none();
        if last.is_some_and(|last| shape(last) == shape(&next)) {
            // The cause went away before anything was asked for.
            if nothing_asked {
                self.resume(actions);
            }
            return;
        }
        self.proposal = Some(next);
    }

    fn next_config(&self) -> Config {
        let asked = self.proposal.as_ref();
        let asked = asked.filter(|_| !left_out!(self, HigherConfig));
        let last = asked.or(self.base.as_ref());
        Config(last.map_or(0, |last| last.config.0).saturating_add(1))
    }

    /// Durable on a majority of the voters and on every member that it lists.
    fn in_force(&self, record: &SliceRecord) -> bool {
        let has = |slice: SliceUid| {
            let at = self.peers.get(&slice).and_then(|peer| peer.record.as_ref());
            at == Some(&votes::copy_for(record, slice))
        };
        let votes = |slice: SliceUid| {
            let copy = votes::copy_for(record, slice);
            has(slice) && votes::votes(Some(&copy), record)
        };
        let mut members = record.in_sync.iter().map(|member| member.slice);
        if left_out!(self, QuorumOfVoters) {
            return members.all(has);
        }
        let heard = left_out!(self, EveryMemberHears) || members.all(has);
        heard && votes::majority(record, votes)
    }

    fn adopt(&mut self, actions: &mut Vec<Action>) {
        self.base = self.proposal.take();
        for peer in self.peers.values_mut() {
            peer.way = Way::Out;
        }
        self.resume(actions);
        if self.phase == Phase::Recording {
            self.phase = Phase::Serving;
            let unequal = self.unequal();
            if !unequal.is_empty() {
                actions.push(Action::Equalise(unequal));
            }
        }
    }

    fn resume(&mut self, actions: &mut Vec<Action>) {
        let Some(view) = self.view() else { return };
        self.stage = Stage::Resending;
        actions.push(Action::Adopt(view));
    }

    fn view(&self) -> Option<View> {
        let base = self.base.as_ref()?;
        let in_sync: Vec<_> = base.in_sync.iter().map(|member| member.slice).collect();
        Some(View {
            config: base.config,
            leader: *in_sync.first()?,
            in_sync,
            loss: base.loss,
        })
    }

    /// Regions in which the members may differ, or the leader from those that are out.
    fn unequal(&self) -> Vec<Region> {
        let members = self.base.iter().flat_map(|base| &base.in_sync);
        let heard = members.filter_map(|member| self.heard(member.slice));
        let union: BTreeSet<_> = heard.flat_map(|testimony| &testimony.hot).collect();
        union.into_iter().copied().collect()
    }

    fn due(&self) -> bool {
        let next = self.next(self.next_config());
        let base = self.base.as_ref().map(shape);
        let failed = |base: &SliceRecord| base.in_sync.iter().any(|m| self.failed(m.slice));
        // A failure is due also when nobody is left to record it: writes are held then.
        self.base.as_ref().is_some_and(failed) || next.as_ref().map(shape) != base && next.is_some()
    }

    /// The record that is due, as things are now; none while no member is left to lead.
    fn next(&self, config: Config) -> Option<SliceRecord> {
        let base = self.base.as_ref()?;
        let assigned = |slice: &SliceUid| self.assignment.data.contains(slice);
        let stays = base
            .in_sync
            .iter()
            .filter(|member| !self.failed(member.slice));
        let mut in_sync: Vec<_> = stays.copied().collect();
        let leave = |member: &InSync| !assigned(&member.slice);
        if in_sync
            .iter()
            .any(|member| !leave(member) && self.kept(member.slice))
        {
            in_sync.retain(|member| !leave(member));
        }
        #[cfg(test)]
        {
            let broken = in_sync.is_empty() && left_out!(self, LastMemberStays);
            in_sync.extend(self.anybody().filter(|_| broken));
        }
        if in_sync.is_empty() {
            return None;
        }
        in_sync.extend(self.returning());
        let missing = |slice: &SliceUid| !in_sync.iter().any(|m| m.slice == *slice);
        let since = |slice: SliceUid| {
            if self.foreign(base, slice) {
                return Config(0);
            }
            let out = base.out_of_sync.iter().find(|out| out.slice == slice);
            let known = out.map(|out| out.since);
            let was_in = votes::in_sync(base, slice).then_some(config);
            known.or(was_in).unwrap_or(Config(0))
        };
        let out = self.assignment.data.iter().copied().filter(missing);
        let out_of_sync = out.map(|slice| OutOfSync {
            slice,
            since: since(slice),
        });
        let (voters, old_voters) = self.next_voters(base);
        Some(SliceRecord {
            fence: self.pair(),
            config,
            out_of_sync: out_of_sync.collect(),
            in_sync,
            voters,
            old_voters,
            ..base.clone()
        })
    }

    /// Whoever holds data and is there, as if that made it a source.
    #[cfg(test)]
    fn anybody(&self) -> Option<InSync> {
        let data = self.assignment.data.iter();
        let slice = *data.copied().find(|slice| self.live(*slice)).as_ref()?;
        let incarnation = self.heard(slice)?.incarnation;
        Some(InSync { slice, incarnation })
    }

    fn returning(&self) -> impl Iterator<Item = InSync> {
        let ready = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.live && peer.way >= Way::Rebuilt);
        ready.filter_map(|(slice, peer)| {
            let incarnation = peer.heard.as_ref()?.incarnation;
            let slice = *slice;
            Some(InSync { slice, incarnation })
        })
    }

    /// A change of voters is begun only while the new list has a majority to decide it.
    fn next_voters(&self, base: &SliceRecord) -> (Vec<SliceUid>, Vec<SliceUid>) {
        let wanted = &self.assignment.voters;
        let alive = wanted.iter().filter(|slice| self.live(**slice)).count();
        if *wanted == base.voters || !base.old_voters.is_empty() || 2 * alive <= wanted.len() {
            return (base.voters.clone(), Vec::new());
        }
        if left_out!(self, BothLists) {
            return (wanted.clone(), Vec::new());
        }
        (wanted.clone(), base.voters.clone())
    }

    fn begin_rebuilds(&mut self, actions: &mut Vec<Action>) {
        let Some(base) = &self.base else { return };
        if self.phase != Phase::Serving || self.stage != Stage::Idle {
            return;
        }
        for out in &base.out_of_sync {
            let copy = votes::copy_for(base, out.slice);
            let Some(peer) = self.peers.get_mut(&out.slice) else {
                continue;
            };
            if !peer.live || peer.way != Way::Out || peer.record.as_ref() != Some(&copy) {
                continue;
            }
            peer.way = Way::Rebuilding;
            let own = peer.heard.as_ref().and_then(|heard| heard.record.as_ref());
            let since = match own {
                Some(own) if left_out!(self, SinceInForce) => Config(own.config.0 + 1),
                _ => out.since,
            };
            let hot = peer.heard.as_ref().map(|heard| heard.hot.clone());
            actions.push(Action::Rebuild(Rebuild {
                target: out.slice,
                since,
                hot: hot.unwrap_or_default(),
            }));
        }
    }

    pub(super) fn tell_access(&mut self, actions: &mut Vec<Action>) {
        let access = self.allowed();
        let readers = self.readable(access);
        if readers != self.readers {
            self.readers.clone_from(&readers);
            actions.insert(0, Action::Read(readers));
        }
        if access != self.access {
            self.access = access;
            actions.push(Action::Access(access));
        }
    }

    /// Members that have lost nothing, whatever is being recorded.
    fn readable(&self, access: Access) -> Vec<SliceUid> {
        let members = self.base.iter().flat_map(|base| &base.in_sync);
        let members = members.map(|member| member.slice);
        let kept = members.filter(|slice| access != Access::Paused && self.kept(*slice));
        kept.collect()
    }

    fn allowed(&self) -> Access {
        let Some(base) = &self.base else {
            return Access::Paused;
        };
        let votes = |slice| self.live(slice);
        let alone = !votes::majority(base, votes) && !left_out!(self, AlonePauses);
        let member = base.in_sync.iter().any(|member| self.kept(member.slice));
        match self.stage {
            _ if self.phase != Phase::Serving || alone || !member => Access::Paused,
            Stage::Idle => Access::Open,
            _ => Access::Held,
        }
    }
}

/// What a record decides, apart from when.
fn shape(record: &SliceRecord) -> impl PartialEq + use<> {
    let out = record.out_of_sync.iter();
    let mut out: Vec<_> = out.map(|out| (out.slice, out.since == Config(0))).collect();
    out.sort_unstable();
    (
        record.in_sync.clone(),
        out,
        record.voters.clone(),
        record.old_voters.clone(),
    )
}
