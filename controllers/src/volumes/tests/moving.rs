use super::mirror::{drive, mirrored, node, said, slice, slice_uid, wire};
use super::pass;
use super::placing::pool;
use crate::shared::conditions;
use crate::volumes::moves;
use crate::volumes::plan::{Observed, Pass, Placement, Step};
use crate::volumes::status::RECOMPOSED;
use weft_crds::drive::Maintenance;
use weft_spec::drive::MemberState as Reported;
use weft_spec::engine::MemberStatus;
use weft_spec::ids::DocumentGeneration;

/// Two copies on `d1` and `d2`, the witness on `d3`; there are five drives.
fn movable() -> Observed {
    let mut o = mirrored();
    o.volume.status = Some(pass(&o).status);
    o.drives = (1..=5).map(drive).collect();
    o
}

/// What placement reads when slices are missing.
fn placed(mut o: Observed) -> Observed {
    let slices = o.slices.clone();
    o.placement = (!moves::missing(&o).is_empty()).then(|| Placement {
        pool: Some(pool("100%")),
        drives: o.drives.clone(),
        nodes: (1..=5).map(node).collect(),
        slices,
    });
    o
}

fn evicting() -> Observed {
    let mut o = movable();
    o.volume.spec.evict = vec!["d2".into()];
    o
}

fn says(o: &mut Observed, letter: char, state: Reported) {
    let report = o.report.as_mut().unwrap();
    let slice = slice_uid(letter).parse().unwrap();
    report.members.retain(|m| m.slice != slice);
    report.members.push(MemberStatus { slice, state });
}

/// The engine has taken the newest document; the operator has written what it decided.
fn told(o: &mut Observed, pass: &Pass) {
    o.volume.status = Some(pass.status.clone());
    let generation = u64::try_from(pass.status.document_generation).unwrap();
    let report = o.report.as_mut().unwrap();
    report.document_generation = DocumentGeneration(generation);
    o.secrets[0].generation = pass.status.document_generation;
}

/// Slices of the members, those that join in brackets.
fn members(pass: &Pass) -> String {
    let name = |m: &weft_crds::volume::VolumeMember| match m.joining {
        true => format!("({})", m.slice),
        false => m.slice.clone(),
    };
    pass.status
        .members
        .iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(" ")
}

fn created(pass: &Pass) -> Vec<(String, String)> {
    let made = pass.steps.iter().filter_map(|step| match step {
        Step::CreateSlice(s) => Some((s.metadata.name.clone()?, s.spec.drive.clone())),
        _ => None,
    });
    made.collect()
}

fn deleted(pass: &Pass) -> Vec<&str> {
    let gone = pass.steps.iter().filter_map(|step| match step {
        Step::DeleteSlice(name) => Some(name.as_str()),
        _ => None,
    });
    gone.collect()
}

fn recomposed(pass: &Pass) -> (String, String) {
    let told = conditions::get(&pass.status.conditions, RECOMPOSED).unwrap();
    (told.reason.clone(), told.message.clone())
}

#[test]
fn an_evicted_copy_is_replaced_before_it_leaves_and_freed_when_nobody_counts_on_it() {
    let mut o = evicting();
    let chosen = pass(&placed(o.clone()));
    // Not beside a member that stays; where the copy that leaves is, there would be room.
    assert_eq!(created(&chosen), [("db-c".into(), "d4".into())]);
    assert_eq!(members(&chosen), "db-a db-b db-w");

    o.slices.push(slice('c', 4, "Pending"));
    let waits = pass(&o);
    assert_eq!(members(&waits), "db-a db-b db-w");
    assert_eq!(recomposed(&waits).1, "slice db-c: waits");

    o.slices[3] = slice('c', 4, "Ready");
    let joins = pass(&o);
    assert_eq!(members(&joins), "db-a db-b (db-c) db-w");
    assert_eq!(joins.status.document_generation, 6);
    assert_eq!(joins.status.replicas.as_deref(), Some("2/2"));
    let (reason, message) = recomposed(&joins);
    assert_eq!(reason, "Copying");
    assert!(
        message.contains("db-c on drive d4 gets the data; then db-b on d2 leaves"),
        "{message}"
    );

    told(&mut o, &joins);
    o.report.as_mut().unwrap().drives.push(wire('c', 4));
    says(&mut o, 'c', Reported::Rebuilding);
    let copies = pass(&o);
    assert_eq!(
        (members(&copies).as_str(), deleted(&copies).len()),
        ("db-a db-b (db-c) db-w", 0)
    );

    says(&mut o, 'c', Reported::Current);
    let exchanged = pass(&o);
    assert_eq!(members(&exchanged), "db-a db-c db-w");
    assert_eq!(exchanged.status.document_generation, 7);
    assert_eq!(deleted(&exchanged), Vec::<&str>::new());

    told(&mut o, &exchanged);
    says(&mut o, 'b', Reported::Retired);
    assert_eq!(
        deleted(&pass(&o)),
        Vec::<&str>::new(),
        "its vote still counts"
    );
    o.report
        .as_mut()
        .unwrap()
        .members
        .retain(|m| m.slice.to_string() != slice_uid('b'));
    let freed = pass(&o);
    assert_eq!(deleted(&freed), ["db-b"]);
    told(&mut o, &freed);
    o.slices
        .retain(|s| s.metadata.name.as_deref() != Some("db-b"));
    let done = pass(&o);
    assert_eq!(recomposed(&done).0, "InPlace");
    told(&mut o, &done);
    assert_eq!(pass(&o).status, done.status);
}

#[test]
fn a_copy_never_leaves_while_another_lacks_writes() {
    let mut o = evicting();
    o.slices.push(slice('c', 4, "Ready"));
    let joins = pass(&o);
    told(&mut o, &joins);
    o.report = Some(said(Reported::Rebuilding, Reported::Current));
    told(&mut o, &joins);
    says(&mut o, 'c', Reported::Current);
    assert_eq!(members(&pass(&o)), "db-a db-b (db-c) db-w");
    let mut unheard = o.clone();
    says(&mut unheard, 'a', Reported::Current);
    unheard.report.as_mut().unwrap().term.0 = 2;
    assert_eq!(
        members(&pass(&unheard)),
        "db-a db-b (db-c) db-w",
        "another term's word"
    );
}

#[test]
fn an_eviction_that_is_taken_back_leaves_the_members_and_frees_the_other() {
    let mut o = evicting();
    o.slices.push(slice('c', 4, "Ready"));
    let joins = pass(&o);
    told(&mut o, &joins);
    says(&mut o, 'c', Reported::Rebuilding);
    o.volume.spec.evict.clear();
    let back = pass(&o);
    assert_eq!(members(&back), "db-a db-b db-w");
    told(&mut o, &back);
    assert_eq!(
        deleted(&pass(&o)),
        Vec::<&str>::new(),
        "the engine still has it"
    );
    o.report
        .as_mut()
        .unwrap()
        .members
        .retain(|m| m.slice.to_string() != slice_uid('c'));
    assert_eq!(deleted(&pass(&o)), ["db-c"]);
}

#[test]
fn a_drive_that_is_drained_is_evicted_of_every_volume_and_takes_no_slice() {
    let mut o = movable();
    o.drives[1].spec.maintenance = Some(Maintenance::Drain);
    o.drives[3].spec.maintenance = Some(Maintenance::Drain);
    assert_eq!(created(&pass(&placed(o))), [("db-c".into(), "d5".into())]);
}

#[test]
fn an_evicted_witness_is_replaced_as_soon_as_another_is_allocated() {
    let mut o = movable();
    o.volume.spec.evict = vec!["d3".into()];
    assert_eq!(
        created(&pass(&placed(o.clone()))),
        [("db-x".into(), "d4".into())]
    );
    let mut other = slice('w', 4, "Ready");
    (other.metadata.name, other.spec.uid) = (Some("db-x".into()), slice_uid('x'));
    o.slices.push(other);
    o.report = Some(said(Reported::Current, Reported::Rebuilding));
    let exchanged = pass(&o);
    assert_eq!(members(&exchanged), "db-a db-b db-x");
    assert_eq!(exchanged.status.document_generation, 6);
}

#[test]
fn a_third_copy_takes_the_witness_out_and_its_end_brings_one_back() {
    let mut o = movable();
    o.volume.spec.replicas = 3;
    assert_eq!(
        created(&pass(&placed(o.clone()))),
        [("db-c".into(), "d4".into())]
    );
    o.slices.push(slice('c', 4, "Ready"));
    let joins = pass(&o);
    assert_eq!(members(&joins), "db-a db-b db-w (db-c)");
    told(&mut o, &joins);
    says(&mut o, 'c', Reported::Current);
    let three = pass(&o);
    assert_eq!(members(&three), "db-a db-b db-c");
    told(&mut o, &three);
    assert_eq!(deleted(&pass(&o)), ["db-w"]);

    o.slices
        .retain(|s| s.metadata.name.as_deref() != Some("db-w"));
    o.volume.spec.replicas = 2;
    let chosen = pass(&placed(o.clone()));
    assert_eq!(created(&chosen), [("db-w".into(), "d3".into())]);
    assert_eq!(
        members(&chosen),
        "db-a db-b db-c",
        "two votes are never enough"
    );
    o.slices.push(slice('w', 3, "Ready"));
    assert_eq!(members(&pass(&o)), "db-a db-b db-w");
}

#[test]
fn what_leaves_makes_room_for_what_comes_in_the_same_domain() {
    let mut o = movable();
    o.drives.truncate(3);
    o.volume.spec.replicas = 3;
    assert_eq!(
        created(&pass(&placed(o.clone()))),
        [("db-c".into(), "d3".into())]
    );
    o.slices.push(slice('c', 3, "Ready"));
    let joins = pass(&o);
    told(&mut o, &joins);
    says(&mut o, 'c', Reported::Current);
    let three = pass(&o);
    told(&mut o, &three);
    o.slices
        .retain(|s| s.metadata.name.as_deref() != Some("db-w"));
    o.volume.spec.replicas = 2;
    assert_eq!(created(&pass(&placed(o))), [("db-w".into(), "d3".into())]);
}

#[test]
fn no_drive_for_a_replacement_is_told_and_changes_nothing() {
    let mut o = evicting();
    o.drives.truncate(3);
    let stuck = pass(&placed(o));
    assert_eq!(created(&stuck), []);
    assert_eq!(recomposed(&stuck).0, "TooFewDomains");
    assert_eq!(members(&stuck), "db-a db-b db-w");
}

#[test]
fn a_volume_of_one_copy_says_that_it_is_not_moved() {
    let mut o = super::serving();
    o.volume.spec.evict = vec!["d0".into()];
    assert_eq!(recomposed(&pass(&o)).0, "OneCopy");
}
