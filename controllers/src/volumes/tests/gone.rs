//! A node that is gone by a person's word: the taint, or the Node object deleted.

use super::mirror::mirrored;
use super::{deleting, pass, pod, report, secret, serving};
use crate::volumes::plan::{Grace, Observed, Step};
use crate::volumes::takeover::Trouble;
use weft_spec::engine::EngineState;

const WORDS: [Trouble; 2] = [Trouble::NodeGone, Trouble::OutOfService];

fn forgets(term: i64) -> Step {
    Step::DeletePod {
        name: format!("db-11111111-{term}"),
        grace: Grace::Nothing,
    }
}

fn lost(mut o: Observed, word: &Trouble) -> Observed {
    o.pods[0].trouble = Some(word.clone());
    o
}

#[test]
fn the_engine_is_replaced_elsewhere_at_once_and_its_pod_forgotten() {
    for word in WORDS {
        // Also where the only copy is on that node: the word is a person's, and silence is not.
        for (o, node) in [(serving(), "n1"), (mirrored(), "n2")] {
            let mut o = lost(o, &word);
            o.pods[0].node = node.into();
            let pass = pass(&o);
            let starts = Step::StartEngine {
                away_from: Some(node.into()),
            };
            assert_eq!((pass.status.term, &pass.steps[0]), (4, &starts), "{word}");
            assert!(pass.steps.contains(&forgets(3)), "{:?}", pass.steps);
        }
    }
}

#[test]
fn a_pod_that_somebody_has_deleted_there_is_forgotten_too() {
    let mut o = serving();
    let mut old = pod(2);
    (old.deleting, old.node) = (true, "n1".into());
    o.pods.push(old);
    o.secrets.push(secret(2, 4));
    assert_eq!(pass(&o).steps, []);
    o.pods[1].trouble = Some(Trouble::NodeNotReady);
    assert_eq!(pass(&o).steps, [], "silence is no word");
    for word in WORDS {
        o.pods[1].trouble = Some(word);
        assert_eq!(pass(&o).steps, [forgets(2)]);
    }
}

#[test]
fn a_pod_of_the_present_term_is_never_forgotten_before_another_term_is_raised() {
    let mut o = lost(serving(), &Trouble::OutOfService);
    o.report = Some(report(3, 5, EngineState::Serving));
    let pass = pass(&o);
    let at = |wanted: &Step| pass.steps.iter().position(|step| step == wanted);
    let starts = Step::StartEngine {
        away_from: Some("n2".into()),
    };
    assert!(at(&starts) < at(&forgets(3)) && at(&starts).is_some());
}

#[test]
fn a_volume_that_is_deleted_does_not_wait_for_a_kubelet_that_is_gone() {
    let mut o = lost(serving(), &Trouble::OutOfService);
    o.volume = deleting(o.volume);
    o.pods[0].deleting = true;
    assert_eq!(pass(&o).steps, [forgets(3)]);
}
