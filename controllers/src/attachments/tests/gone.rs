//! A node that is gone by a person's word: the taint, or the Node object deleted.

use super::{admitted, deleting, fresh, node, of, pass, said, staged, volume, volume_without_host};
use crate::attachments::plan::{Observed, Plan, Step, plan};
use serde_json::{Value, json};
use weft_crds::attachment::AttachmentPhase;

/// Both words; the kubelet may still report when the taint comes.
fn gone() -> [Option<Value>; 2] {
    let mut tainted = node(false, "True");
    tainted["spec"] =
        json!({"taints": [{"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}]});
    [Some(tainted), None]
}

fn forgets(o: &Observed) -> [Step; 3] {
    let name = o.pod.as_ref().unwrap().name.clone();
    let [budget, secret] = [name.clone(), name.clone()];
    [
        Step::DeleteBudget(budget),
        Step::ForgetPod(name),
        Step::DeleteSecret(secret),
    ]
}

#[test]
fn an_attachment_there_is_let_go_without_waiting_for_the_node() {
    for (word, reason) in gone().into_iter().zip(["NodeOutOfService", "UnknownNode"]) {
        let mut o = staged(admitted());
        o.node = word.map(of);
        let out = pass(&o);
        let status = out.volume.as_ref().unwrap();
        assert_eq!((status.hosts.len(), status.document_generation), (0, 10));
        assert_eq!((said(&out).0, out.after.len()), ("Revoking", 0));

        o.volume = Some(of(volume_without_host(10, 9)));
        assert_eq!((said(&pass(&o)).0, pass(&o).after.len()), ("Revoking", 0));
        o.volume = Some(of(volume_without_host(10, 10)));
        assert_eq!(pass(&o).after, forgets(&o));
        o.pod.as_mut().unwrap().deleting = true;
        assert_eq!(
            pass(&o).after,
            forgets(&o),
            "also when somebody has deleted it"
        );

        (o.pod, o.secret) = (None, None);
        let done = pass(&o);
        assert_eq!((said(&done).0, done.after.len()), (reason, 0));
        assert_eq!(done.status.phase, Some(AttachmentPhase::Pending));
        assert_eq!(
            (done.status.generation, done.status.address.clone()),
            (None, None)
        );
        o.attachment.status = Some(done.status.clone());
        let settled = pass(&o);
        assert!(settled.status == done.status && settled.volume.is_none());
    }
}

#[test]
fn a_node_that_is_back_is_admitted_anew_with_a_generation_of_its_own() {
    let mut o = fresh();
    let [tainted, _] = gone();
    o.node = tainted.map(of);
    assert_eq!(
        (said(&pass(&o)).0, pass(&o).volume),
        ("NodeOutOfService", None)
    );
    o.node = Some(of(node(false, "True")));
    assert_eq!(pass(&o).volume.unwrap().hosts[0].generation, 7);
}

#[test]
fn a_deleted_attachment_of_a_node_out_of_service_is_not_waited_for_although_it_is_staged() {
    for word in gone() {
        let mut o = deleting(staged(admitted()));
        o.volume = Some(of(volume(json!([]), 10, 10)));
        o.node = word.map(of);
        assert_eq!(pass(&o).after, forgets(&o));
        (o.pod, o.secret) = (None, None);
        assert_eq!(plan(&o), Plan::Release);
    }
}
