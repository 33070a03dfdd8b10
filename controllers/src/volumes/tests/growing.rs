//! A volume whose `spec.size` was raised.

use super::placing::pool;
use super::{drive, pass, report, serving, slice};
use crate::shared::conditions;
use crate::volumes::growth;
use crate::volumes::plan::{Observed, Pass, Placement, Step};
use crate::volumes::status::EXPANDED;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use weft_crds::{Phase, Slice};
use weft_spec::engine::EngineState;

fn size(text: &str) -> Quantity {
    Quantity(text.to_owned())
}

/// The slice of the volume: what its object asks for, and what its drive has promised.
fn sized(wish: &str, at_drive: &str) -> Slice {
    let mut slice = slice("Ready");
    slice.spec.size = size(wish);
    slice.status.as_mut().unwrap().size = Some(size(at_drive));
    slice
}

/// A volume of 1Gi that serves and shall have 3Gi, on a drive of `capacity`.
fn growing(capacity: &str, overcommit: &str) -> Observed {
    let mut o = serving();
    o.volume.spec.size = size("3Gi");
    let status = o.volume.status.as_mut().unwrap();
    (status.size, status.allocated) = (Some(size("1Gi")), Some(size("1Gi")));
    o.slices = vec![sized("1Gi", "1Gi")];
    let drive = drive("d0", "10.0.0.1:4421", capacity);
    o.drives = vec![drive.clone()];
    o.placement = Some(Placement {
        pool: Some(pool(overcommit)),
        drives: vec![drive],
        nodes: vec![],
        slices: o.slices.clone(),
    });
    o
}

fn told(pass: &Pass) -> (String, String, String) {
    let told = conditions::get(&pass.status.conditions, EXPANDED).unwrap();
    (
        told.status.clone(),
        told.reason.clone(),
        told.message.clone(),
    )
}

#[test]
fn a_slice_is_raised_first_and_nothing_else() {
    let o = growing("4Gi", "100%");
    assert!(growth::is_wanted(&o));
    let pass = pass(&o);
    let [Step::GrowSlice(larger)] = pass.steps.as_slice() else {
        panic!("{:?}", pass.steps)
    };
    assert_eq!(larger.spec.size, size("3Gi"));
    assert_eq!(pass.status.document_generation, 5, "the engine is not told");
    assert_eq!(pass.status.allocated, Some(size("1Gi")));
    assert_eq!(told(&pass).1, "SliceGrowing");
    assert_eq!(pass.status.phase, Phase::Ready);
}

#[test]
fn without_what_placement_knows_a_pass_raises_nothing() {
    let o = Observed {
        placement: None,
        ..growing("4Gi", "100%")
    };
    assert!(pass(&o).steps.is_empty());
}

#[test]
fn room_is_what_the_drive_may_promise_beyond_its_slices() {
    for (capacity, overcommit, fits) in [
        ("3Gi", "100%", true),
        ("3071Mi", "100%", false),
        ("1536Mi", "200%", true),
        ("1535Mi", "200%", false),
    ] {
        let o = growing(capacity, overcommit);
        assert_eq!(
            pass(&o).steps.len(),
            usize::from(fits),
            "{capacity} {overcommit}"
        );
    }
    let mut o = growing("4Gi", "100%");
    let mut other = sized("2Gi", "2Gi");
    other.metadata.name = Some("other-a".into());
    o.placement.as_mut().unwrap().slices.push(other);
    assert!(pass(&o).steps.is_empty(), "another volume has it");
}

#[test]
fn no_room_is_said_with_numbers_and_ways_out_and_changes_nothing() {
    let mut o = growing("2Gi", "100%");
    let pass = pass(&o);
    assert!(pass.steps.is_empty());
    let (truth, reason, message) = told(&pass);
    assert_eq!((truth.as_str(), reason.as_str()), ("False", "NoRoom"));
    for words in [
        "asked for 3Gi, slice db-a has 1Gi, and drive d0 may promise 1Gi more (100%",
        "overcommit of pool fast",
        "serves 1Gi until then",
    ] {
        assert!(message.contains(words), "{message}");
    }
    let status = &pass.status;
    assert_eq!(
        (status.phase, status.document_generation),
        (Phase::Ready, 5)
    );
    o.volume.status = Some(pass.status);
    assert!(growth::waits_for_room(&o.volume));
}

#[test]
fn a_drive_that_does_not_serve_is_waited_for() {
    let mut o = growing("4Gi", "100%");
    o.drives[0].status.as_mut().unwrap().phase = Phase::Failed;
    let pass = pass(&o);
    assert!(pass.steps.is_empty());
    let (_, reason, message) = told(&pass);
    assert_eq!(reason, "DriveNotReady");
    assert!(message.contains("d0 does not serve (Failed)"), "{message}");
}

#[test]
fn the_engine_is_told_when_the_drive_has_done_it_and_not_before() {
    let mut o = growing("4Gi", "100%");
    o.slices = vec![sized("3Gi", "1Gi")];
    assert!(!growth::is_wanted(&o));
    let asked = pass(&o);
    assert!(asked.steps.is_empty());
    assert_eq!(asked.status.document_generation, 5);

    o.slices = vec![sized("3Gi", "3Gi")];
    let grown = pass(&o);
    assert_eq!(grown.status.allocated, Some(size("3Gi")));
    let status = &grown.status;
    assert_eq!((status.document_generation, status.term), (6, 3));
    assert!(matches!(
        grown.steps.as_slice(),
        [Step::WriteDocument(_), Step::PutDocument { .. }]
    ));
    assert_eq!(
        status.size,
        Some(size("1Gi")),
        "hosts see what the engine says"
    );
    assert_eq!(told(&grown).1, "EngineGrowing");

    o.volume.status = Some(grown.status);
    let mut larger = report(3, 6, EngineState::Serving);
    larger.size = 3 << 30;
    o.report = Some(larger);
    o.secrets[0].generation = 6;
    let done = pass(&o);
    assert!(done.steps.is_empty());
    assert_eq!(done.status.size, Some(size("3Gi")));
    assert_eq!(
        told(&done),
        ("True".into(), "Expanded".into(), "hosts see 3Gi".into())
    );
}

#[test]
fn an_engine_that_finds_its_slice_too_small_lends_its_words() {
    let mut o = growing("4Gi", "100%");
    o.slices = vec![sized("3Gi", "3Gi")];
    let said = o.report.as_mut().unwrap();
    (said.reason, said.message) = ("SliceTooSmall".into(), "slice has 1 byte".into());
    let (_, reason, message) = told(&pass(&o));
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("SliceTooSmall", "slice has 1 byte")
    );
}

#[test]
fn a_slice_that_says_less_than_before_takes_nothing_back() {
    let mut o = growing("4Gi", "100%");
    o.volume.status.as_mut().unwrap().allocated = Some(size("3Gi"));
    o.slices = vec![sized("3Gi", "1Gi")];
    let pass = pass(&o);
    assert_eq!(pass.status.allocated, Some(size("3Gi")));
    assert_eq!(pass.status.document_generation, 5);
}

#[test]
fn a_volume_that_never_grew_says_nothing_of_it() {
    let mut o = serving();
    o.slices = vec![sized("1Gi", "1Gi")];
    let pass = pass(&o);
    assert_eq!(pass.status.allocated, Some(size("1Gi")));
    assert_eq!(pass.status.document_generation, 5);
    assert!(conditions::get(&pass.status.conditions, EXPANDED).is_none());
}

#[test]
fn a_volume_that_is_deleted_does_not_grow() {
    let mut o = growing("4Gi", "100%");
    o.volume = super::deleting(o.volume);
    assert!(!growth::is_wanted(&o));
}
