//! `make demo`: the lab up, Weft installed, the tour, and how to look around.

use anyhow::Result;
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::{install, lab, tour};

fn main() -> Result<()> {
    say(
        "Weft on this machine: a control plane, three nodes, and a fourth with a kernel of its own",
    );
    lab::up()?;
    step("images built and loaded onto every node", install::images)?;
    step("the chart installed", install::chart)?;
    tour::run(true)?;
    say(concat!(
        "\nThe cluster stays up. Look around:\n",
        "  target/debug/weft-lab kubectl get weft\n",
        "  target/debug/weft-lab kubectl describe volume db-0\n",
        "  target/debug/weft-lab kubectl get pods -A -o wide\n",
        "  target/debug/weft-lab kubectl apply -f docs/examples/60-claim-and-pod.yaml\n",
        "Take it down, leaving nothing behind:\n",
        "  make down"
    ));
    Ok(())
}
