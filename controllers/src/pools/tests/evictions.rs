//! When a drive's pod may be evicted, as tables. Three nodes with a drive each; volume `db` has its copies
//! on `d1` and `d2` and its witness on `d3`.

use super::looking_at;
use crate::pools::domains::Domain;
use crate::pools::objects;
use crate::pools::plan::{Observed, Plan, Why, plan};
use crate::pools::status::{EVICTABLE, status};
use crate::shared::conditions;
use crate::testing::settings;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};
use weft_crds::volume::MemberState;
use weft_crds::{Pool, Volume};

fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T12:00:00Z".parse().unwrap()
}

fn pool(name: &str) -> Pool {
    of(
        json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Pool",
        "metadata": {"name": name, "uid": name}, "spec": {}}),
    )
}

fn uid(number: usize) -> String {
    format!("3333333{number}-3333-4333-8333-333333333333")
}

fn drive(number: usize) -> Value {
    json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Drive", "metadata": {"name": format!("d{number}")},
        "spec": {"uid": uid(number), "hostExport": {"node": format!("n{number}"), "file": {"path": "/d", "size": "1Gi"}}},
        "status": {"phase": "Ready", "conditions": [{"type": "Ready", "status": "True", "reason": "Serving",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn node(number: usize) -> Value {
    let name = format!("n{number}");
    json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}, "spec": {}})
}

fn pod(number: usize) -> Value {
    json!({"metadata": {"name": format!("d{number}-pod"), "labels": {"weft.storage/drive-uid": uid(number)},
        "creationTimestamp": "2026-01-01T00:00:00Z"}})
}

fn volume(name: &str, members: &[(usize, &str)]) -> Volume {
    let member = |(number, role): &(usize, &str)| {
        json!({"slice": format!("{name}-{number}"), "sliceUid": "s", "drive": format!("d{number}"),
            "driveUid": uid(*number), "role": role, "state": (*role == "Data").then_some("InSync")})
    };
    let members: Vec<_> = members.iter().map(member).collect();
    of(
        json!({"apiVersion": "weft.storage/v1alpha1", "kind": "Volume", "metadata": {"name": name},
        "spec": {"pool": "fast", "size": "1Gi", "replicas": 2, "onNoData": "Pause"},
        "status": {"formed": true, "members": members}}),
    )
}

fn quiet() -> Observed {
    let mut o = Observed {
        drives: (1..=3).map(|number| of(drive(number))).collect(),
        nodes: (1..=3).map(|number| of(node(number))).collect(),
        volumes: vec![volume("db", &[(1, "Data"), (2, "Data"), (3, "Witness")])],
        pods: (1..=3).map(|number| of(pod(number))).collect(),
        ..looking_at(&pool("fast"), now())
    };
    write(&mut o);
    o
}

/// The plan's budget is written, and Kubernetes knows it.
fn write(o: &mut Observed) -> Plan {
    let plan = plan(o);
    let wanted = plan.budget.as_ref().unwrap();
    let mut budget = objects::budget(&settings(), &o.pool, wanted);
    known(&mut budget, 1);
    o.budgets
        .retain(|old| old.metadata.name != budget.metadata.name);
    o.budgets.push(budget);
    plan
}

fn known(budget: &mut PodDisruptionBudget, generation: i64) {
    budget.metadata.generation = Some(2.max(generation));
    budget.status = Some(of(
        json!({"observedGeneration": 2, "currentHealthy": 1, "desiredHealthy": 1,
        "disruptionsAllowed": 0, "expectedPods": 1}),
    ));
}

fn cordon(o: &mut Observed, number: usize) {
    o.nodes[number - 1]
        .spec
        .get_or_insert_default()
        .unschedulable = Some(true);
}

fn domain(number: usize) -> Domain {
    Domain(format!("n{number}"))
}

/// The drives that stay, by their number.
fn closed(plan: &Plan) -> Vec<usize> {
    let closed = &plan.budget.as_ref().unwrap().closed;
    (1..=3)
        .filter(|number| closed.contains(&uid(*number)))
        .collect()
}

fn draining(number: usize) -> Observed {
    let mut o = quiet();
    cordon(&mut o, number);
    o
}

#[test]
fn nothing_is_open_while_no_node_is_cordoned() {
    let plan = plan(&quiet());
    assert_eq!(
        (closed(&plan), plan.why, plan.again),
        (vec![1, 2, 3], Why::NothingLeaves, None)
    );
}

#[test]
fn a_cordoned_node_opens_its_domain_and_no_other_and_a_pass_after_changes_nothing() {
    for number in 1..=3 {
        let mut o = draining(number);
        let first = write(&mut o);
        assert_eq!(first.why, Why::Open(domain(number)));
        assert!(!closed(&first).contains(&number) && closed(&first).len() == 2);
        o.now += SignedDuration::from_secs(600);
        assert_eq!(plan(&o), first);
    }
}

#[test]
fn the_budget_lists_who_stays_and_a_pod_that_does_not_run_may_always_go() {
    let mut o = draining(1);
    write(&mut o);
    let budget = serde_json::to_value(&o.budgets[0]).unwrap();
    let listed = &budget["spec"]["selector"]["matchExpressions"][0];
    assert_eq!(
        listed,
        &json!({"key": "weft.storage/drive-uid", "operator": "In", "values": [uid(2), uid(3)]})
    );
    assert_eq!(budget["spec"]["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    assert_eq!(budget["metadata"]["annotations"]["weft.storage/open"], "n1");
    assert_eq!(budget["metadata"]["ownerReferences"][0]["kind"], "Pool");
    assert_eq!(budget["metadata"]["name"], "fast");
}

#[test]
fn a_domain_stays_closed_while_a_volume_could_not_serve_without_it() {
    type Change = fn(&mut Observed);
    let rows: [(&str, Change, bool); 9] = [
        ("everything is well", |_| (), true),
        ("the other copy is brought up to date", |o| lag(o, 1), false),
        (
            "the copy that leaves lacks writes, the other has them",
            |o| lag(o, 0),
            true,
        ),
        (
            "the other copy's drive does not serve",
            |o| o.drives[1].status = None,
            false,
        ),
        (
            "the witness's drive does not serve",
            |o| o.drives[2].status = None,
            false,
        ),
        (
            "another pod is not there",
            |o| drop(o.pods.remove(1)),
            false,
        ),
        (
            "another pod is just made",
            |o| {
                let made = o.now - SignedDuration::from_secs(14);
                o.pods[1].metadata.creation_timestamp = Some(of(json!(made)));
            },
            false,
        ),
        (
            "the engine does not reach another",
            |o| {
                let wire = json!([{"name": "w", "kind": "EngineToDrive", "from": "engine", "to": "drive/d2", "state": "Broken"}]);
                o.volumes[0].status.as_mut().unwrap().wires = of(wire);
            },
            false,
        ),
        (
            "nothing serves the volume with the domain either",
            |o| {
                (o.drives[1].status, o.drives[2].status) = (None, None);
            },
            true,
        ),
    ];
    for (what, change, opens) in rows {
        let mut o = draining(1);
        change(&mut o);
        let plan = plan(&o);
        assert_eq!(
            plan.why == Why::Open(domain(1)),
            opens,
            "{what}: {:?}",
            plan.why
        );
        assert_eq!(closed(&plan).len(), if opens { 2 } else { 3 }, "{what}");
        assert_eq!(plan.again.is_some(), !opens, "{what}: who looks again?");
    }
}

/// A copy lacks writes.
fn lag(o: &mut Observed, member: usize) {
    let members = &mut o.volumes[0].status.as_mut().unwrap().members;
    members[member].state = Some(MemberState::OutOfSync);
}

#[test]
fn an_open_domain_is_closed_when_a_member_elsewhere_is_lost_meanwhile() {
    let mut o = draining(1);
    write(&mut o);
    // Evicted and not made anew yet: that is what it was opened for.
    o.pods.remove(0);
    o.drives[0].status = None;
    assert_eq!(plan(&o).why, Why::Open(domain(1)));
    lag(&mut o, 1);
    let closes = write(&mut o);
    assert_eq!(
        (closes.why.clone(), closed(&closes)),
        (Why::Closing, vec![1, 2, 3])
    );
    assert!(matches!(plan(&o).why, Why::Held(..)));
}

#[test]
fn a_copy_alone_holds_no_drain() {
    let mut o = draining(1);
    o.volumes = vec![volume("one", &[(1, "Data")])];
    assert_eq!(plan(&o).why, Why::Open(domain(1)));
}

#[test]
fn who_waits_is_told_with_the_volume_the_reason_and_the_way_out() {
    let mut o = draining(1);
    lag(&mut o, 1);
    let told = status(&o, &o.drives, &plan(&o).why);
    let said = conditions::get(&told.conditions, EVICTABLE).unwrap();
    assert_eq!(
        (said.status.as_str(), said.reason.as_str()),
        ("False", "WaitsForVolumes")
    );
    for part in [
        "kubernetes.io/hostname n1",
        "volume db (db-2 on drive d2 lacks writes)",
        "kubectl patch volume db",
    ] {
        assert!(said.message.contains(part), "{part}: {}", said.message);
    }
}

#[test]
fn two_domains_that_wait_are_open_one_after_the_other_and_never_both() {
    let mut o = draining(1);
    let first = write(&mut o);
    cordon(&mut o, 2);
    assert_eq!(plan(&o).budget, first.budget, "its turn is not over");
    let mut opened = vec![];
    for _ in 0..12 {
        o.now += SignedDuration::from_secs(10);
        let before = plan(&o);
        assert!(closed(&before).len() >= 2);
        let plan = write(&mut o);
        opened.extend(plan.budget.unwrap().open.map(|(domain, _)| domain.0));
    }
    assert!(
        opened.contains(&"n1".to_owned()) && opened.contains(&"n2".to_owned()),
        "{opened:?}"
    );
}

#[test]
fn another_domain_is_opened_only_when_kubernetes_knows_that_the_first_is_closed() {
    let mut o = draining(1);
    write(&mut o);
    o.nodes[0].spec = None;
    cordon(&mut o, 2);
    assert_eq!(write(&mut o).why, Why::Closing);
    known(&mut o.budgets[0], 3);
    assert_eq!(
        (closed(&plan(&o)), plan(&o).why),
        (vec![1, 2, 3], Why::Closing)
    );
    known(&mut o.budgets[0], 2);
    // Evicted in the last moment.
    o.pods[0].metadata.deletion_timestamp = Some(of(json!("2026-01-01T12:00:00Z")));
    assert!(matches!(plan(&o).why, Why::Held(..)));
    o.pods[0].metadata.deletion_timestamp = None;
    assert_eq!(plan(&o).why, Why::Open(domain(2)));
}

#[test]
fn a_drive_of_two_pools_has_one_budget_and_each_pool_heeds_the_others() {
    let mut o = draining(1);
    let other = pool("archive");
    o.pools.push(other.clone());
    assert_eq!(plan(&o).budget, None, "the first by name has it");
    let mut of_other = Observed {
        pool: other,
        budgets: vec![],
        ..o
    };
    assert_eq!(write(&mut of_other).why, Why::Closing);
    assert_eq!(write(&mut of_other).why, Why::Open(domain(1)));
}

#[test]
fn what_another_pools_budget_leaves_out_does_not_count() {
    let mut o = draining(1);
    assert_eq!(plan(&o).why, Why::Open(domain(1)));
    o.drives[1].metadata.labels = Some(of(json!({"tier": "archive"})));
    let mut other = pool("archive");
    other.spec.selector = of(json!({"matchLabels": {"tier": "archive"}}));
    o.pools.push(other.clone());
    let mut of_other = Observed {
        pool: other,
        ..o.clone()
    };
    write(&mut of_other);
    let mut own = objects::budget(
        &settings(),
        &o.pool,
        &crate::pools::plan::Budget {
            closed: [uid(1), uid(3)].into(),
            open: None,
        },
    );
    known(&mut own, 2);
    o.budgets = vec![own, of_other.budgets.pop().unwrap()];
    assert_eq!(plan(&o).why, Why::Open(domain(1)));
    let list = o.budgets[1]
        .spec
        .as_mut()
        .unwrap()
        .selector
        .as_mut()
        .unwrap();
    list.match_expressions = None;
    assert!(matches!(plan(&o).why, Why::Held(..)));
}

#[test]
fn a_drive_in_no_pool_has_no_budget_and_holds_nobody() {
    let mut o = draining(1);
    o.drives[1].metadata.labels = Some(of(json!({"tier": "none"})));
    o.pools[0].spec.selector =
        of(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}));
    o.pool = o.pools[0].clone();
    o.budgets.clear();
    assert_eq!(closed(&write(&mut o)), [1, 3]);
    assert_eq!(plan(&o).why, Why::Open(domain(1)));
}
