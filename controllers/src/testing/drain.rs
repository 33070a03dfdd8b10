//! A node is cordoned, drained and back, and the operator dies after each single write: the budget is open
//! for that node's drives and for no others, and closed in the end.

use super::sweep::{Operator, settle};
use super::world::{NODES, VOLUMES, World};
use crate::pools::apply::reconcile;
use serde_json::{Value, json};
use weft_crds::Pool;

const POOLS: &str = "/apis/weft.storage/v1alpha1/pools";
const DRIVES: &str = "/apis/weft.storage/v1alpha1/drives";
const PODS: &str = "/api/v1/namespaces/weft-drives/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/weft-drives/poddisruptionbudgets";

/// Rounds until a budget must have settled.
const ROUNDS: usize = 20;
/// More writes than a drain makes.
const GREATEST: u32 = 40;

/// Each drive has a pod, and says that it serves.
fn furnish(world: &World) {
    for mut drive in world.all(DRIVES) {
        let name = drive["metadata"]["name"].as_str().unwrap().to_owned();
        drive["status"]["conditions"] = json!([{"type": "Ready", "status": "True", "reason": "Serving",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let labels = json!({"weft.storage/drive-uid": drive["spec"]["uid"], "weft.storage/component": "drive"});
        let pod = json!({"metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}});
        let mut state = world.api.state();
        state.store(DRIVES, &name, drive);
        state.store(PODS, &name, pod);
    }
}

/// Passes over the pool until two change nothing; Kubernetes takes note of the budget in between.
async fn budget(world: &World, operators: &mut [Operator]) -> Value {
    let mut unchanged = 0;
    for _ in 0..ROUNDS {
        let before = world.api.state().version;
        let mut failed = false;
        for operator in operators.iter_mut() {
            let pool: Pool = serde_json::from_value(world.all(POOLS)[0].clone()).unwrap();
            failed |= reconcile(&operator.context, &pool).await.is_err();
            if world.api.state().silent {
                world.api.state().silent = false;
                *operator = Operator::start(world);
            }
        }
        for mut budget in world.all(BUDGETS) {
            if budget["status"].is_null() {
                budget["status"] = json!({"observedGeneration": budget["metadata"]["generation"], "currentHealthy": 4,
                    "desiredHealthy": 4, "disruptionsAllowed": 0, "expectedPods": 4});
                world.api.state().store(BUDGETS, "fast", budget);
            }
        }
        let changed = failed || world.api.state().version != before;
        unchanged = if changed { 0 } else { unchanged + 1 };
        if unchanged > 1 {
            let budgets = world.all(BUDGETS);
            assert_eq!(budgets.len(), 1);
            return budgets[0].clone();
        }
    }
    panic!("it does not settle: {:#?}", world.api.state().log);
}

fn listed(budget: &Value) -> usize {
    let list = &budget["spec"]["selector"]["matchExpressions"][0]["values"];
    list.as_array().unwrap().len()
}

fn evictable(world: &World) -> String {
    let pool = world.all(POOLS)[0].clone();
    let conditions = pool["status"]["conditions"].as_array().unwrap().clone();
    let found = conditions
        .iter()
        .find(|c| c["type"] == "Evictable")
        .unwrap();
    found["reason"].as_str().unwrap().to_owned()
}

async fn drain(world: &mut World, operators: &mut [Operator]) {
    furnish(world);
    assert_eq!(listed(&budget(world, operators).await), 4);
    world.set(NODES, "n2", "unschedulable", json!(true));
    let open = budget(world, operators).await;
    // Both drives of the node.
    assert_eq!((listed(&open), evictable(world).as_str()), (2, "Open"));
    assert_eq!(open["metadata"]["annotations"]["weft.storage/open"], "n2");
    // The copy elsewhere falls behind: the door closes.
    let mut volume = world.all(VOLUMES)[0].clone();
    volume["status"]["members"][0]["state"] = json!("OutOfSync");
    world.api.state().store(VOLUMES, "db", volume.clone());
    assert_eq!(listed(&budget(world, operators).await), 4);
    assert_eq!(evictable(world), "WaitsForVolumes");
    volume["status"]["members"][0]["state"] = json!("InSync");
    world.api.state().store(VOLUMES, "db", volume);
    assert_eq!(listed(&budget(world, operators).await), 2);
    world.set(NODES, "n2", "unschedulable", json!(false));
    assert_eq!(listed(&budget(world, operators).await), 4);
    assert_eq!(evictable(world), "NothingLeaves");
}

#[tokio::test]
async fn a_drain_opens_the_door_of_its_node_whatever_write_the_operator_dies_after() {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        let mut operators = [Operator::start(&world)];
        let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 2, "onNoData": "Pause"});
        world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
        settle(&mut world, &mut operators).await;
        world.api.state().silent_after = Some(write);
        drain(&mut world, &mut operators).await;
        if world.api.state().silent_after.is_some() {
            assert!(write > 5, "a drain makes more writes than {write}");
            return;
        }
    }
    panic!("a drain makes more than {GREATEST} writes");
}
