//! What the model does not ask: obstacles that are told, boots, documents, retired slices.

use super::*;
use uuid::Uuid;
use weft_spec::drive::{Config, MemberState};
use weft_spec::ids::{AttachGeneration, DocumentGeneration, Term, VolumeUid};

fn slice(number: u128) -> SliceUid {
    SliceUid(Uuid::from_u128(number))
}

fn assignment(formed: bool) -> Assignment {
    Assignment {
        volume: VolumeUid(Uuid::from_u128(0xA)),
        term: Term(7),
        generation: DocumentGeneration(1),
        attachments: AttachGeneration(3),
        formed,
        lineage: Uuid::from_u128(0xB),
        data: vec![slice(1), slice(2)],
        voters: vec![slice(1), slice(2), slice(3)],
        recovery: None,
    }
}

fn empty(boot: u64) -> Testimony {
    let (term, boot) = (Term(7), Boot(boot));
    Testimony {
        fence: FencePair { term, boot },
        record: None,
        incarnation: Uuid::from_u128(0x100),
        hot: Vec::new(),
        generation: DocumentGeneration(1),
    }
}

fn inspect(membership: &mut Membership, answers: &[(u128, Testimony)]) -> Vec<Action> {
    let step = |(number, testimony): &(u128, Testimony)| {
        membership.step(Event::Inspected(slice(*number), testimony.clone()))
    };
    answers.iter().flat_map(step).collect()
}

/// Does what is asked for at drives that do everything at once, until nothing is asked for.
fn run(membership: &mut Membership, actions: Vec<Action>) -> Vec<Action> {
    let mut done = Vec::new();
    let mut todo = std::collections::VecDeque::from(actions);
    while let Some(action) = todo.pop_front() {
        let event = match &action {
            Action::Connect(to, pair) => {
                let testimony = Testimony {
                    fence: *pair,
                    ..empty(0)
                };
                Some(Event::Promised(*to, testimony))
            }
            Action::Put(to, _) => Some(Event::Recorded(*to)),
            Action::Drain(_) => Some(Event::Drained),
            Action::Adopt(_) => Some(Event::Resent),
            _ => None,
        };
        todo.extend(event.into_iter().flat_map(|event| membership.step(event)));
        done.push(action);
    }
    done
}

fn served() -> Membership {
    let (mut membership, _) = Membership::new(assignment(false));
    let answers = [(1, empty(0)), (2, empty(0)), (3, empty(0))];
    let actions = inspect(&mut membership, &answers);
    run(&mut membership, actions);
    assert_eq!(membership.access(), Access::Open);
    membership
}

#[test]
fn empty_slices_form_a_volume_only_once_and_only_all_together() {
    let (mut membership, _) = Membership::new(assignment(false));
    inspect(&mut membership, &[(1, empty(0)), (2, empty(0))]);
    membership.step(Event::GivenUp(slice(3)));
    let missing = Obstacle::NotFormed(vec![slice(3)]);
    assert_eq!(*membership.phase(), Phase::Inspecting(missing));
    inspect(&mut membership, &[(3, empty(0))]);
    assert_eq!(*membership.phase(), Phase::Fencing);

    let (mut membership, _) = Membership::new(assignment(true));
    let answers = [(1, empty(0)), (2, empty(0)), (3, empty(0))];
    assert_eq!(inspect(&mut membership, &answers), []);
    let obstacle = Phase::Inspecting(Obstacle::NotFormed(vec![]));
    assert_eq!(*membership.phase(), obstacle);
}

#[test]
fn the_boot_is_one_more_than_the_greatest_heard_for_the_term() {
    let (mut membership, _) = Membership::new(assignment(false));
    let mut older = empty(9);
    older.fence.term = Term(6);
    inspect(&mut membership, &[(1, empty(4)), (2, older), (3, empty(2))]);
    assert_eq!(membership.pair().boot, Boot(5));
}

#[test]
fn a_higher_term_parks_even_an_engine_that_only_inspects() {
    let (mut membership, _) = Membership::new(assignment(true));
    let mut newer = empty(1);
    newer.fence.term = Term(8);
    let actions = inspect(&mut membership, &[(1, newer.clone())]);
    assert_eq!(actions, [Action::Park]);
    assert_eq!(*membership.phase(), Phase::Parked(Some(newer.fence)));
    assert_eq!(inspect(&mut membership, &[(2, empty(0))]), []);
}

#[test]
fn a_pair_taken_by_another_process_before_anything_was_told_leads_to_the_next_boot() {
    let (mut membership, _) = Membership::new(assignment(false));
    let answers = [(1, empty(0)), (2, empty(0)), (3, empty(0))];
    inspect(&mut membership, &answers);
    let again = membership.step(Event::Refused(slice(2), empty(1)));
    assert_eq!(again.len(), 3);
    inspect(
        &mut membership,
        &[(1, empty(1)), (2, empty(1)), (3, empty(0))],
    );
    assert_eq!(membership.pair().boot, Boot(2));
}

#[test]
fn who_is_missing_is_told() {
    let record = served().record().cloned();
    let with = |number| Testimony {
        record: record
            .as_ref()
            .map(|record| votes::copy_for(record, slice(number))),
        ..empty(1)
    };
    let (mut membership, _) = Membership::new(assignment(true));
    inspect(&mut membership, &[(1, with(1))]);
    membership.step(Event::GivenUp(slice(2)));
    membership.step(Event::GivenUp(slice(3)));
    let obstacle = Obstacle::NoMajority(vec![slice(2), slice(3)]);
    assert_eq!(*membership.phase(), Phase::Inspecting(obstacle));
}

#[test]
fn a_member_taken_out_of_the_document_is_retired() {
    let mut membership = served();
    let mut smaller = assignment(true);
    smaller.generation = DocumentGeneration(2);
    smaller.data = vec![slice(1)];
    smaller.voters = vec![slice(1)];
    let actions = membership.step(Event::Assigned(smaller));
    let actions = run(&mut membership, actions);
    let retired = actions.iter().any(|action| match action {
        Action::Put(to, swap) => *to == slice(2) && swap.record.state == MemberState::Retired,
        _ => false,
    });
    assert!(retired, "{actions:?}");
    let record = membership.record().cloned().unwrap();
    assert_eq!(record.voters, [slice(1)]);
    assert!(record.old_voters.is_empty() && record.out_of_sync.is_empty());
    assert_eq!(membership.access(), Access::Open);
}

#[test]
fn a_new_member_is_out_of_sync_from_the_beginning_of_time() {
    let mut membership = served();
    let mut larger = assignment(true);
    larger.generation = DocumentGeneration(2);
    larger.data.push(slice(4));
    let actions = membership.step(Event::Assigned(larger));
    let actions = run(&mut membership, actions);
    let rebuild = actions.iter().find_map(|action| match action {
        Action::Rebuild(rebuild) => Some((rebuild.target, rebuild.since)),
        _ => None,
    });
    assert_eq!(rebuild, Some((slice(4), Config(0))));
}

#[test]
fn a_document_is_in_force_once_a_majority_of_the_voters_has_its_generation() {
    let mut membership = served();
    assert_eq!(membership.admitted(), DocumentGeneration(1));
    let mut newer = assignment(true);
    newer.generation = DocumentGeneration(2);
    let actions = membership.step(Event::Assigned(newer));
    assert_eq!(actions.len(), 3);
    let marked = |membership: &mut Membership, number| {
        membership.step(Event::Marked(slice(number), DocumentGeneration(2)))
    };
    assert_eq!(marked(&mut membership, 3), []);
    let admit = Action::Admit(DocumentGeneration(2));
    assert_eq!(marked(&mut membership, 1), [admit]);
}

/// What a slice says after its drive has lost something that may not have been flushed.
fn with_loss(record: &SliceRecord, number: u128) -> Testimony {
    Testimony {
        record: Some(votes::copy_for(record, slice(number))),
        incarnation: Uuid::from_u128(0x200),
        hot: vec![Region(0)],
        generation: DocumentGeneration(2),
        ..empty(1)
    }
}

#[test]
fn a_loss_is_recorded_only_by_an_engine_that_knows_all_hosts() {
    let record = served().record().cloned().unwrap();
    let answers = [1, 2, 3].map(|number| (number, with_loss(&record, number)));
    let (mut membership, _) = Membership::new(assignment(true));
    assert_eq!(inspect(&mut membership, &answers), []);
    let obstacle = Obstacle::Outdated(DocumentGeneration(2));
    assert_eq!(*membership.phase(), Phase::Inspecting(obstacle));

    let mut newer = assignment(true);
    (newer.generation, newer.attachments) = (DocumentGeneration(2), AttachGeneration(4));
    membership.step(Event::Assigned(newer));
    let connects = inspect(&mut membership, &answers);
    assert_eq!(connects.len(), 3);
    for (number, testimony) in answers {
        let fence = membership.pair();
        let testimony = Testimony { fence, ..testimony };
        let actions = membership.step(Event::Promised(slice(number), testimony));
        run(&mut membership, actions);
    }
    let loss = membership.record().and_then(|record| record.loss);
    assert_eq!(loss, Some(AttachGeneration(4)));
}

#[test]
fn a_record_that_a_member_with_a_loss_brings_into_force_is_followed_by_one_without_it() {
    let mut membership = served();
    let mut larger = assignment(true);
    larger.generation = DocumentGeneration(2);
    larger.data.push(slice(4));
    membership.step(Event::Assigned(larger));
    let asked = membership.step(Event::Drained);
    let proposal = asked.iter().find_map(|action| match action {
        Action::Put(_, swap) => Some(swap.record.clone()),
        _ => None,
    });
    membership.step(Event::Recorded(slice(1)));
    // The drive of the second has it as well, and dies before it can say so.
    membership.step(Event::Lost(slice(2)));
    let testimony = Testimony {
        fence: membership.pair(),
        ..with_loss(&proposal.unwrap(), 2)
    };
    let actions = membership.step(Event::Promised(slice(2), testimony));
    let adopts = |action: &Action| matches!(action, Action::Adopt(_));
    let survivors = Action::Drain(vec![slice(1)]);
    assert!(actions.iter().any(adopts), "{actions:?}");
    assert!(actions.contains(&survivors), "{actions:?}");
}
