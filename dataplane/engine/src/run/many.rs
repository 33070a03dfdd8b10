//! A volume of several slices: what their membership tells becomes events of the plan.

use super::{Link, Runner};
use crate::members::{End, Members, State};
use crate::membership::{Access, Assignment, Recovery};
use crate::plan::{Action, Event};
use crate::way::Way;
use weft_spec::engine::{EngineDocument, Mirror, Stack};
use weft_spec::ids::AttachGeneration;
use weft_transport::AnaState;

impl Runner {
    /// The way to the one slice, if that is all.
    pub(super) fn way(&self) -> Option<Way> {
        let document = self.engine.document();
        crate::document::only_slice(document)?;
        Way::all(document, self.process).into_iter().next()
    }

    /// Lets the membership have the present document.
    pub(super) fn assemble(&mut self) {
        let document = self.engine.document();
        let Stack::Mirror(mirror) = &document.stack else {
            return;
        };
        let (assignment, ways) = (
            assignment(document, mirror),
            Way::all(document, self.process),
        );
        match &self.members {
            Some(members) => members.assign(assignment, ways),
            None => {
                self.members = Some(Members::start(
                    self.network.clone(),
                    assignment,
                    ways,
                    self.fenced.clone(),
                ))
            }
        }
    }

    pub(super) fn members(&mut self, state: State) -> anyhow::Result<Vec<Action>> {
        match state.end {
            Some(End::Parked) => return Ok(self.engine.step(Event::Fenced)),
            Some(End::Again) => anyhow::bail!("only another start can tell what the members have"),
            None => {}
        }
        let Some(generation) = state.admitted else {
            return Ok(Vec::new());
        };
        let mut actions = Vec::new();
        if self.link.is_none()
            && let Some(members) = &self.members
        {
            let document = self.engine.document();
            let (below, fenced) = (members.mirror.clone(), &self.fenced);
            let loss = state.record.as_ref().and_then(|record| record.loss);
            self.link = Some(Link::new(document, state.pair, below, None, loss, fenced));
            actions.extend(self.engine.step(Event::Assembled(state.pair.boot)));
        }
        let serves = state.access != Access::Paused;
        if let Some(link) = &self.link {
            link.gate.events().set_ana(if serves {
                AnaState::Optimized
            } else {
                AnaState::Inaccessible
            });
        }
        let path = if serves {
            Event::PathUp
        } else {
            Event::PathLost("no majority of the slices, or no member with the data".to_owned())
        };
        actions.extend(self.engine.step(path));
        if !self.engine.in_force(generation) {
            actions.extend(self.engine.step(Event::Recorded(generation)));
        }
        Ok(actions)
    }
}

fn assignment(document: &EngineDocument, mirror: &Mirror) -> Assignment {
    let data = mirror.members.iter().map(|member| member.slice);
    let joining = mirror.joining.iter().map(|member| member.slice);
    let witnesses = mirror.witnesses.iter().map(|witness| witness.slice);
    let generations = document.hosts.iter().map(|host| host.generation);
    Assignment {
        volume: document.volume,
        term: document.term,
        generation: document.generation,
        attachments: generations.max().unwrap_or(AttachGeneration(0)),
        formed: mirror.formed,
        lineage: mirror.lineage,
        voters: data.clone().chain(witnesses).collect(),
        data: data.chain(joining).collect(),
        recovery: mirror.recovery.map(|recovery| Recovery {
            from: recovery.from,
            lineage: recovery.lineage,
        }),
    }
}
