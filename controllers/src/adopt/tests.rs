//! What drives have, and what is decided from it: first the bad cases, then the good ones.

use super::judge::Held;
use super::objects::{UNKNOWN_DRIVE, is_unplaced};
use super::plan::{Adoption, Observed, Plan, SeenDrive, Wish, plan};
use crate::shared::conditions;
use crate::volumes::held::{ADOPTED, is_held};
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;
use weft_crds::volume::MemberState;
use weft_crds::{Drive, Phase, Slice, SliceRole, Volume};
use weft_spec::drive::{
    Config, InSync, MemberState as Recorded, OutOfSync, RecordedSlice, SliceRecord, SliceStatus,
};
use weft_spec::ids::{AttachGeneration, Boot, DocumentGeneration, FencePair, SliceUid, Term};

mod again;
mod names;

const VOLUME: &str = "11111111-1111-4111-8111-111111111111";
const OTHER: &str = "11111111-1111-4111-8111-111111111112";
const LINEAGE: Uuid = Uuid::from_u128(7);
const SIZE: u64 = 1 << 30;

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn uid(letter: char) -> SliceUid {
    let number = u32::from(letter);
    format!("222222{number:02x}-2222-4222-8222-222222222222")
        .parse()
        .unwrap()
}

fn drive(number: usize) -> Drive {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Drive",
        "metadata": {"name": format!("d{number}"), "labels": {"tier": "fast"}},
        "spec": {"uid": format!("3333333{number}-3333-4333-8333-333333333333"), "adoption": "Adopt",
            "hostExport": {"node": format!("n{number}"), "file": {"path": "/d", "size": "4Gi"}}},
        "status": {"phase": "Ready", "address": format!("10.0.0.{number}:4421"), "documentGeneration": 1},
    }))
}

/// Slices by letter: in-sync, not in-sync, voters.
fn record(pair: (u64, u64), config: u64, parts: [&str; 3]) -> SliceRecord {
    let [in_sync, out, voters] = parts;
    let in_sync = in_sync.chars().map(|letter| InSync {
        slice: uid(letter),
        incarnation: Uuid::nil(),
    });
    let out = out.chars().map(|letter| OutOfSync {
        slice: uid(letter),
        since: Config(1),
    });
    SliceRecord {
        volume: VOLUME.parse().unwrap(),
        lineage: LINEAGE,
        fence: FencePair {
            term: Term(pair.0),
            boot: Boot(pair.1),
        },
        config: Config(config),
        in_sync: in_sync.collect(),
        out_of_sync: out.collect(),
        voters: voters.chars().map(uid).collect(),
        old_voters: vec![],
        loss: None,
        state: Recorded::Current,
    }
}

/// Two copies in-sync and a witness, of term 3.
fn whole() -> SliceRecord {
    record((3, 1), 5, ["ab", "", "abw"])
}

fn slice(letter: char, record: Option<SliceRecord>) -> RecordedSlice {
    let pair = record.as_ref().map(|record| record.fence);
    RecordedSlice {
        status: SliceStatus {
            slice: uid(letter),
            volume: VOLUME.parse().unwrap(),
            size: if letter == 'w' { 64 << 10 } else { SIZE },
            allocated: 0,
            fence: pair.unwrap_or_default(),
            connections: 0,
        },
        document_generation: DocumentGeneration(9),
        record,
    }
}

/// Drives `d1`, `d2`, … with these slices.
fn seen(drives: Vec<Vec<RecordedSlice>>) -> Observed {
    let drive = |(at, slices)| SeenDrive {
        drive: drive(at + 1),
        answer: Ok(slices),
    };
    let pool = |name: &str, tier: &str| {
        of(
            json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Pool", "metadata": {"name": name},
            "spec": {"selector": {"matchLabels": {"tier": tier}}, "overcommit": "150%"}}),
        )
    };
    Observed {
        drives: drives.into_iter().enumerate().map(drive).collect(),
        volumes: vec![],
        slices: vec![],
        pools: vec![pool("slow", "slow"), pool("fast", "fast")],
        wish: Wish::default(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn mirror() -> Observed {
    let there = |letter| vec![slice(letter, Some(whole()))];
    seen(vec![there('a'), there('b'), there('w')])
}

fn only(plan: Plan) -> Adoption {
    let [adoption] = &plan.adoptions[..] else {
        panic!("{plan:#?}")
    };
    adoption.clone()
}

fn held(o: &Observed) -> Held {
    let adoption = only(plan(o));
    assert!(is_held(&adoption.volume) && adoption.slices.is_empty());
    let status = adoption.volume.status.unwrap();
    assert_eq!((status.phase, status.members), (Phase::Failed, vec![]));
    let said = conditions::get(&status.conditions, ADOPTED).unwrap();
    let held = adoption.held.unwrap();
    assert_eq!(
        (said.status.as_str(), &said.reason[..]),
        ("False", held.reason)
    );
    assert_eq!(said.message, held.message);
    held
}

fn started(o: &Observed) -> (Volume, Vec<Slice>) {
    let adoption = only(plan(o));
    assert_eq!(adoption.held, None);
    (adoption.volume, adoption.slices)
}

/// Slices `letters`, each on a drive of its own, with the record given by the function.
fn each(letters: &str, record: impl Fn(char) -> Option<SliceRecord>) -> Observed {
    let slices = letters
        .chars()
        .map(|letter| vec![slice(letter, record(letter))]);
    seen(slices.collect())
}

#[test]
fn what_does_not_prove_enough_is_held_and_says_why() {
    let all = |record: SliceRecord| move |_| Some(record.clone());
    let changed = |change: fn(&mut SliceRecord)| {
        let mut record = whole();
        change(&mut record);
        record
    };
    let tied = changed(|r| r.in_sync.truncate(1));
    let foreign = changed(|r| r.volume = OTHER.parse().unwrap());
    let recovered = changed(|r| (r.lineage, r.fence.term) = (Uuid::from_u128(8), Term(4)));
    let retired = changed(|r| r.state = Recorded::Retired);
    let moving = changed(|r| r.old_voters = "acd".chars().map(uid).collect());
    let mut rivals = each("abw", all(whole()));
    for letter in ['c', 'd', 'v'] {
        let record = SliceRecord {
            voters: "cdv".chars().map(uid).collect(),
            ..recovered.clone()
        };
        rivals.drives[0]
            .answer
            .as_mut()
            .unwrap()
            .push(slice(letter, Some(record)));
    }
    let rows: Vec<(&str, Observed, &str, String)> = vec![
        (
            "one of three",
            each("a", all(whole())),
            "NoMajority",
            uid('b').to_string(),
        ),
        (
            "two without record",
            each("abw", |l| (l == 'a').then(whole)),
            "NoMajority",
            uid('w').to_string(),
        ),
        (
            "two retired",
            each("abw", |l| {
                Some(if l == 'a' { whole() } else { retired.clone() })
            }),
            "NoMajority",
            uid('b').to_string(),
        ),
        (
            "two of the lineage before",
            each("abw", |l| {
                Some(if l == 'a' { recovered.clone() } else { whole() })
            }),
            "LineagesDisagree",
            LINEAGE.to_string(),
        ),
        (
            "no majority of the voters before",
            each("abw", all(moving)),
            "NoMajority",
            uid('c').to_string(),
        ),
        (
            "two lineages",
            rivals,
            "LineagesDisagree",
            LINEAGE.to_string(),
        ),
        (
            "a tie",
            each("abw", |l| {
                Some(if l == 'b' { tied.clone() } else { whole() })
            }),
            "RecordsDisagree",
            "3.1".into(),
        ),
        (
            "of another volume",
            each("abw", |l| {
                Some(if l == 'b' { foreign.clone() } else { whole() })
            }),
            "RecordsDisagree",
            OTHER.into(),
        ),
        (
            "no leader",
            each("bw", all(record((3, 1), 5, ["a", "b", "abw"]))),
            "NoLeader",
            uid('a').to_string(),
        ),
        (
            "four copies",
            each("abcdw", all(record((3, 1), 5, ["abcd", "", "abcdw"]))),
            "UnknownShape",
            "4 voters".into(),
        ),
        (
            "twice",
            each("abwa", all(whole())),
            "SliceTwice",
            "drive d1 and on drive d4".into(),
        ),
        (
            "one without record",
            each("a", |_| None),
            "NoRecord",
            "--all-drives".into(),
        ),
        (
            "none has a record",
            each("abw", |_| None),
            "NoRecord",
            "never served".into(),
        ),
        (
            "the last term",
            each("abw", all(record((u64::MAX, 1), 5, ["ab", "", "abw"]))),
            "TermsUsedUp",
            "greatest".into(),
        ),
    ];
    for (what, observed, reason, words) in rows {
        let held = held(&observed);
        assert_eq!(held.reason, reason, "{what}: {}", held.message);
        assert!(held.message.contains(&words), "{what}: {}", held.message);
    }
}

#[test]
fn a_drive_that_is_silent_is_named_wherever_it_may_matter() {
    let mut o = each("a", |_| Some(whole()));
    o.drives.push(SeenDrive {
        drive: drive(2),
        answer: Err("IdentityMismatch: of another cluster".into()),
    });
    assert!(held(&o).message.contains("not heard: drive d2"));
    let remark = &plan(&o).remarks[0];
    assert!(
        remark.contains("d2") && remark.contains("another cluster"),
        "{remark}"
    );
    let mut one = each("a", |_| None);
    one.wish.all_drives = true;
    assert_eq!(started(&one).0.spec.replicas, 1);
    one.drives.push(o.drives.remove(1));
    assert_eq!(
        held(&one).reason,
        "NoRecord",
        "the word does not hold for what was not heard"
    );
}

#[test]
fn a_whole_mirror_is_started_with_all_that_its_drives_know() {
    let (volume, slices) = started(&mirror());
    assert_eq!(
        volume.metadata.name.as_deref(),
        Some("adopted-11111111-1111-4111-8111-111111111111")
    );
    assert!(
        is_held(&volume),
        "nobody touches it before its status is written"
    );
    let spec = &volume.spec;
    assert_eq!(
        (spec.uid.as_deref(), spec.pool.as_str()),
        (Some(VOLUME), "fast")
    );
    assert_eq!((spec.replicas, spec.size.0.as_str()), (2, "1Gi"));
    let status = volume.status.unwrap();
    assert_eq!(
        (
            status.term,
            status.document_generation,
            status.attach_generation
        ),
        (3, 9, 9)
    );
    assert_eq!(
        (status.formed, status.lineage),
        (true, Some(LINEAGE.to_string()))
    );
    assert_eq!(status.allocated.unwrap().0, "1Gi");
    assert!(conditions::is_true(&status.conditions, ADOPTED) && status.engine.is_none());
    let members: Vec<_> = status
        .members
        .iter()
        .map(|m| (m.drive.as_str(), m.address.as_str(), m.role, m.state))
        .collect();
    let in_sync = Some(MemberState::InSync);
    assert_eq!(
        members,
        [
            ("d1", "10.0.0.1:4421", SliceRole::Data, in_sync),
            ("d2", "10.0.0.2:4421", SliceRole::Data, in_sync),
            ("d3", "10.0.0.3:4421", SliceRole::Witness, None),
        ]
    );
    let made: Vec<_> = slices
        .iter()
        .map(|s| {
            (
                s.metadata.name.as_deref().unwrap(),
                s.spec.uid.clone(),
                s.spec.size.0.as_str(),
                s.spec.overcommit_percent,
            )
        })
        .collect();
    let name = |part: &str| format!("adopted-{VOLUME}-{part}");
    assert_eq!(
        made,
        [
            (name("a").as_str(), uid('a').to_string(), "1Gi", 150),
            (name("b").as_str(), uid('b').to_string(), "1Gi", 150),
            (name("w").as_str(), uid('w').to_string(), "64Ki", 150),
        ]
    );
}

#[test]
fn no_number_begins_below_the_greatest_that_any_slice_has_heard() {
    let mut o = mirror();
    let mut stale = slice('x', None);
    (stale.status.fence.term, stale.document_generation) = (Term(12), DocumentGeneration(40));
    o.drives[2].answer.as_mut().unwrap().push(stale);
    let status = started(&o).0.status.unwrap();
    assert_eq!(
        (
            status.term,
            status.document_generation,
            status.attach_generation
        ),
        (12, 40, 40)
    );
    assert_eq!(status.members.len(), 3);
    let remarks = plan(&o).remarks;
    assert!(
        remarks[0].contains(&uid('x').to_string()) && remarks[0].contains("d3"),
        "{remarks:?}"
    );
    let lost = SliceRecord {
        loss: Some(AttachGeneration(77)),
        ..whole()
    };
    let status = started(&each("abw", |_| Some(lost.clone())))
        .0
        .status
        .unwrap();
    assert_eq!(status.attach_generation, 77);
    let unstarted = each("a", |_| Some(whole()));
    let status = only(plan(&unstarted)).volume.status.unwrap();
    assert_eq!(
        (status.term, status.document_generation),
        (3, 9),
        "a held volume knows them too"
    );
}

#[test]
fn the_greatest_record_says_who_is_a_member_whatever_a_stale_slice_has() {
    let moved = record((4, 1), 8, ["ac", "b", "acw"]);
    let (volume, _) = started(&each("abcw", |l| {
        Some(if l == 'b' { whole() } else { moved.clone() })
    }));
    let members: Vec<_> = volume
        .status
        .unwrap()
        .members
        .iter()
        .map(|m| m.slice_uid.clone())
        .collect();
    assert_eq!(members, ['a', 'c', 'w'].map(|l| uid(l).to_string()));
    let degraded = record((4, 1), 8, ["a", "b", "abw"]);
    let (volume, _) = started(&each("abw", |l| {
        Some(if l == 'b' { whole() } else { degraded.clone() })
    }));
    let states: Vec<_> = volume
        .status
        .unwrap()
        .members
        .iter()
        .map(|m| m.state)
        .collect();
    assert_eq!(
        states,
        [
            Some(MemberState::InSync),
            Some(MemberState::OutOfSync),
            None
        ]
    );
}

#[test]
fn a_size_that_was_being_raised_goes_on_from_what_all_have() {
    let mut o = mirror();
    o.drives[0].answer.as_mut().unwrap()[0].status.size = 2 * SIZE;
    let (volume, slices) = started(&o);
    assert_eq!(volume.spec.size.0, "2Gi");
    assert_eq!(volume.status.unwrap().allocated.unwrap().0, "1Gi");
    assert_eq!(
        slices
            .iter()
            .map(|s| s.spec.size.0.as_str())
            .collect::<Vec<_>>(),
        ["2Gi", "1Gi", "64Ki"]
    );
}

#[test]
fn a_member_that_was_not_found_keeps_its_seat_without_a_place() {
    let (volume, slices) = started(&each("aw", |_| Some(whole())));
    let status = volume.status.unwrap();
    assert_eq!(
        (status.members.len(), slices.len(), volume.spec.replicas),
        (3, 2, 2)
    );
    let lost = &status.members[1];
    assert!(is_unplaced(lost) && lost.slice_uid == uid('b').to_string());
    assert_eq!(lost.drive, UNKNOWN_DRIVE);
    let said = conditions::get(&status.conditions, ADOPTED).unwrap();
    assert!(
        said.message.contains("2 of 3") && said.message.contains("spec.evict"),
        "{}",
        said.message
    );
}
