//! The API server is lost, or is of yesterday: Volumes come back from the drives with every slice and no
//! number lower than before, whatever write `adopt` and the operator die after.

use super::sweep::{Operator, one, settle};
use super::world::{ATTACHMENTS, ENGINE_SECRETS, ENGINES, SLICES, VOLUMES, World};
use crate::adopt;
use crate::adopt::plan::{Plan, Wish};
use crate::volumes;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Runs of `adopt` until one must have come to its end.
const RUNS: usize = 10;
/// More writes than an adoption and the start of its engine make.
const GREATEST: u32 = 80;

fn wish() -> Wish {
    Wish {
        all_drives: true,
        ..Wish::default()
    }
}

/// A person runs it again until it ends; the operator goes about its work between.
async fn adopt(world: &World, operators: &mut [Operator; 1]) -> Plan {
    for _ in 0..RUNS {
        let adopted = adopt::run(&operators[0].context, wish(), false).await;
        if world.api.state().silent {
            world.api.state().silent = false;
            operators[0] = Operator::start(world);
        }
        // What was cut short is looked at by everybody.
        operators[0].round(world).await;
        if let Ok(plan) = adopted {
            return plan;
        }
    }
    panic!("adopt does not end: {:#?}", world.api.state().log);
}

fn uids(objects: &Value, field: &str) -> BTreeSet<String> {
    let objects = objects.as_array().unwrap().iter();
    objects
        .map(|o| o[field].as_str().unwrap().to_owned())
        .collect()
}

/// A volume that has served, grown, been attached and moved its engine; as its object says.
async fn lived(world: &mut World, operators: &mut [Operator; 1], replicas: u8) -> Value {
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": replicas, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    settle(world, operators).await;
    world.set(VOLUMES, "db", "size", json!("2Gi"));
    let attachment = json!({"metadata": {"name": "a1"}, "spec": {"volume": "db", "node": "n3"}});
    world.put(ATTACHMENTS, attachment);
    settle(world, operators).await;
    drain(world, operators).await;
    one(world, VOLUMES)
}

async fn drain(world: &mut World, operators: &mut [Operator; 1]) {
    let pod = one(world, ENGINES);
    world.delete(ENGINES, pod["metadata"]["name"].as_str().unwrap());
    settle(world, operators).await;
}

async fn comes_back(
    world: &mut World,
    operators: &mut [Operator; 1],
    before: &Value,
    slices: usize,
) {
    adopt(world, operators).await;
    settle(world, operators).await;
    let after = one(world, VOLUMES);
    let (was, is) = (&before["status"], &after["status"]);
    assert_eq!(after["spec"]["uid"], before["spec"]["uid"]);
    assert_eq!(after["spec"]["replicas"], before["spec"]["replicas"]);
    assert_eq!(
        (&after["spec"]["size"], &is["phase"]),
        (&json!("2Gi"), &json!("Ready")),
        "{after:#}"
    );
    assert_eq!(
        (&is["lineage"], &is["formed"]),
        (&was["lineage"], &json!(true))
    );
    assert_eq!(
        uids(&is["members"], "sliceUid"),
        uids(&was["members"], "sliceUid")
    );
    for number in ["term", "documentGeneration"] {
        assert!(
            is[number].as_i64() > was[number].as_i64(),
            "{number}: {after:#}"
        );
    }
    assert!(is["attachGeneration"].as_i64() >= was["attachGeneration"].as_i64());
    assert_eq!(
        (world.slices_at_drives(), world.names(SLICES).len()),
        (slices, slices)
    );
    assert!(
        after["metadata"]["annotations"]
            .as_object()
            .is_none_or(|a| a.is_empty())
    );
    let again = adopt(world, operators).await;
    assert_eq!(again, Plan::default(), "a second run has nothing to do");
}

async fn sweep(replicas: u8, slices: usize) {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        let mut operators = [Operator::start(&world)];
        let before = lived(&mut world, &mut operators, replicas).await;
        world.lose_everything();
        operators[0] = Operator::start(&world);
        world.api.state().silent_after = Some(write);
        comes_back(&mut world, &mut operators, &before, slices).await;
        if world.api.state().silent_after.is_some() {
            assert!(write > 5, "an adoption makes more writes than {write}");
            return;
        }
    }
    panic!("an adoption makes more than {GREATEST} writes");
}

#[tokio::test]
async fn a_mirror_comes_back_from_its_drives_whatever_write_anybody_dies_after() {
    sweep(2, 3).await;
}

#[tokio::test]
async fn a_volume_of_one_slice_comes_back_too() {
    sweep(1, 1).await;
}

#[tokio::test]
async fn a_restored_api_server_uses_no_term_again_even_before_a_drive_has_pushed() {
    let mut world = World::new().await;
    let mut operators = [Operator::start(&world)];
    lived(&mut world, &mut operators, 2).await;
    let yesterday = world.api.state().objects.clone();
    for _ in 0..3 {
        drain(&mut world, &mut operators).await;
    }
    let greatest = *world.terms.last().unwrap();
    world.lose_everything();
    let pods = |collection: &str| [ENGINES, ENGINE_SECRETS].contains(&collection);
    let kept = yesterday.into_iter().filter(|((c, _), _)| !pods(c));
    world.api.state().objects.extend(kept);
    // A pass of an operator that nobody has told anything yet.
    operators[0] = Operator::start(&world);
    let shared = volumes::Shared::of(operators[0].context.clone());
    volumes::pass("db", &shared).await.unwrap();
    assert_eq!(one(&world, VOLUMES)["status"]["term"], greatest + 1);
    settle(&mut world, &mut operators).await;
    assert_eq!(one(&world, VOLUMES)["status"]["phase"], "Ready");
    assert_eq!(world.slices_at_drives(), 3);
}
