//! A person says that a node is gone on which an engine runs and a volume is attached, and the operator dies
//! after each single write from then on: the engine is replaced once, and what was there is let go.

use super::sweep::{Operator, one, settle};
use super::world::{ATTACHMENTS, BUDGETS, ENGINES, HOST_SECRETS, INITIATORS, VOLUMES, World};
use serde_json::json;

/// More writes than it takes.
const GREATEST: u32 = 60;

async fn gone(world: &mut World, operators: &mut [Operator], fatal: u32) {
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    let on_it = json!({"metadata": {"name": "a1"}, "spec": {"volume": "db", "node": "n2"}});
    world.put(ATTACHMENTS, on_it);
    settle(world, operators).await;
    world.observe("a1", true);
    settle(world, operators).await;
    assert_eq!(one(world, ATTACHMENTS)["status"]["phase"], "Attached");
    let term = one(world, VOLUMES)["status"]["term"].as_i64().unwrap();

    world.api.state().silent_after = Some(fatal);
    world.taint("n2", true);
    settle(world, operators).await;
    let (volume, attachment) = (one(world, VOLUMES), one(world, ATTACHMENTS));
    let engine = one(world, ENGINES);
    // Another one for each operator that died between the swap and the pod.
    assert!(volume["status"]["term"].as_i64().unwrap() > term);
    assert_eq!(engine["spec"]["nodeName"], "n1");
    assert_eq!(
        engine["metadata"]["name"],
        volume["status"]["engine"]["pod"]
    );
    assert!(volume["status"]["hosts"].is_null(), "{volume:#}");
    assert_eq!(attachment["status"]["phase"], "Pending", "{attachment:#}");
    for kind in [INITIATORS, HOST_SECRETS, BUDGETS] {
        assert_eq!(world.names(kind), [""; 0], "left in {kind}");
    }

    world.taint("n2", false);
    settle(world, operators).await;
    let back = one(world, ATTACHMENTS);
    assert_eq!(back["status"]["generation"], 2, "{back:#}");
    assert_eq!(world.names(INITIATORS).len(), 1);
}

#[tokio::test]
async fn what_was_on_a_node_that_is_gone_is_let_go_whatever_write_the_operator_dies_after() {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        let mut operators = [Operator::start(&world)];
        gone(&mut world, &mut operators, write).await;
        if world.api.state().silent_after.is_some() {
            assert!(write > 5, "it makes more writes than {write}");
            return;
        }
    }
    panic!("it makes more than {GREATEST} writes");
}
