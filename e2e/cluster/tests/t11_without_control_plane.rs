//! Operator and API server are away for ten minutes while a pod writes to a volume of two copies, and a
//! drive with one of them stops in the middle. No I/O error; afterwards the status says what is so.

use anyhow::{Context, Result};
use std::time::{Duration, Instant};
use weft_e2e_cluster::kubectl::{get, wait};
use weft_e2e_cluster::mirrors::{Places, VOLUMES, whole};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::process::{self, node_of, pod_of};
use weft_e2e_cluster::progress::step;
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, control_plane, install, lab};

const AWAY: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(120);

#[test]
fn ten_minutes_without_a_control_plane_cost_no_io_error() {
    install::ready().expect("the lab is up with Weft installed");
    let result = away();
    let restored = control_plane::restore();
    result.expect("no I/O error, the status is right");
    restored.expect("operator and API server are back");
    pods::stop("alone").expect("the pod ends");
    pods::release("alone").expect("the volume goes");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

/// Writes in the pod without anybody's help, for as long as all of it takes.
fn away() -> Result<()> {
    pods::claim("alone", "64Mi", Use::FileSystem, "weft-mirror")?;
    let volume = pods::bound("alone")?;
    let object = whole(&volume, SOON)?;
    let places = Places::of(&object)?;
    pods::start("alone", &places.witness, "alone", Use::FileSystem)?;
    let writer = Writer::start("alone")?;
    let member = &object["status"]["members"][1];
    let drive = pod_of("drive", member["drive"].as_str().context("a drive")?)?;
    let (node, (_, child)) = (node_of(&drive)?, process::pids(&drive)?);
    let slice = member["sliceUid"].as_str().context("a slice")?.to_owned();
    step("operator and API server stopped", control_plane::stop)?;
    let began = Instant::now();
    step("half of the time passes", || until(began + AWAY / 2))?;
    step("a drive with a copy stops", || {
        lab::on_node(&node, &format!("kill -STOP {child}")).map(drop)
    })?;
    step("the other half passes", || until(began + AWAY))?;
    step("API server and operator back", control_plane::restore)?;
    step(
        "the volume says that it lacks that copy, and since when",
        || {
            wait("the status of the member", SOON, || {
                let object = get(VOLUMES, &volume, None)?.context("it exists")?;
                let members = object["status"]["members"].as_array().cloned();
                let members = members.unwrap_or_default();
                let stale = members.iter().find(|m| m["sliceUid"] == slice.as_str());
                let stale = stale.is_some_and(|m| m["state"] == "OutOfSync");
                let is_so = stale && object["status"]["phase"] == "Degraded";
                Ok(if is_so {
                    Ok(())
                } else {
                    Err(object["status"].to_string())
                })
            })
        },
    )?;
    step("the drive goes on; both copies are in-sync", || {
        lab::on_node(&node, &format!("kill -CONT {child}"))?;
        whole(&volume, SOON).map(drop)
    })?;
    writer.goes_on(writer.progress()?)?;
    writer.finish()
}

/// That time passes is what the test is about.
fn until(end: Instant) -> Result<()> {
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    Ok(())
}
