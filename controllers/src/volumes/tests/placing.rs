use super::{VOLUME, drive, fresh, of, pass, ready, slice};
use crate::volumes::plan::{Observed, Placement, Step};
use k8s_openapi::api::core::v1::Node;
use serde_json::json;
use weft_crds::{Drive, Phase, Pool, Slice};

pub fn pool(overcommit: &str) -> Pool {
    of(json!({
        "apiVersion": "weft.storage/v1alpha1", "kind": "Pool", "metadata": {"name": "fast"},
        "spec": {"selector": {}, "spreadBy": ["kubernetes.io/hostname"], "overcommit": overcommit},
    }))
}

fn placing(pool: Option<Pool>, drives: Vec<Drive>, slices: Vec<Slice>) -> Observed {
    let nodes: Vec<Node> = vec![of(
        json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}}),
    )];
    Observed {
        placement: Some(Placement {
            pool,
            drives,
            nodes,
            slices,
        }),
        ..fresh()
    }
}

#[test]
fn a_volume_that_cannot_be_placed_says_what_to_do() {
    let full = drive("d0", "10.0.0.1:4421", "1Gi");
    let mut down = full.clone();
    down.status.as_mut().unwrap().phase = Phase::Failed;
    let cases = [
        (
            placing(None, vec![], vec![]),
            "UnknownPool",
            "there is no Pool fast",
        ),
        (
            placing(Some(pool("100%")), vec![], vec![]),
            "NoDrive",
            "selects no Drive",
        ),
        (
            placing(Some(pool("100%")), vec![down], vec![]),
            "NoReadyDrive",
            "d0 (Failed)",
        ),
        (
            placing(Some(pool("100%")), vec![full], vec![slice("Ready")]),
            "NotEnoughCapacity",
            "asked for 1Gi, the largest free room in pool fast is 0 bytes on drive d0",
        ),
    ];
    for (o, reason, text) in cases {
        let pass = pass(&o);
        let said = ready(&pass);
        assert_eq!(said.0, reason);
        assert!(said.1.contains(text), "{}", said.1);
        assert_eq!((pass.steps.len(), pass.status.phase), (0, Phase::Pending));
    }
}

#[test]
fn a_slice_is_created_under_a_fixed_name_and_overcommit_makes_room() {
    let o = placing(
        Some(pool("200%")),
        vec![drive("d0", "10.0.0.1:4421", "1Gi")],
        vec![slice("Ready")],
    );
    let pass = pass(&o);
    let [Step::CreateSlice(made)] = pass.steps.as_slice() else {
        panic!("{:?}", pass.steps)
    };
    assert_eq!(made.metadata.name.as_deref(), Some("db-a"));
    assert_eq!(
        (made.spec.volume_uid.as_str(), made.spec.overcommit_percent),
        (VOLUME, 200)
    );
}
