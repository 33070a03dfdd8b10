//! The scenario of `make demo`, twice in a row.

use weft_e2e_cluster::{install, kubectl::kubectl, progress::say, tour};

#[test]
fn a_pod_finds_its_bytes_on_another_node_and_back_twice_in_a_row() {
    install::ready().expect("the lab is up with Weft installed");
    for round in 1..=2 {
        say(&format!("tour {round} of 2"));
        if let Err(error) = tour::run(false) {
            say(&kubectl(&["get", "weft,pods,pvc,pv", "-A", "-o", "wide"]).unwrap_or_default());
            panic!("tour {round}: {error:#}");
        }
    }
}
