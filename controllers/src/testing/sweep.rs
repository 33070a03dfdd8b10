//! The operator dies after each single write of "create, grow, attach, stage, grow, unstage, detach, delete"
//! in turn, and another process goes on: no duplicate, no leak, no term with two pods.

use super::world::{
    ATTACHMENTS, BUDGETS, ENGINE_SECRETS, ENGINES, HOST_SECRETS, INITIATORS, SLICES, VOLUMES, World,
};
use crate::shared::context::Context;
use crate::volumes::parts;
use crate::{attachments, slices, volumes};
use serde_json::{Value, json};
use std::sync::Arc;

/// Rounds until everything must have settled; a life cycle needs about ten a step.
const ROUNDS: usize = 60;
/// More writes than any life cycle makes.
const GREATEST: u32 = 200;

pub(super) struct Operator {
    pub(super) context: Arc<Context>,
    volumes: Arc<volumes::Shared>,
}

impl Operator {
    pub(super) fn start(world: &World) -> Self {
        let context = world.operator();
        let volumes = volumes::Shared::of(context.clone());
        Self { context, volumes }
    }

    /// One pass over everything there is; the last failure, if it met one.
    pub(super) async fn round(&self, world: &World) -> Option<String> {
        let mut failed = None;
        for name in world.names(VOLUMES) {
            let passed = volumes::pass(&name, &self.volumes).await;
            failed = passed.err().map(|e| e.to_string()).or(failed);
        }
        for name in world.names(SLICES) {
            let passed = slices::pass(&name, &self.context).await;
            failed = passed.err().map(|e| e.to_string()).or(failed);
        }
        for name in world.names(ATTACHMENTS) {
            let passed = attachments::pass(&name, &self.context).await;
            failed = passed.err().map(|e| e.to_string()).or(failed);
        }
        failed
    }
}

/// Runs until two rounds in a row change nothing; a dead operator is followed by another.
pub(super) async fn settle(world: &mut World, operators: &mut [Operator]) {
    let volumes = world.all(VOLUMES);
    let parts = |volume: &Value| parts::wanted(&serde_json::from_value(volume.clone()).unwrap());
    let moves = |volume: &Value| volume["spec"]["evict"].as_array().map_or(0, Vec::len);
    let slices = |volume: &Value| parts(volume).len() + moves(volume) + recomposed(volume);
    let wanted: usize = volumes.iter().map(slices).sum();
    let (mut failed, mut unchanged) = (None, 0);
    for _ in 0..ROUNDS {
        let before = world.api.state().version;
        failed = None;
        for operator in operators.iter_mut() {
            world.push(&operator.context).await;
            failed = operator.round(world).await.or(failed);
            if world.api.state().silent {
                world.api.state().silent = false;
                *operator = Operator::start(world);
            }
        }
        world.kubelet().await;
        world.collect();
        for operator in operators.iter() {
            world.push(&operator.context).await;
        }
        assert!(
            world.names(SLICES).len() <= wanted && world.names(INITIATORS).len() <= 1,
            "a duplicate"
        );
        let changed = failed.is_some() || world.api.state().version != before || !quiet(world);
        unchanged = if changed { 0 } else { unchanged + 1 };
        // An operator that has just started hears the pods after its first round.
        if unchanged > 1 {
            return;
        }
    }
    panic!(
        "it does not settle: {failed:?} {:#?}",
        world.api.state().log
    );
}

/// What comes is there before what leaves has gone: one more while the number of copies changes.
fn recomposed(volume: &Value) -> usize {
    let members = volume["status"]["members"].as_array();
    let data = members.map(|all| all.iter().filter(|m| m["role"] != "Witness").count());
    let wanted = volume["spec"]["replicas"].as_u64();
    usize::from(data.is_some_and(|data| Some(data as u64) != wanted))
}

/// No engine has anything to say that was not written down: the swap after a push is a round away.
fn quiet(world: &World) -> bool {
    let volumes = world.all(VOLUMES);
    volumes.iter().all(|v| {
        let status = &v["status"];
        status["engine"].is_null()
            || status["engine"]["acknowledged"] == status["documentGeneration"]
    })
}

pub(super) fn one(world: &World, collection: &str) -> Value {
    let found = world.all(collection);
    assert_eq!(found.len(), 1, "{collection}: {found:#?}");
    found[0].clone()
}

/// Grows the volume; whatever dies meanwhile, no engine is started for it.
async fn grow(world: &mut World, operators: &mut [Operator], size: &str) {
    let term = one(world, VOLUMES)["status"]["term"].clone();
    world.set(VOLUMES, "db", "size", json!(size));
    settle(world, operators).await;
    let volume = one(world, VOLUMES);
    let status = &volume["status"];
    assert_eq!(
        (&status["size"], &status["allocated"]),
        (&json!(size), &json!(size)),
        "{volume:#}"
    );
    for slice in world.all(SLICES) {
        let size = match slice["spec"]["role"].as_str() {
            Some("Witness") => "64Ki",
            _ => size,
        };
        assert_eq!(slice["spec"]["size"], size);
        assert_eq!(slice["status"]["size"], size);
    }
    assert_eq!(
        (&status["term"], &status["phase"]),
        (&term, &json!("Ready"))
    );
    let expanded = status["conditions"].as_array().unwrap();
    let expanded = expanded.iter().find(|c| c["type"] == "Expanded").unwrap();
    assert_eq!(expanded["status"], "True", "{volume:#}");
}

async fn life(world: &mut World, operators: &mut [Operator], replicas: u8, slices: usize) {
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": replicas, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    settle(world, operators).await;
    let volume = one(world, VOLUMES);
    assert_eq!(volume["status"]["phase"], "Ready", "{volume:#}");
    assert_eq!(
        volume["status"]["replicas"],
        format!("{replicas}/{replicas}")
    );
    assert_eq!(world.slices_at_drives(), slices);
    assert_eq!(
        (
            world.names(ENGINES).len(),
            world.names(ENGINE_SECRETS).len()
        ),
        (1, 1)
    );

    grow(world, operators, "2Gi").await;

    world.put(
        ATTACHMENTS,
        json!({"metadata": {"name": "a1"}, "spec": {"volume": "db", "node": "n3"}}),
    );
    settle(world, operators).await;
    let attachment = one(world, ATTACHMENTS);
    assert_eq!(attachment["status"]["phase"], "Admitted", "{attachment:#}");
    assert_eq!(attachment["status"]["initiator"], "UserSpace");
    let (pod, secret) = (one(world, INITIATORS), one(world, HOST_SECRETS));
    assert_eq!(
        pod["metadata"]["name"],
        attachment["status"]["initiatorPod"]
    );
    assert_eq!(
        secret["metadata"]["name"],
        attachment["status"]["secretName"]
    );

    world.observe("a1", true);
    settle(world, operators).await;
    let attached = one(world, ATTACHMENTS)["status"].clone();
    assert_eq!(attached["phase"], "Attached");

    grow(world, operators, "3Gi").await;
    let still = one(world, ATTACHMENTS)["status"].clone();
    for field in ["phase", "generation", "term", "address", "initiatorPod"] {
        assert_eq!(still[field], attached[field], "{field} changed by growing");
    }

    world.delete(ATTACHMENTS, "a1");
    settle(world, operators).await;
    assert!(
        one(world, VOLUMES)["status"]["hosts"].is_null(),
        "revoked although staged"
    );
    assert_eq!(one(world, ATTACHMENTS)["status"]["phase"], "Detaching");
    assert_eq!(
        world.names(INITIATORS).len(),
        1,
        "the initiator stays until unstaged"
    );
    world.observe("a1", false);
    settle(world, operators).await;
    assert_eq!(world.names(ATTACHMENTS), Vec::<String>::new());

    world.delete(VOLUMES, "db");
    settle(world, operators).await;
    for collection in [
        VOLUMES,
        SLICES,
        ATTACHMENTS,
        ENGINES,
        ENGINE_SECRETS,
        INITIATORS,
        HOST_SECRETS,
        BUDGETS,
    ] {
        assert_eq!(
            world.names(collection),
            Vec::<String>::new(),
            "left in {collection}"
        );
    }
    assert_eq!(world.slices_at_drives(), 0, "a drive still holds a slice");
}

#[tokio::test]
async fn an_operator_that_dies_after_any_write_leaves_no_duplicate_and_no_leak() {
    sweep(1, 1).await;
}

#[tokio::test]
async fn the_same_holds_of_a_mirror_of_two_and_its_witness() {
    sweep(2, 3).await;
}

/// A volume of two copies gets a third and loses it again, while it serves.
async fn third_copy(world: &mut World, operators: &mut [Operator]) {
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 2, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    settle(world, operators).await;
    let term = one(world, VOLUMES)["status"]["term"].clone();
    let shape = |volume: &Value| -> Vec<String> {
        let members = volume["status"]["members"].as_array().unwrap();
        let role = |m: &Value| m["role"].as_str().unwrap().to_owned();
        members.iter().map(role).collect()
    };
    for (replicas, wanted) in [
        (3, ["Data", "Data", "Data"]),
        (2, ["Data", "Data", "Witness"]),
    ] {
        world.set(VOLUMES, "db", "replicas", json!(replicas));
        settle(world, operators).await;
        let volume = one(world, VOLUMES);
        assert_eq!(shape(&volume), wanted, "{volume:#}");
        assert_eq!(
            volume["status"]["replicas"],
            format!("{replicas}/{replicas}")
        );
        assert_eq!(volume["status"]["term"], term, "no other engine for it");
        assert_eq!(
            (world.slices_at_drives(), world.names(SLICES).len()),
            (3, 3)
        );
    }
}

#[tokio::test]
async fn a_third_copy_comes_and_goes_whatever_write_the_operator_dies_after() {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        let mut operators = [Operator::start(&world)];
        world.api.state().silent_after = Some(write);
        third_copy(&mut world, &mut operators).await;
        if world.api.state().silent_after.is_some() {
            assert!(write > 20, "it makes more writes than {write}");
            return;
        }
    }
    panic!("it makes more than {GREATEST} writes");
}

/// A volume of two copies, one of which goes to another drive.
async fn move_one(world: &mut World, operators: &mut [Operator]) {
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 2, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    settle(world, operators).await;
    let before = one(world, VOLUMES);
    world.set(VOLUMES, "db", "evict", json!(["d1"]));
    settle(world, operators).await;
    let volume = one(world, VOLUMES);
    let drives = |volume: &Value| -> Vec<String> {
        let members = volume["status"]["members"].as_array().unwrap();
        let drive = |m: &Value| m["drive"].as_str().unwrap().to_owned();
        members.iter().map(drive).collect()
    };
    assert_eq!(drives(&before), ["d0", "d1", "d2"]);
    assert_eq!(drives(&volume), ["d0", "d3", "d2"]);
    assert_eq!(volume["status"]["term"], before["status"]["term"]);
    assert_eq!(
        (world.slices_at_drives(), world.names(SLICES).len()),
        (3, 3)
    );
}

#[tokio::test]
async fn a_copy_moves_once_whatever_write_the_operator_dies_after() {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        world.api.state().silent_after = Some(write);
        let mut operators = [Operator::start(&world)];
        move_one(&mut world, &mut operators).await;
        if world.api.state().silent_after.is_some() {
            assert!(write > 20, "a move makes more writes than {write}");
            return;
        }
    }
    panic!("a move makes more than {GREATEST} writes");
}

async fn sweep(replicas: u8, slices: usize) {
    for write in 1..GREATEST {
        let mut world = World::new().await;
        world.api.state().silent_after = Some(write);
        let mut operators = [Operator::start(&world)];
        life(&mut world, &mut operators, replicas, slices).await;
        if world.api.state().silent_after.is_some() {
            assert!(
                write > 20,
                "a life cycle makes more writes than {write}: is the sweep still one?"
            );
            return;
        }
    }
    panic!("a life cycle makes more than {GREATEST} writes");
}

#[tokio::test]
async fn two_operators_at_once_are_harmless() {
    let mut world = World::new().await;
    let mut operators = [Operator::start(&world), Operator::start(&world)];
    life(&mut world, &mut operators, 3, 3).await;
}

#[tokio::test]
async fn a_drained_engine_is_replaced_and_the_host_is_told() {
    let mut world = World::new().await;
    let mut operators = [Operator::start(&world)];
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    world.put(
        ATTACHMENTS,
        json!({"metadata": {"name": "a1"}, "spec": {"volume": "db", "node": "n3"}}),
    );
    settle(&mut world, &mut operators).await;
    let before = one(&world, ATTACHMENTS)["status"].clone();
    let first = one(&world, ENGINES)["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    world.delete(ENGINES, &first);
    settle(&mut world, &mut operators).await;
    let after = one(&world, ATTACHMENTS)["status"].clone();
    assert_eq!(after["phase"], "Admitted");
    assert_eq!(
        after["term"].as_i64(),
        before["term"].as_i64().map(|term| term + 1)
    );
    assert_ne!(after["address"], before["address"]);
    assert_eq!(
        (&after["generation"], &after["hostId"]),
        (&before["generation"], &before["hostId"])
    );
    assert_eq!(
        (
            world.names(ENGINES).len(),
            world.names(ENGINE_SECRETS).len()
        ),
        (1, 1)
    );
    let secret = one(&world, HOST_SECRETS);
    let secret: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
    let document: weft_spec::initiator::InitiatorDocument =
        crate::shared::documents::read(&secret).unwrap();
    assert_eq!(
        Some(document.path.address.to_string().as_str()),
        after["address"].as_str()
    );
}

#[tokio::test]
async fn a_second_node_waits_for_the_first_and_then_gets_the_volume() {
    let mut world = World::new().await;
    let mut operators = [Operator::start(&world)];
    let spec = json!({"pool": "fast", "size": "1Gi", "replicas": 1, "onNoData": "Pause"});
    world.put(VOLUMES, json!({"metadata": {"name": "db"}, "spec": spec}));
    world.put(
        ATTACHMENTS,
        json!({"metadata": {"name": "a1"}, "spec": {"volume": "db", "node": "n3"}}),
    );
    settle(&mut world, &mut operators).await;
    world.put(
        ATTACHMENTS,
        json!({"metadata": {"name": "a2"}, "spec": {"volume": "db", "node": "n1"}}),
    );
    settle(&mut world, &mut operators).await;
    let second = world.all(ATTACHMENTS)[1].clone();
    let said = &second["status"]["conditions"][0];
    assert_eq!(said["reason"], "VolumeInUse");
    assert!(
        said["message"]
            .as_str()
            .unwrap()
            .contains("attached to node n3 by attachment a1")
    );
    world.delete(ATTACHMENTS, "a1");
    settle(&mut world, &mut operators).await;
    let second = one(&world, ATTACHMENTS);
    assert_eq!(
        (&second["status"]["phase"], &second["status"]["generation"]),
        (&json!("Admitted"), &json!(2))
    );
}
