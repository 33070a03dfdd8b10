//! The document's generation: durable on a majority of the voters before its hosts are admitted,
//! so that an engine which starts with an older document knows that it must wait (design section 4,
//! point 5).

use super::rules::left_out;
use super::{Action, Assignment, Membership, Phase, votes};
use std::collections::BTreeMap;
use weft_spec::ids::{DocumentGeneration, SliceUid};

/// See the module.
#[derive(Clone, Default, PartialEq, Eq, Hash, Debug)]
pub struct Marks {
    durable: BTreeMap<SliceUid, DocumentGeneration>,
    asked: BTreeMap<SliceUid, DocumentGeneration>,
    admitted: DocumentGeneration,
}

impl Marks {
    pub(super) fn heard(&mut self, slice: SliceUid, generation: DocumentGeneration) {
        self.durable.insert(slice, generation);
        self.asked.remove(&slice);
    }
}

impl Membership {
    /// A newer document than the one at hand was made durable: nobody is admitted until it comes.
    pub fn outdated(&self) -> Option<DocumentGeneration> {
        let newest = self.marks.durable.values().max().copied()?;
        (newest > self.assignment.generation).then_some(newest)
    }

    /// The document whose hosts may connect.
    pub fn admitted(&self) -> DocumentGeneration {
        self.marks.admitted
    }

    pub(super) fn marked(
        &mut self,
        slice: SliceUid,
        generation: DocumentGeneration,
    ) -> Vec<Action> {
        let durable = self.marks.durable.entry(slice).or_default();
        *durable = generation.max(*durable);
        Vec::new()
    }

    pub(super) fn assigned(&mut self, assignment: Assignment) -> Vec<Action> {
        if assignment.generation <= self.assignment.generation {
            return Vec::new();
        }
        let before = self.slices();
        self.assignment = assignment;
        if matches!(self.phase, Phase::Inspecting(_)) {
            return self.inspect_again();
        }
        let pair = self.pair();
        let new = self
            .slices()
            .into_iter()
            .filter(|slice| !before.contains(slice));
        new.map(|slice| Action::Connect(slice, pair)).collect()
    }

    pub(super) fn advance_marks(&mut self, actions: &mut Vec<Action>) {
        let outdated = self.outdated().is_some() && !left_out!(self, NewestDocument);
        if self.phase != Phase::Serving || outdated {
            return;
        }
        let Some(base) = &self.base else { return };
        let generation = self.assignment.generation;
        let marks = &mut self.marks;
        let has = |marks: &BTreeMap<_, _>, slice| marks.get(&slice).copied() >= Some(generation);
        for slice in base.voters.iter().chain(&base.old_voters).copied() {
            let live = self.peers.get(&slice).is_some_and(|peer| peer.live);
            if live && !has(&marks.durable, slice) && !has(&marks.asked, slice) {
                marks.asked.insert(slice, generation);
                actions.push(Action::Mark(slice, generation));
            }
        }
        let durable = votes::majority(base, |slice| has(&marks.durable, slice));
        if durable && marks.admitted != generation {
            marks.admitted = generation;
            actions.push(Action::Admit(generation));
        }
    }
}
