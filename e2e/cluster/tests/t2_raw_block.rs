//! A raw block claim: written with `dd oflag=direct`, read back equal, on both kinds of node.

use anyhow::{Result, ensure};
use std::time::Duration;
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::progress::step;
use weft_e2e_cluster::{clean, install, tour};

#[test]
fn a_raw_block_claim_gives_back_what_was_written_directly() {
    install::ready().expect("the lab is up with Weft installed");
    for node in [tour::USER_SPACE_NODE, tour::KERNEL_NODE] {
        step(&format!("raw block on {node}"), || raw_block_on(node)).expect("equal");
    }
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn raw_block_on(node: &str) -> Result<()> {
    pods::claim("raw", "64Mi", Use::Block, "weft-fast")?;
    pods::start("raw", node, "raw", Use::Block)?;
    pods::shell(
        "raw",
        "dd if=/dev/urandom of=/tmp/a bs=1M count=16 2>/dev/null; \
         dd if=/tmp/a of=/dev/weft bs=1M seek=7 oflag=direct 2>/dev/null; \
         dd if=/dev/weft of=/tmp/b bs=1M skip=7 count=16 iflag=direct 2>/dev/null",
    )?;
    let sums = pods::shell(
        "raw",
        "sha256sum </tmp/a; sha256sum </tmp/b; dd if=/dev/zero bs=1M count=7 2>/dev/null | sha256sum; dd if=/dev/weft bs=1M count=7 iflag=direct 2>/dev/null | sha256sum",
    )?;
    let sums: Vec<&str> = sums.lines().collect();
    ensure!(sums.len() == 4, "four sums expected: {sums:?}");
    ensure!(sums[0] == sums[1], "written {} read {}", sums[0], sums[1]);
    ensure!(
        sums[2] == sums[3],
        "what was never written does not read as zeros"
    );
    pods::stop("raw")?;
    pods::release("raw")
}
