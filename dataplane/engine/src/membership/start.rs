//! From the first inspection to the first record (design section 6, lines 3, 4 and 7).

use super::rules::left_out;
use super::{Action, Membership, Obstacle, Phase, Testimony, votes};
use std::collections::BTreeMap;
use weft_spec::drive::{Config, InSync, MemberState, OutOfSync, SliceRecord};
use weft_spec::ids::{FencePair, SliceUid};

/// What each slice that counts has said.
type Answers<'a> = BTreeMap<SliceUid, &'a Testimony>;

/// The record taken over, and the one that shall follow it.
struct Succession {
    from: SliceRecord,
    first: SliceRecord,
}

impl Membership {
    /// Raises the fence once everybody has answered or was waited for, and only if this engine
    /// could lead: it would else shut out one that can.
    pub(super) fn begin_fencing(&mut self, actions: &mut Vec<Action>) {
        let slices = self.slices();
        let resolved = |slice: &SliceUid| {
            let peer = self.peers.get(slice);
            peer.is_some_and(|peer| peer.given_up || peer.heard.is_some())
        };
        if !slices.iter().all(resolved) {
            return;
        }
        if let Err(obstacle) = self.succession(&self.answers(|_| true))
            && !left_out!(self, AbleBeforeFence)
        {
            self.phase = Phase::Inspecting(obstacle);
            return;
        }
        self.boot = self.next_boot();
        self.phase = Phase::Fencing;
        let pair = self.pair();
        for slice in slices {
            self.peer(slice).given_up = false;
            actions.push(Action::Connect(slice, pair));
        }
    }

    /// Decides on the first record, once everybody who answered has promised the pair or was
    /// waited for.
    pub(super) fn take_over(&mut self, actions: &mut Vec<Action>) {
        let resolved =
            |peer: &super::peers::Peer| peer.live || peer.given_up || peer.heard.is_none();
        if !self.peers.values().all(resolved) && !left_out!(self, PromisesFirst) {
            return;
        }
        let promised = |slice| self.live(slice) || left_out!(self, PromisesFirst);
        let Ok(succession) = self.succession(&self.answers(promised)) else {
            return;
        };
        self.phase = Phase::Recording;
        self.base = Some(succession.from);
        self.proposal = Some(succession.first);
        self.put_everywhere(actions);
    }

    fn answers(&self, counts: impl Fn(SliceUid) -> bool) -> Answers<'_> {
        let heard = |slice: SliceUid| Some((slice, self.heard(slice)?));
        self.slices()
            .into_iter()
            .filter(|slice| counts(*slice))
            .filter_map(heard)
            .collect()
    }

    fn succession(&self, answers: &Answers) -> Result<Succession, Obstacle> {
        if let Some(forced) = self.forced(answers) {
            return Ok(forced);
        }
        let Some(greatest) = self.greatest(answers) else {
            return self.formed(answers, &[]);
        };
        let blank = |member: &&InSync| {
            let answer = answers.get(&member.slice);
            answer.is_some_and(|testimony| testimony.record.is_none())
        };
        // Never in force: a record is that only once each of its members has it.
        let fresh = !self.assignment.formed || left_out!(self, FormedOnce);
        if let Some(member) = greatest.in_sync.iter().find(blank).filter(|_| fresh) {
            return self.formed(answers, &[member.slice]);
        }
        self.majority_answers(greatest, answers)?;
        self.led(greatest, answers)
    }

    fn greatest<'a>(&self, answers: &Answers<'a>) -> Option<&'a SliceRecord> {
        let records = answers.values().filter_map(|answer| answer.record.as_ref());
        if left_out!(self, BootOrders) {
            let order = |record: &&SliceRecord| (record.fence.term, record.config);
            // The first of equals, as whoever takes no further order.
            let last_first: Vec<_> = records.collect();
            return last_first.into_iter().rev().max_by_key(order);
        }
        records.max_by_key(|record| votes::order(record))
    }

    fn majority_answers(&self, from: &SliceRecord, answers: &Answers) -> Result<(), Obstacle> {
        let votes = |slice| {
            let record = answers.get(&slice).map(|answer| answer.record.as_ref());
            let blank = left_out!(self, VotesEarned) && record == Some(None);
            blank || record.is_some_and(|record| votes::votes(record, from))
        };
        if left_out!(self, QuorumOfVoters) || votes::majority(from, votes) {
            return Ok(());
        }
        let voters = from.voters.iter().chain(&from.old_voters).copied();
        Err(Obstacle::NoMajority(
            voters.filter(|slice| !votes(*slice)).collect(),
        ))
    }

    /// Whether nothing that a member had can be gone. One without a record of the lineage is not
    /// the member, whatever it says of itself.
    fn qualifies(&self, from: &SliceRecord, member: &InSync, answers: &Answers) -> bool {
        answers.get(&member.slice).is_some_and(|answer| {
            let record = answer.record.as_ref();
            let lineage = record.map(|record| record.lineage) == Some(from.lineage);
            let kept = answer.incarnation == member.incarnation || answer.hot.is_empty();
            lineage && kept || left_out!(self, IncarnationCounts)
        })
    }

    fn led(&self, from: &SliceRecord, answers: &Answers) -> Result<Succession, Obstacle> {
        let members = from.in_sync.iter();
        let mut leaders: Vec<_> = members
            .clone()
            .filter(|member| self.qualifies(from, member, answers))
            .collect();
        let unheard: Vec<_> = members
            .map(|member| member.slice)
            .filter(|slice| !answers.contains_key(slice))
            .collect();
        let mut loss = from.loss;
        if leaders.is_empty() {
            if !unheard.is_empty() && !left_out!(self, LossAfterAll) {
                return Err(Obstacle::NoLeader(unheard));
            }
            let newest = answers.values().map(|answer| answer.generation).max();
            let newer = newest.filter(|newest| *newest > self.assignment.generation);
            if let Some(newest) = newer.filter(|_| !left_out!(self, NewestDocument)) {
                return Err(Obstacle::Outdated(newest));
            }
            let answered = |member: &&InSync| answers.contains_key(&member.slice);
            leaders.extend(from.in_sync.iter().find(answered));
            loss = loss.max(Some(self.assignment.attachments));
        }
        if leaders.is_empty() {
            return Err(Obstacle::NoLeader(unheard));
        }
        let leaders = leaders.into_iter().map(|member| member.slice).collect();
        let mut first = self.following(from, leaders, answers);
        first.loss = loss;
        let from = from.clone();
        Ok(Succession { from, first })
    }

    /// The record after `from` with these members in-sync.
    fn following(
        &self,
        from: &SliceRecord,
        leaders: Vec<SliceUid>,
        answers: &Answers,
    ) -> SliceRecord {
        let config = above_all(answers);
        let left = from.in_sync.iter().map(|member| member.slice);
        let left = left.filter(|slice| !leaders.contains(slice));
        let since = config;
        let left = left.map(|slice| OutOfSync { slice, since });
        let member = |slice: &SliceUid| {
            let incarnation = answers.get(slice)?.incarnation;
            let slice = *slice;
            Some(InSync { slice, incarnation })
        };
        SliceRecord {
            fence: self.pair(),
            config,
            in_sync: leaders.iter().filter_map(member).collect(),
            out_of_sync: from.out_of_sync.iter().copied().chain(left).collect(),
            ..from.clone()
        }
    }

    /// A volume that never was: every slice is empty, or holds what was never in force.
    fn formed(&self, answers: &Answers, partly: &[SliceUid]) -> Result<Succession, Obstacle> {
        let slices = self.slices();
        let missing: Vec<_> = slices
            .iter()
            .copied()
            .filter(|slice| !answers.contains_key(slice))
            .collect();
        let loose = left_out!(self, FormedOnce);
        if (self.assignment.formed || !missing.is_empty()) && !loose {
            let missing = if missing.is_empty() {
                partly.to_vec()
            } else {
                missing
            };
            return Err(Obstacle::NotFormed(missing));
        }
        let data = self.assignment.data.iter().copied();
        let data: Vec<_> = data.filter(|slice| answers.contains_key(slice)).collect();
        let from = self.origin(self.assignment.lineage, &data);
        let first = self.following(&from, data, answers);
        Ok(Succession { from, first })
    }

    /// A person's word stands in for the majority and for the members that are lost.
    fn forced(&self, answers: &Answers) -> Option<Succession> {
        let recovery = self.assignment.recovery?;
        let begun = |answer: &Testimony| {
            let record = answer.record.as_ref();
            record.is_some_and(|record| record.lineage == recovery.lineage)
        };
        let leader = answers.get(&recovery.from)?;
        if answers.values().any(|answer| begun(answer)) || leader.record.is_none() {
            return None;
        }
        let lineage = match &leader.record {
            Some(record) if left_out!(self, NewLineage) => record.lineage,
            _ => recovery.lineage,
        };
        let mut from = self.origin(lineage, &self.assignment.data);
        if !votes::majority(&from, |slice| answers.contains_key(&slice)) {
            return None;
        }
        let others = self.assignment.data.iter().copied();
        let others = others.filter(|slice| *slice != recovery.from);
        let since = match left_out!(self, NewLineage) {
            true => above_all(answers),
            false => Config(0),
        };
        from.in_sync.clear();
        from.out_of_sync = others.map(|slice| OutOfSync { slice, since }).collect();
        from.loss = Some(self.assignment.attachments);
        let first = self.following(&from, vec![recovery.from], answers);
        Some(Succession { from, first })
    }

    /// What a lineage begins after.
    fn origin(&self, lineage: uuid::Uuid, data: &[SliceUid]) -> SliceRecord {
        let incarnation = uuid::Uuid::nil();
        let member = |slice: &SliceUid| InSync {
            slice: *slice,
            incarnation,
        };
        SliceRecord {
            volume: self.assignment.volume,
            lineage,
            fence: FencePair::default(),
            config: Config(0),
            in_sync: data.iter().map(member).collect(),
            out_of_sync: Vec::new(),
            voters: self.assignment.voters.clone(),
            old_voters: Vec::new(),
            loss: None,
            state: MemberState::Current,
        }
    }
}

/// A config that no write was ever sent under.
fn above_all(answers: &Answers) -> Config {
    let configs = answers.values().filter_map(|answer| answer.record.as_ref());
    let greatest = configs.map(|record| record.config.0).max();
    Config(greatest.unwrap_or(0).saturating_add(1))
}
