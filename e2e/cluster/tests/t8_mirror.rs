//! A volume of two copies under a pod that writes: a drive that says nothing, an engine killed, a node
//! that loses its power. No I/O error, every sum right, both copies in-sync again afterwards.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use weft_e2e_cluster::kubectl::{condition, get, wait};
use weft_e2e_cluster::mirrors::{Places, VOLUMES, operator_elsewhere, powered, short, told, whole};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::process::{self, Which, node_of, pod_of};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, install, lab};

/// For what needs no rebuild of a whole slice.
const SOON: Duration = Duration::from_secs(60);
/// A node that boots again, its pods and a rebuild.
const BOOT: Duration = Duration::from_secs(180);

#[test]
fn a_mirror_survives_drive_engine_and_node_without_an_io_error() {
    install::ready().expect("the lab is up with Weft installed");
    let result = losses();
    let restored = powered();
    result.expect("no I/O error, both copies in-sync");
    restored.expect("every node is back");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn losses() -> Result<()> {
    pods::claim("mirrored", "128Mi", Use::FileSystem, "weft-mirror")?;
    let volume = pods::bound("mirrored")?;
    let whole = step("two copies and a witness on three nodes", || {
        whole(&volume, SOON)
    })?;
    let places = Places::of(&whole)?;
    say(&format!(
        "    copies on {} and {}, witness on {}",
        places.data[0], places.data[1], places.witness
    ));
    // Where no copy is: what is lost below never takes the pod with it.
    pods::start("mirrored", &places.witness, "mirrored", Use::FileSystem)?;
    let writer = Writer::start("mirrored")?;
    drive_is_silent(&volume, &writer)?;
    engine_is_killed(&volume, &writer)?;
    node_loses_power(&volume, &writer)?;
    writer.finish()?;
    pods::stop("mirrored")?;
    pods::release("mirrored")
}

/// Waits until the volume says that it goes on with one copy.
fn degraded(volume: &str, slice: &str) -> Result<()> {
    wait(&format!("volume {volume} degraded"), SOON, || {
        let object = get(VOLUMES, volume, None)?.context("it exists")?;
        let redundant = condition(&object, "Redundant").cloned().unwrap_or_default();
        let message = redundant["message"].as_str().unwrap_or_default().to_owned();
        let is_so = object["status"]["phase"] == "Degraded" && message.contains(slice);
        if is_so {
            say(&format!("\n    {}", message));
        }
        Ok(if is_so { Ok(()) } else { Err(told(&object)) })
    })
}

fn drive_is_silent(volume: &str, writer: &Writer) -> Result<()> {
    let object = get(VOLUMES, volume, None)?.context("it exists")?;
    let member = &object["status"]["members"][1];
    let (slice, drive) = (
        member["slice"].as_str().context("a slice")?,
        member["drive"].as_str().context("a drive")?,
    );
    let pod = pod_of("drive", drive)?;
    let (_, child) = process::pids(&pod)?;
    let node = node_of(&pod)?;
    let before = writer.progress()?;
    step("the drive of one copy stops answering", || {
        lab::on_node(&node, &format!("kill -STOP {child}"))?;
        degraded(volume, slice)
    })?;
    step("the pod goes on with the other", || writer.goes_on(before))?;
    step("it answers again and is brought up to date", || {
        lab::on_node(&node, &format!("kill -CONT {child}"))?;
        whole(volume, SOON).map(drop)
    })
}

fn engine_is_killed(volume: &str, writer: &Writer) -> Result<()> {
    let before = writer.progress()?;
    step("the engine's process is killed", || {
        process::kill9(&pod_of("engine", &short(volume))?, Which::Child)?;
        writer.goes_on(before)
    })?;
    step("both copies are in-sync", || whole(volume, SOON).map(drop))
}

/// The node with the engine and one of the copies: Kubernetes takes most of a minute to notice.
fn node_loses_power(volume: &str, writer: &Writer) -> Result<()> {
    let engine = pod_of("engine", &short(volume))?;
    let node = node_of(&engine)?;
    operator_elsewhere(&node)?;
    let before = writer.progress()?;
    let term = get(VOLUMES, volume, None)?.context("it exists")?["status"]["term"].clone();
    let began = Instant::now();
    step(&format!("node {node} loses its power"), || {
        lab::run(&["node", "kill", &node])?;
        writer.goes_on(before)
    })?;
    let after = get(VOLUMES, volume, None)?.context("it exists")?;
    say(&format!(
        "    goes on {:.1} s after the power went, term {term} -> {}, engine on {}",
        began.elapsed().as_secs_f64(),
        after["status"]["term"],
        after["status"]["engine"]["node"]
    ));
    step("the node boots again; both copies are in-sync", || {
        lab::run(&["node", "start", &node])?;
        whole(volume, BOOT).map(drop)
    })
}
