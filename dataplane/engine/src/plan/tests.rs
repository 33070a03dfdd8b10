//! Tables of events and what has to follow.

use super::*;
use uuid::Uuid;
use weft_spec::DOCUMENT_VERSION;
use weft_spec::engine::{SliceMember, Stack};
use weft_spec::ids::{AttachGeneration, ClusterUid, DriveUid, SliceUid, Term, VolumeUid};
use weft_spec::keys::Key;
use weft_spec::nqn::HostNqn;

const SIZE: u64 = 1 << 20;

/// A document of term 7 with one host, always of the same volume.
pub(crate) fn document(generation: u64) -> EngineDocument {
    let (volume, slice) = (Uuid::from_u128(1), Uuid::from_u128(2));
    EngineDocument {
        version: DOCUMENT_VERSION,
        generation: DocumentGeneration(generation),
        cluster: ClusterUid(Uuid::from_u128(3)),
        volume: VolumeUid(volume),
        name: "db-0".into(),
        term: Term(7),
        size: SIZE,
        stack: Stack::Slice(SliceMember {
            slice: SliceUid(slice),
            drive: DriveUid(Uuid::from_u128(4)),
            drive_name: "n1-d0".into(),
            address: "127.0.0.1:4421".parse().unwrap(),
            key: Key::from_bytes([1; 32]).slice(SliceUid(slice), Term(7)),
        }),
        hosts: vec![host("n1", 1)],
        port: 4420,
        control: None,
    }
}

pub(crate) fn host(node: &str, generation: u64) -> AllowedHost {
    let volume = VolumeUid(Uuid::from_u128(1));
    let generation = AttachGeneration(generation);
    let key = Key::from_bytes([2; 32]).attach(volume, generation);
    AllowedHost {
        attachment: format!("db-0-{node}"),
        node: node.into(),
        generation,
        nqn: HostNqn::host(&key, volume, node, generation),
        read_only: false,
    }
}

pub(crate) fn inspection(term: u64, boot: u64, generation: u64) -> SliceInspection {
    SliceInspection {
        volume: VolumeUid(Uuid::from_u128(1)),
        slice: SliceUid(Uuid::from_u128(2)),
        size: SIZE,
        fence: pair(term, boot),
        host_id: Uuid::nil(),
        document_generation: DocumentGeneration(generation),
        peer: "127.0.0.1:5000".parse().unwrap(),
        incarnation: Uuid::nil(),
        hot: weft_spec::drive::HotCount::default(),
    }
}

fn pair(term: u64, boot: u64) -> FencePair {
    FencePair {
        term: Term(term),
        boot: Boot(boot),
    }
}

fn generation(number: u64) -> DocumentGeneration {
    DocumentGeneration(number)
}

fn connecting() -> Engine {
    let (mut engine, _) = Engine::new(document(5));
    engine.step(Event::Inspected(inspection(7, 2, 5)));
    engine
}

fn recording() -> Engine {
    let mut engine = connecting();
    engine.step(Event::Connected);
    engine
}

pub(crate) fn serving() -> Engine {
    let mut engine = recording();
    engine.step(Event::Recorded(generation(5)));
    engine
}

#[test]
fn the_way_from_the_start_to_serving() {
    let (mut engine, actions) = Engine::new(document(5));
    assert_eq!(actions, [Action::Inspect]);
    let steps = [
        (Event::Unreachable("refused".into()), vec![Action::Inspect]),
        (
            Event::Inspected(inspection(6, 9, 4)),
            vec![Action::Connect(pair(7, 1))],
        ),
        (Event::Connected, vec![Action::Record(generation(5))]),
        (
            Event::Recorded(generation(5)),
            vec![Action::Admit, Action::Serve],
        ),
    ];
    for (event, expected) in steps {
        assert!(
            engine.admitted().is_empty(),
            "nobody is admitted before {event:?}"
        );
        assert_eq!(engine.step(event.clone()), expected, "{event:?}");
    }
    assert_eq!(engine.admitted(), document(5).hosts);
    assert!(engine.in_force(generation(5)));
}

#[test]
fn what_an_inspection_at_the_start_leads_to() {
    let mismatch = SliceInspection {
        volume: VolumeUid::random(),
        ..inspection(9, 0, 0)
    };
    let small = SliceInspection {
        size: SIZE - 4096,
        ..inspection(0, 0, 0)
    };
    let table = [
        (
            "a new slice",
            inspection(0, 0, 0),
            Action::Connect(pair(7, 1)),
        ),
        (
            "an older term",
            inspection(6, 40, 5),
            Action::Connect(pair(7, 1)),
        ),
        (
            "an earlier boot of this term",
            inspection(7, 3, 5),
            Action::Connect(pair(7, 4)),
        ),
        ("a newer term", inspection(8, 1, 5), Action::Park),
        ("another volume", mismatch, Action::Inspect),
        ("too small a slice", small, Action::Inspect),
        ("no boot left", inspection(7, u64::MAX, 5), Action::Park),
    ];
    for (case, inspection, expected) in table {
        let (mut engine, _) = Engine::new(document(5));
        assert_eq!(
            engine.step(Event::Inspected(inspection)),
            [expected],
            "{case}"
        );
    }
}

#[test]
fn a_document_older_than_the_slice_admits_nobody_until_the_newer_one_is_put() {
    let (mut engine, _) = Engine::new(document(5));
    assert!(
        engine
            .step(Event::Inspected(inspection(7, 1, 9)))
            .is_empty()
    );
    assert_eq!(*engine.phase(), Phase::Outdated(generation(9)));
    assert!(matches!(
        engine.offer(document(8)),
        Err(DocumentError::NotNewer { .. })
    ));
    assert_eq!(engine.offer(document(9)), Ok(vec![Action::Inspect]));
    let actions = engine.step(Event::Inspected(inspection(7, 1, 9)));
    assert_eq!(actions, [Action::Connect(pair(7, 2))]);
}

#[test]
fn what_follows_while_serving() {
    let table = [
        ("path lost", Event::PathLost("reset".into()), vec![]),
        ("path up", Event::PathUp, vec![]),
        (
            "refused",
            Event::PathRefused("0184h".into()),
            vec![Action::Inspect],
        ),
        ("fenced", Event::Fenced, vec![Action::Park]),
        (
            "newer term",
            Event::Inspected(inspection(8, 1, 5)),
            vec![Action::Park],
        ),
        (
            "higher boot",
            Event::Inspected(inspection(7, 4, 5)),
            vec![Action::Park],
        ),
        ("own pair", Event::Inspected(inspection(7, 3, 5)), vec![]),
        ("late answer", Event::Connected, vec![]),
    ];
    for (case, event, expected) in table {
        let mut engine = serving();
        assert_eq!(engine.step(event), expected, "{case}");
    }
}

#[test]
fn a_refused_path_is_looked_at_until_it_is_up_or_the_engine_parks() {
    let mut engine = serving();
    engine.step(Event::PathRefused("0184h".into()));
    let look = [Action::Inspect];
    assert_eq!(engine.step(Event::Unreachable("no route".into())), look);
    assert_eq!(engine.step(Event::Inspected(inspection(7, 3, 5))), look);
    engine.step(Event::PathUp);
    assert!(
        engine
            .step(Event::Inspected(inspection(7, 3, 5)))
            .is_empty()
    );
}

#[test]
fn a_parked_engine_does_nothing_more() {
    for mut engine in [
        Engine::new(document(5)).0,
        connecting(),
        recording(),
        serving(),
    ] {
        assert_eq!(engine.step(Event::Fenced), [Action::Park]);
        assert!(engine.admitted().is_empty());
        for event in [
            Event::Connected,
            Event::Recorded(generation(9)),
            Event::PathUp,
            Event::Fenced,
        ] {
            assert!(engine.step(event).is_empty());
        }
        assert_eq!(engine.offer(document(9)), Err(DocumentError::Parked));
        assert!(!engine.in_force(generation(5)));
    }
}

#[test]
fn rights_are_taken_at_once_and_given_only_when_durable() {
    let mut engine = serving();
    let mut put = document(6);
    put.hosts = vec![host("n2", 2)];
    let record = Action::Record(generation(6));
    assert_eq!(engine.offer(put.clone()), Ok(vec![Action::Admit, record]));
    assert!(engine.admitted().is_empty());
    assert!(!engine.in_force(generation(6)));
    assert_eq!(engine.step(Event::Recorded(generation(6))), [Action::Admit]);
    assert_eq!(engine.admitted(), put.hosts);
    assert!(engine.in_force(generation(6)));
}

#[test]
fn a_host_whose_right_changes_to_read_only_is_admitted_anew() {
    let mut engine = serving();
    let mut put = document(6);
    put.hosts[0].read_only = true;
    engine.offer(put).unwrap();
    assert!(engine.admitted().is_empty());
}

#[test]
fn a_newer_document_overtakes_one_that_is_not_durable_yet() {
    let mut engine = recording();
    assert_eq!(
        engine.offer(document(6)),
        Ok(vec![Action::Admit, Action::Record(generation(6))])
    );
    assert!(engine.step(Event::Recorded(generation(5))).is_empty());
    let actions = engine.step(Event::Recorded(generation(6)));
    assert_eq!(actions, [Action::Admit, Action::Serve]);
}

#[test]
fn a_drive_that_moved_is_followed_before_anything_else() {
    let mut put = document(6);
    let Stack::Slice(member) = &mut put.stack else {
        panic!("of one slice");
    };
    member.address = "127.0.0.2:4421".parse().unwrap();
    let address = member.address;
    let actions = serving().offer(put.clone()).unwrap();
    assert_eq!(actions[0], Action::Redirect(address));
    assert_eq!(connecting().offer(put), Ok(vec![Action::Inspect]));
}

#[test]
fn a_repeated_document_is_accepted_and_changes_nothing() {
    assert_eq!(serving().offer(document(5)), Ok(vec![]));
}

#[test]
fn sigterm_waits_for_the_hosts_but_not_twice() {
    let leave = [Action::Leave];
    assert_eq!(Engine::new(document(5)).0.step(Event::Terminate), leave);
    let mut engine = serving();
    engine.step(Event::Associations(1));
    assert!(engine.step(Event::Terminate).is_empty());
    assert_eq!(engine.clone().step(Event::Associations(0)), leave);
    assert_eq!(engine.clone().step(Event::Terminate), leave);
    assert_eq!(engine.step(Event::Fenced), [Action::Park]);
}

/// A document that asks for two more blocks.
fn larger(generation: u64) -> EngineDocument {
    EngineDocument {
        size: SIZE + 8192,
        ..document(generation)
    }
}

#[test]
fn a_larger_size_is_served_only_when_the_document_is_durable() {
    let mut engine = serving();
    assert_eq!(engine.size(), SIZE);
    // The drive's notice came before the document.
    assert!(engine.step(Event::SliceSize(SIZE + 8192)).is_empty());
    let record = Action::Record(generation(6));
    assert_eq!(engine.offer(larger(6)), Ok(vec![Action::Admit, record]));
    assert_eq!(engine.size(), SIZE);
    assert_eq!(
        engine.step(Event::Recorded(generation(6))),
        [Action::Admit, Action::Grow(SIZE + 8192)]
    );
    assert_eq!((engine.size(), engine.too_small()), (SIZE + 8192, None));
    // Told again, it does nothing again.
    assert!(engine.step(Event::SliceSize(SIZE + 8192)).is_empty());
}

#[test]
fn a_slice_that_is_too_small_is_asked_when_there_is_a_reason_and_not_again_and_again() {
    let mut engine = serving();
    engine.offer(larger(6)).unwrap();
    let asked = engine.step(Event::Recorded(generation(6)));
    assert_eq!(asked, [Action::Admit, Action::Measure]);
    assert!(engine.step(Event::SliceSize(SIZE)).is_empty(), "no polling");
    assert!(engine.step(Event::SliceSize(SIZE + 4096)).is_empty());
    assert_eq!(engine.too_small(), Some(SIZE + 4096));
    assert!(engine.in_force(generation(6)), "rights do not wait for it");
    assert_eq!(engine.clone().step(Event::PathUp), [Action::Measure]);
    let told = engine.step(Event::SliceSize(SIZE + 8192));
    assert_eq!(told, [Action::Grow(SIZE + 8192)]);
    assert_eq!(engine.too_small(), None);
}

#[test]
fn an_engine_that_starts_with_a_larger_document_serves_all_of_it_at_once() {
    let (mut engine, _) = Engine::new(larger(5));
    let slice = SliceInspection {
        size: SIZE + 8192,
        ..inspection(7, 0, 5)
    };
    engine.step(Event::Inspected(slice));
    engine.step(Event::Connected);
    assert_eq!(engine.size(), SIZE + 8192);
    let actions = engine.step(Event::Recorded(generation(5)));
    assert_eq!(actions, [Action::Admit, Action::Serve]);
}

#[test]
fn a_size_that_grew_before_the_engine_served_is_served_from_the_start() {
    let mut engine = recording();
    engine.offer(larger(6)).unwrap();
    engine.step(Event::SliceSize(SIZE + 8192));
    assert_eq!(
        engine.step(Event::Recorded(generation(6))),
        [Action::Admit, Action::Serve, Action::Grow(SIZE + 8192)]
    );
}
