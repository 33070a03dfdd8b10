//! Slices of a volume move under a pod that writes: a drive is evicted, the copies become three and two
//! again, a drive is drained. No I/O error, every sum right, nothing left where it was.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use weft_e2e_cluster::kubectl::{
    apply, condition, get, kubectl, list, wait, wait_gone, wait_phase,
};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::progress::step;
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, install, lab};

const VOLUMES: &str = "volumes.weft.storage";
const DRIVES: &str = "drives.weft.storage";
/// A copy of a small volume.
const SOON: Duration = Duration::from_secs(90);

#[test]
fn slices_move_under_a_pod_that_writes() {
    install::ready().expect("the lab is up with Weft installed");
    moves().expect("no I/O error, every slice where it should be");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn moves() -> Result<()> {
    pods::claim("moved", "128Mi", Use::FileSystem, "weft-mirror")?;
    let volume = pods::bound("moved")?;
    let object = get(VOLUMES, &volume, None)?.context("it exists")?;
    let (second, witness) = (drive_of(&object, 1)?, drive_of(&object, 2)?);
    pods::start("moved", &node_of(&witness)?, "moved", Use::FileSystem)?;
    let writer = Writer::start("moved")?;

    let spare = Spare::add(&node_of(&second)?)?;
    step(&format!("drive {second} is evicted"), || {
        patch(&volume, &format!(r#"{{"spec":{{"evict":["{second}"]}}}}"#))?;
        in_place(&volume, "2/2")?;
        ensure!(slices_on(&second)? == 0, "a slice is left on {second}");
        ensure!(slices_on(&spare.name)? == 1, "no slice on {}", spare.name);
        writer.goes_on(writer.progress()?)
    })?;
    step("three copies", || {
        patch(&volume, r#"{"spec":{"replicas":3}}"#)?;
        in_place(&volume, "3/3")?;
        writer.goes_on(writer.progress()?)
    })?;
    step("two copies and a witness again", || {
        patch(&volume, r#"{"spec":{"evict":null,"replicas":2}}"#)?;
        in_place(&volume, "2/2")?;
        writer.goes_on(writer.progress()?)
    })?;
    step(&format!("drive {} is drained and goes", spare.name), || {
        spare.drain()?;
        in_place(&volume, "2/2")?;
        spare.remove()
    })?;
    writer.finish()?;
    pods::stop("moved")?;
    pods::release("moved")
}

fn patch(volume: &str, what: &str) -> Result<()> {
    kubectl(&["patch", VOLUMES, volume, "--type=merge", "-p", what]).map(drop)
}

fn drive_of(volume: &Value, member: usize) -> Result<String> {
    let drive = volume["status"]["members"][member]["drive"].as_str();
    Ok(drive.context("a drive")?.to_owned())
}

fn node_of(drive: &str) -> Result<String> {
    let drive = get(DRIVES, drive, None)?.context("it exists")?;
    let node = drive["spec"]["hostExport"]["node"].as_str();
    Ok(node.context("a node")?.to_owned())
}

fn slices_on(drive: &str) -> Result<usize> {
    let slices = list("slices.weft.storage", "")?;
    Ok(slices
        .iter()
        .filter(|s| s["spec"]["drive"] == drive)
        .count())
}

/// Waits until every slice is where it should be and serves. What was asked for a moment ago is not
/// mistaken for done: the status has to be of the newest spec.
fn in_place(volume: &str, replicas: &str) -> Result<()> {
    wait(&format!("volume {volume} recomposed"), SOON, || {
        let object = get(VOLUMES, volume, None)?.context("it exists")?;
        let recomposed = condition(&object, "Recomposed")
            .cloned()
            .unwrap_or_default();
        let redundant = condition(&object, "Redundant").cloned().unwrap_or_default();
        let status = &object["status"];
        let is_so = recomposed["status"] == "True"
            && redundant["status"] == "True"
            && recomposed["observedGeneration"] == object["metadata"]["generation"]
            && status["phase"] == "Ready"
            && status["replicas"] == replicas;
        Ok(if is_so {
            Ok(())
        } else {
            Err(format!(
                "{} {} {} {}",
                status["phase"], status["replicas"], recomposed["message"], redundant["message"]
            ))
        })
    })
}

/// One more drive on a node.
struct Spare {
    name: String,
    node: String,
    file: String,
}

impl Spare {
    fn add(node: &str) -> Result<Self> {
        let spare = Self {
            name: format!("{node}-spare"),
            node: node.to_owned(),
            file: "/var/lib/weft/drives/spare.img".to_owned(),
        };
        apply(&format!(
            r#"{{"apiVersion":"weft.storage/v1alpha1","kind":"Drive",
                "metadata":{{"name":"{}","labels":{{"weft.storage/tier":"fast"}}}},
                "spec":{{"hostExport":{{"node":"{node}","file":{{"path":"{}","size":"512Mi"}}}},"adoption":"IfBlank"}}}}"#,
            spare.name, spare.file
        ))?;
        wait_phase(DRIVES, &spare.name, &["Ready"], SOON)?;
        Ok(spare)
    }

    fn drain(&self) -> Result<()> {
        let drain = r#"{"spec":{"maintenance":"Drain"}}"#;
        kubectl(&["patch", DRIVES, &self.name, "--type=merge", "-p", drain])?;
        wait(&format!("drive {} empty", self.name), SOON, || {
            let left = slices_on(&self.name)?;
            Ok(if left == 0 {
                Ok(())
            } else {
                Err(format!("{left} slices"))
            })
        })
    }

    fn remove(&self) -> Result<()> {
        kubectl(&["delete", DRIVES, &self.name, "--wait=false"])?;
        wait_gone(DRIVES, &self.name, None, SOON)?;
        lab::on_node(&self.node, &format!("rm -f {}", self.file)).map(drop)
    }
}
