//! The controller service against an API server in memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets a surprise has failed"
)]

mod support;

use serde_json::{Value, json};
use std::collections::HashMap;
use support::Api;
use tonic::{Code, Request, Status};
use weft_csi::controller::Controller;
use weft_csi_proto as csi;
use weft_csi_proto::controller_server::Controller as _;
use weft_csi_proto::volume_capability::access_mode::Mode;
use weft_csi_proto::volume_capability::{AccessMode, AccessType, MountVolume};

fn api() -> (Api, Controller) {
    let api = Api::new();
    for node in ["n1", "n2"] {
        api.put(
            "nodes",
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}),
        );
    }
    api.put(
        "pools",
        json!({
            "apiVersion": "weft.storage/v1alpha1", "kind": "Pool", "metadata": {"name": "fast"},
            "spec": {"selector": {}, "spreadBy": [], "overcommit": "100%"},
        }),
    );
    let controller = Controller::new(&api.client());
    (api, controller)
}

fn with_phase(volume: &Value, phase: &str, reason: &str, message: &str) -> Option<Value> {
    let mut volume = volume.clone();
    volume["status"] = json!({"phase": phase, "conditions": [{
        "type": "Ready", "status": if phase == "Ready" { "True" } else { "False" },
        "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]});
    Some(volume)
}

fn serving(volume: &Value) -> Option<Value> {
    with_phase(volume, "Ready", "Serving", "")
}

fn admitting(attachment: &Value) -> Option<Value> {
    let mut attachment = attachment.clone();
    attachment["status"] = json!({"phase": "Admitted"});
    Some(attachment)
}

fn capability() -> Option<csi::VolumeCapability> {
    Some(csi::VolumeCapability {
        access_mode: Some(AccessMode {
            mode: Mode::SingleNodeWriter.into(),
        }),
        access_type: Some(AccessType::Mount(MountVolume::default())),
    })
}

fn create(name: &str) -> csi::CreateVolumeRequest {
    csi::CreateVolumeRequest {
        name: name.to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: 64 << 20,
            limit_bytes: 0,
        }),
        volume_capabilities: capability().into_iter().collect(),
        parameters: HashMap::from([("pool".to_owned(), "fast".to_owned())]),
        ..Default::default()
    }
}

fn publish(volume: &str, node: &str) -> csi::ControllerPublishVolumeRequest {
    csi::ControllerPublishVolumeRequest {
        volume_id: volume.to_owned(),
        node_id: node.to_owned(),
        volume_capability: capability(),
        ..Default::default()
    }
}

fn soon<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("grpc-timeout", "1S".parse().unwrap());
    request
}

async fn created(controller: &Controller, name: &str) -> csi::Volume {
    let answer = controller
        .create_volume(Request::new(create(name)))
        .await
        .unwrap();
    answer.into_inner().volume.unwrap()
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer
        .map(drop)
        .map_or_else(|status| status.code(), |()| Code::Ok)
}

#[tokio::test]
async fn a_volume_is_made_once_and_given_again() {
    let (api, controller) = api();
    let _operator = api.operate("volumes", serving);
    let first = created(&controller, "pvc-1").await;
    let second = created(&controller, "pvc-1").await;
    assert_eq!(first, second);
    assert_eq!(
        (first.volume_id.as_str(), first.capacity_bytes),
        ("pvc-1", 64 << 20)
    );
    assert_eq!(api.names("volumes"), ["pvc-1"]);
    assert_eq!(
        api.writes()
            .iter()
            .filter(|call| *call == "POST volumes")
            .count(),
        1
    );
    let long = "Ünlikely name ".repeat(9);
    let odd = created(&controller, &long).await;
    assert!(odd.volume_id.starts_with("v-"));
    assert_eq!(odd, created(&controller, &long).await);
    let mut bigger = create("pvc-1");
    bigger.capacity_range = Some(csi::CapacityRange {
        required_bytes: 65 << 20,
        limit_bytes: 0,
    });
    assert_eq!(
        code(controller.create_volume(Request::new(bigger)).await),
        Code::AlreadyExists
    );
}

#[tokio::test]
async fn a_call_that_was_cut_off_finds_its_volume() {
    let (api, controller) = api();
    let error = controller
        .create_volume(soon(create("pvc-1")))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("operator"), "{error}");
    let _operator = api.operate("volumes", serving);
    created(&controller, "pvc-1").await;
    assert_eq!(api.names("volumes"), ["pvc-1"]);
}

#[tokio::test]
async fn a_volume_that_cannot_be_placed_is_refused_and_leaves_nothing() {
    let (api, controller) = api();
    let refuse = |v: &Value| with_phase(v, "Pending", "NotEnoughCapacity", "ask for less");
    let operator = api.operate("volumes", refuse);
    let error = controller
        .create_volume(Request::new(create("pvc-1")))
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.message()),
        (Code::ResourceExhausted, "ask for less")
    );
    assert!(api.names("volumes").is_empty());
    operator.abort();
    let mut lost = create("pvc-1");
    lost.parameters.insert("pool".to_owned(), "slow".to_owned());
    let error = controller
        .create_volume(Request::new(lost))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    assert!(error.message().contains("there is no Pool slow"), "{error}");
    assert!(api.names("volumes").is_empty());
}

#[tokio::test]
async fn a_volume_is_deleted_when_it_is_gone_and_not_while_attached() {
    let (api, controller) = api();
    let _operators = [
        api.operate("volumes", serving),
        api.operate("attachments", admitting),
    ];
    created(&controller, "pvc-1").await;
    controller
        .controller_publish_volume(Request::new(publish("pvc-1", "n1")))
        .await
        .unwrap();
    let delete = || csi::DeleteVolumeRequest {
        volume_id: "pvc-1".into(),
        ..Default::default()
    };
    let error = controller
        .delete_volume(Request::new(delete()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("node n1"), "{error}");
    let all = csi::ControllerUnpublishVolumeRequest {
        volume_id: "pvc-1".into(),
        ..Default::default()
    };
    controller
        .controller_unpublish_volume(Request::new(all))
        .await
        .unwrap();

    let mut held = api.get("volumes", "pvc-1").unwrap();
    held["metadata"]["finalizers"] = json!(["weft.storage/slices"]);
    api.put("volumes", held);
    assert_eq!(
        code(controller.delete_volume(soon(delete())).await),
        Code::DeadlineExceeded
    );
    let ends = async {
        support::eventually("deletion", || {
            !api.get("volumes", "pvc-1").unwrap()["metadata"]["deletionTimestamp"].is_null()
        })
        .await;
        assert_eq!(
            code(controller.create_volume(soon(create("pvc-1"))).await),
            Code::Aborted
        );
        api.release("volumes", "pvc-1");
    };
    ends.await;
    for unknown in ["pvc-1", "Never A Name", &"x".repeat(128)] {
        let request = csi::DeleteVolumeRequest {
            volume_id: unknown.to_owned(),
            ..Default::default()
        };
        controller
            .delete_volume(Request::new(request))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn one_node_at_a_time_is_admitted() {
    let (api, controller) = api();
    let _operators = [
        api.operate("volumes", serving),
        api.operate("attachments", admitting),
    ];
    created(&controller, "pvc-1").await;
    let publish_to = |request| controller.controller_publish_volume(Request::new(request));
    let context = publish_to(publish("pvc-1", "n1"))
        .await
        .unwrap()
        .into_inner()
        .publish_context;
    let name = weft_csi::names::attachment("pvc-1", "n1");
    assert_eq!(
        context,
        HashMap::from([("attachment".to_owned(), name.clone())])
    );
    publish_to(publish("pvc-1", "n1")).await.unwrap();
    assert_eq!(api.names("attachments"), [name]);

    let error = publish_to(publish("pvc-1", "n2")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(error.message().contains("node n1"), "{error}");
    let read_only = csi::ControllerPublishVolumeRequest {
        readonly: true,
        ..publish("pvc-1", "n1")
    };
    assert_eq!(code(publish_to(read_only).await), Code::AlreadyExists);
    assert_eq!(
        code(publish_to(publish("pvc-1", "n9")).await),
        Code::NotFound
    );
    assert_eq!(
        code(publish_to(publish("pvc-9", "n1")).await),
        Code::NotFound
    );

    let unpublish = |node: &str| csi::ControllerUnpublishVolumeRequest {
        volume_id: "pvc-1".into(),
        node_id: node.to_owned(),
        ..Default::default()
    };
    for node in ["n2", "n9", "n1", "n1"] {
        controller
            .controller_unpublish_volume(Request::new(unpublish(node)))
            .await
            .unwrap();
    }
    assert!(api.names("attachments").is_empty());
    publish_to(publish("pvc-1", "n2")).await.unwrap();
}

#[tokio::test]
async fn an_admission_that_does_not_come_says_why() {
    let (api, controller) = api();
    let volumes = api.operate("volumes", serving);
    created(&controller, "pvc-1").await;
    volumes.abort();
    let _refusing = api.operate("attachments", |attachment| {
        let mut attachment = attachment.clone();
        attachment["status"] = json!({"phase": "Pending", "conditions": [{
            "type": "Admitted", "status": "False", "reason": "EngineStarting",
            "message": "the engine starts", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]});
        Some(attachment)
    });
    let waited = controller
        .controller_publish_volume(soon(publish("pvc-1", "n1")))
        .await;
    let error = waited.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.message().contains("the engine starts"), "{error}");
}

#[tokio::test]
async fn a_detach_waits_until_the_right_is_taken_back() {
    let (api, controller) = api();
    let _volumes = api.operate("volumes", serving);
    let attachments = api.operate("attachments", admitting);
    created(&controller, "pvc-1").await;
    controller
        .controller_publish_volume(Request::new(publish("pvc-1", "n1")))
        .await
        .unwrap();
    attachments.abort();
    let name = weft_csi::names::attachment("pvc-1", "n1");
    let mut held = api.get("attachments", &name).unwrap();
    held["metadata"]["finalizers"] = json!(["weft.storage/admission"]);
    api.put("attachments", held);
    let unpublish = || csi::ControllerUnpublishVolumeRequest {
        volume_id: "pvc-1".into(),
        node_id: "n1".into(),
        ..Default::default()
    };
    let early = controller
        .controller_unpublish_volume(soon(unpublish()))
        .await;
    assert_eq!(code(early), Code::DeadlineExceeded);
    let again = controller
        .controller_publish_volume(soon(publish("pvc-1", "n1")))
        .await;
    assert_eq!(code(again), Code::Aborted);
    let release = async {
        let asked = || {
            api.writes()
                .iter()
                .filter(|call| *call == "DELETE attachments")
                .count()
        };
        support::eventually("the second call's deletion", || asked() == 2).await;
        api.release("attachments", &name);
    };
    let (done, ()) = tokio::join!(
        controller.controller_unpublish_volume(Request::new(unpublish())),
        release
    );
    done.unwrap();
}

#[tokio::test]
async fn a_listing_has_pages_and_the_nodes() {
    let (api, controller) = api();
    let _operators = [
        api.operate("volumes", serving),
        api.operate("attachments", admitting),
    ];
    for name in ["a", "b", "c"] {
        created(&controller, name).await;
    }
    controller
        .controller_publish_volume(Request::new(publish("b", "n2")))
        .await
        .unwrap();
    let list = |max_entries, token: &str| {
        let starting_token = token.to_owned();
        controller.list_volumes(Request::new(csi::ListVolumesRequest {
            max_entries,
            starting_token,
        }))
    };
    let first = list(2, "").await.unwrap().into_inner();
    assert_eq!(first.entries.len(), 2);
    assert_eq!(
        first.entries[1].status.as_ref().unwrap().published_node_ids,
        ["n2"]
    );
    let rest = list(2, &first.next_token).await.unwrap().into_inner();
    assert_eq!((rest.entries.len(), rest.next_token.as_str()), (1, ""));
    assert_eq!(code(list(0, "invalid-token").await), Code::Aborted);
    assert_eq!(code(list(-1, "").await), Code::InvalidArgument);

    let get = |id: &str| {
        let volume_id = id.to_owned();
        controller
            .controller_get_volume(Request::new(csi::ControllerGetVolumeRequest { volume_id }))
    };
    let one = get("b").await.unwrap().into_inner();
    assert_eq!(one.volume, first.entries[1].volume);
    assert_eq!(code(get("z").await), Code::NotFound);
}

#[tokio::test]
async fn capabilities_are_confirmed_or_explained() {
    let (api, controller) = api();
    let _operator = api.operate("volumes", serving);
    created(&controller, "pvc-1").await;
    let validate = |id: &str, mode: Mode| {
        let mut capability = capability().unwrap();
        capability.access_mode = Some(AccessMode { mode: mode.into() });
        controller.validate_volume_capabilities(Request::new(
            csi::ValidateVolumeCapabilitiesRequest {
                volume_id: id.to_owned(),
                volume_capabilities: vec![capability],
                ..Default::default()
            },
        ))
    };
    let good = validate("pvc-1", Mode::SingleNodeWriter)
        .await
        .unwrap()
        .into_inner();
    assert!(good.confirmed.is_some());
    let bad = validate("pvc-1", Mode::MultiNodeMultiWriter)
        .await
        .unwrap()
        .into_inner();
    assert!(bad.confirmed.is_none() && bad.message.contains("one node at a time"));
    assert_eq!(
        code(validate("z", Mode::SingleNodeWriter).await),
        Code::NotFound
    );
}

fn expand(volume: &str, required: i64, limit: i64) -> csi::ControllerExpandVolumeRequest {
    csi::ControllerExpandVolumeRequest {
        volume_id: volume.to_owned(),
        capacity_range: Some(csi::CapacityRange {
            required_bytes: required,
            limit_bytes: limit,
        }),
        volume_capability: capability(),
        ..Default::default()
    }
}

/// Serves what the spec asks for, up to 128 MiB.
fn growing(volume: &Value) -> Option<Value> {
    let mut volume = serving(volume)?;
    let wish = volume["spec"]["size"].as_str().unwrap().to_owned();
    let fits = wish == "64Mi" || wish == "128Mi";
    volume["status"]["size"] = json!(if fits { wish.as_str() } else { "64Mi" });
    if !fits {
        let no_room = json!({"type": "Expanded", "status": "False", "reason": "NoRoom",
            "message": format!("no room for {wish}"), "lastTransitionTime": "2026-01-01T00:00:00Z"});
        volume["status"]["conditions"].as_array_mut()?.push(no_room);
    }
    Some(volume)
}

const MIB: i64 = 1 << 20;

#[tokio::test]
async fn a_volume_grows_once_and_a_repeated_call_finds_it_grown() {
    let (api, controller) = api();
    let _operator = api.operate("volumes", growing);
    created(&controller, "pvc-1").await;
    for required in [127 * MIB + 1, 128 * MIB, 3 * MIB] {
        let answer = controller
            .controller_expand_volume(Request::new(expand("pvc-1", required, 0)))
            .await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(answer.capacity_bytes, 128 * MIB);
        assert!(answer.node_expansion_required);
    }
    assert_eq!(
        api.get("volumes", "pvc-1").unwrap()["spec"]["size"],
        "128Mi"
    );
    let patches = api.writes();
    let patches = patches.iter().filter(|call| *call == "PATCH volumes");
    assert_eq!(patches.count(), 1);
}

#[tokio::test]
async fn an_expansion_that_cannot_be_is_refused_by_what_it_is() {
    let (api, controller) = api();
    let _operator = api.operate("volumes", growing);
    created(&controller, "pvc-1").await;
    let table = [
        (expand("", 128 * MIB, 0), Code::InvalidArgument),
        (expand("pvc-1", 0, 0), Code::InvalidArgument),
        (expand("pvc-1", 65 * MIB, 65 * MIB - 1), Code::OutOfRange),
        (expand("pvc-1", 3 * MIB, 3 * MIB), Code::OutOfRange),
        (expand("other", 128 * MIB, 0), Code::NotFound),
        (expand("Not A Name", 128 * MIB, 0), Code::NotFound),
    ];
    for (request, expected) in table {
        let answer = controller.controller_expand_volume(soon(request.clone()));
        assert_eq!(code(answer.await), expected, "{request:?}");
    }
    assert_eq!(api.get("volumes", "pvc-1").unwrap()["spec"]["size"], "64Mi");
    let full = controller
        .controller_expand_volume(soon(expand("pvc-1", 999 * MIB, 0)))
        .await
        .unwrap_err();
    assert_eq!(full.code(), Code::ResourceExhausted);
    assert_eq!(full.message(), "no room for 999Mi");
}

#[tokio::test]
async fn an_expansion_that_is_waited_for_says_for_what() {
    let (api, controller) = api();
    let operator = api.operate("volumes", growing);
    created(&controller, "pvc-1").await;
    operator.abort();
    let cut_off = controller
        .controller_expand_volume(soon(expand("pvc-1", 128 * MIB, 0)))
        .await
        .unwrap_err();
    assert_eq!(cut_off.code(), Code::DeadlineExceeded);
    assert!(cut_off.message().contains("has not grown yet"), "{cut_off}");
    let _operator = api.operate("volumes", growing);
    let answer = controller
        .controller_expand_volume(Request::new(expand("pvc-1", 128 * MIB, 0)))
        .await;
    assert_eq!(answer.unwrap().into_inner().capacity_bytes, 128 * MIB);
}
