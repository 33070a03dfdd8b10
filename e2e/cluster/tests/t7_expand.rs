//! A claim that grows while a pod uses it: ext4, xfs and raw block, by both initiators. The pod is not
//! started again, its connection stays the one that it was, and no byte changes. Beyond the room of a
//! drive nothing happens but a condition and an Event, until there is room.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use weft_e2e_cluster::kubectl::{apply, condition, get, kubectl, list, wait};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::tour::{self, KERNEL_NODE, USER_SPACE_NODE};
use weft_e2e_cluster::{clean, install};

const MIB: u64 = 1 << 20;
const SOON: Duration = Duration::from_secs(30);
/// From the patch of a claim to its new capacity: the kubelet looks at a pod's claims about once a minute.
const GROWN: Duration = Duration::from_secs(240);

/// Classes of this test alone: name, parameters.
const CLASSES: [(&str, &str, &str); 2] = [
    ("weft-xfs", "csi.storage.k8s.io/fstype", "xfs"),
    ("weft-user-space", "attach", "UserSpace"),
];

// Linux grows a mounted ext4 only with CAP_SYS_RESOURCE. The machine below n1 to n3 may lack it, the node with
// a kernel of its own has it: there ext4 is grown by both initiators.

#[test]
fn ext4_grows_on_the_kernels_initiator() {
    alone(|| grows("weft-fast", KERNEL_NODE, Use::FileSystem, 64, 160));
}

#[test]
fn raw_block_grows_on_the_kernels_initiator() {
    alone(|| grows("weft-fast", KERNEL_NODE, Use::Block, 64, 160));
}

#[test]
fn ext4_grows_on_the_user_space_initiator() {
    alone(|| grows("weft-user-space", KERNEL_NODE, Use::FileSystem, 64, 160));
}

#[test]
fn xfs_grows_on_the_user_space_initiator() {
    alone(|| grows("weft-xfs", USER_SPACE_NODE, Use::FileSystem, 320, 480));
}

#[test]
fn raw_block_grows_on_the_user_space_initiator() {
    alone(|| grows("weft-fast", USER_SPACE_NODE, Use::Block, 64, 160));
}

#[test]
fn what_grew_unused_is_found_grown_by_the_next_node() {
    alone(unused);
}

#[test]
fn without_room_a_volume_says_so_serves_on_and_grows_when_there_is() {
    alone(no_room);
}

/// With the lab, the classes of this file, and nothing left afterwards.
fn alone(test: impl FnOnce() -> Result<()>) {
    install::ready().expect("the lab is up with Weft installed");
    classes(true).expect("classes of this file");
    test().expect("it grows");
    classes(false).expect("the classes are gone");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn classes(there: bool) -> Result<()> {
    for (name, parameter, value) in CLASSES {
        if !there {
            kubectl(&["delete", "storageclass", name])?;
            continue;
        }
        let mut class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": "csi.weft.storage", "allowVolumeExpansion": true,
            "parameters": {"pool": "fast"},
        });
        class["parameters"][parameter] = json!(value);
        apply(&class.to_string())?;
    }
    Ok(())
}

fn ask(mib: u64) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"resources":{{"requests":{{"storage":"{mib}Mi"}}}}}}}}"#);
    kubectl(&["patch", "pvc", "grows", "-p", &patch]).map(drop)
}

/// As Kubernetes writes it: in the greatest unit that leaves no fraction.
fn quantity(mib: u64) -> String {
    if mib.is_multiple_of(1024) {
        format!("{}Gi", mib / 1024)
    } else {
        format!("{mib}Mi")
    }
}

/// Waits until the claim says that all of it is there, on the node too.
fn has(mib: u64) -> Result<()> {
    let quantity = quantity(mib);
    wait(&format!("capacity of {quantity}"), GROWN, || {
        let claim = get("pvc", "grows", Some("default"))?.context("it exists")?;
        let capacity = &claim["status"]["capacity"]["storage"];
        Ok(if *capacity == quantity {
            Ok(())
        } else {
            Err(format!("{} {}", claim["status"], events()))
        })
    })
}

fn events() -> String {
    let of_claim = [
        "get",
        "events",
        "--field-selector",
        "involvedObject.name=grows",
    ];
    kubectl(&of_claim).unwrap_or_default()
}

fn volume(name: &str) -> Result<Value> {
    get("volumes.weft.storage", name, None)?.context("the volume exists")
}

/// All that must stay while a volume grows: its engine, and the very connections to and from it (a
/// connection that is made again has another source port and another time).
fn identity(name: &str) -> Result<Value> {
    let volume = volume(name)?;
    let wires = volume["status"]["wires"].as_array().cloned();
    let ends = |wire: &Value| {
        json!([
            wire["name"],
            wire["state"],
            wire["sourceSeenByTarget"],
            wire["since"]
        ])
    };
    let wires: Vec<_> = wires.unwrap_or_default().iter().map(ends).collect();
    let pod = get("pod", "grows", Some("default"))?.context("the pod exists")?;
    let container = pod["status"]["containerStatuses"][0]["containerID"].clone();
    Ok(json!({
        "term": volume["status"]["term"], "engine": volume["status"]["engine"]["pod"],
        "wires": wires, "container": container,
    }))
}

/// Bytes as the pod sees them.
fn seen(mode: Use) -> Result<u64> {
    let script = match mode {
        Use::FileSystem => "echo $(( $(df -k /data | awk 'END{print $2}') * 1024 ))",
        Use::Block => "blockdev --getsize64 /dev/weft",
    };
    Ok(pods::shell("grows", script)?.parse()?)
}

/// 24 MiB of random data, and its sum.
fn write(mode: Use) -> Result<String> {
    let target = match mode {
        Use::FileSystem => "dd if=/tmp/a of=/data/a bs=1M 2>/dev/null && sync",
        Use::Block => "dd if=/tmp/a of=/dev/weft bs=1M seek=7 oflag=direct 2>/dev/null",
    };
    let script = format!("dd if=/dev/urandom of=/tmp/a bs=1M count=24 2>/dev/null && {target}");
    pods::shell("grows", &script)?;
    pods::shell("grows", "sha256sum </tmp/a")
}

fn sum(mode: Use) -> Result<String> {
    let source = match mode {
        Use::FileSystem => "cat /data/a",
        Use::Block => "dd if=/dev/weft bs=1M skip=7 count=24 iflag=direct 2>/dev/null",
    };
    pods::shell("grows", &format!("{source} | sha256sum"))
}

fn grows(class: &str, node: &str, mode: Use, before: u64, after: u64) -> Result<()> {
    let name = step("  a pod writes", || {
        pods::claim("grows", &format!("{before}Mi"), mode, class)?;
        pods::start("grows", node, "grows", mode)?;
        pods::bound("grows")
    })?;
    let written = write(mode)?;
    tour::wires_ready(&name)?;
    let (small, was) = (seen(mode)?, identity(&name)?);
    step("  the claim asks for more and has it", || {
        ask(after)?;
        has(after)
    })?;
    let large = seen(mode)?;
    say(&format!("    the pod saw {small} bytes, now {large}"));
    ensure!(
        large >= small + (after - before) * MIB * 9 / 10,
        "the pod sees {large} bytes, before {small}"
    );
    let now = identity(&name)?;
    ensure!(was == now, "something was made anew:\n{was}\n{now}");
    ensure!(sum(mode)? == written, "the data is another");
    step("  what came is used to its end", || {
        fill(mode, before, after)
    })?;
    ensure!(sum(mode)? == written, "the data is another");
    let volume = volume(&name)?;
    ensure!(volume["status"]["size"] == format!("{after}Mi"), "{volume}");
    pods::stop("grows")?;
    pods::release("grows")
}

/// Writes more than there was before, and reads it back.
fn fill(mode: Use, before: u64, after: u64) -> Result<()> {
    let script = match mode {
        Use::FileSystem => format!(
            "dd if=/dev/urandom bs=1M count={before} 2>/dev/null | tee /data/b | sha256sum; sync; \
             sha256sum </data/b"
        ),
        Use::Block => format!(
            "dd if=/tmp/a of=/dev/weft bs=1M seek={} oflag=direct 2>/dev/null && \
             dd if=/dev/weft bs=1M skip={} iflag=direct 2>/dev/null | sha256sum; sha256sum </tmp/a",
            after - 24,
            after - 24
        ),
    };
    let sums = pods::shell("grows", &script)?;
    let sums: Vec<_> = sums.lines().collect();
    ensure!(sums.len() == 2 && sums[0] == sums[1], "{sums:?}");
    Ok(())
}

/// Grown while no node has it: the file system follows when the next pod starts.
fn unused() -> Result<()> {
    let mode = Use::FileSystem;
    pods::claim("grows", "64Mi", mode, "weft-fast")?;
    pods::start("grows", USER_SPACE_NODE, "grows", mode)?;
    let (written, small) = (write(mode)?, seen(mode)?);
    pods::stop("grows")?;
    let name = pods::bound("grows")?;
    step("  an unused claim asks for more", || {
        ask(160)?;
        wait("the volume has grown", SOON, || {
            let volume = volume(&name)?;
            Ok(if volume["status"]["size"] == "160Mi" {
                Ok(())
            } else {
                Err(volume["status"].to_string())
            })
        })
    })?;
    step("  a pod on the other kind of node sees it", || {
        pods::start("grows", KERNEL_NODE, "grows", mode)?;
        has(160)
    })?;
    let large = seen(mode)?;
    ensure!(large >= small + 96 * MIB * 9 / 10, "{small} {large}");
    ensure!(sum(mode)? == written, "the data is another");
    pods::stop("grows")?;
    pods::release("grows")
}

fn no_room() -> Result<()> {
    let mode = Use::Block;
    pods::claim("grows", "64Mi", mode, "weft-fast")?;
    pods::start("grows", KERNEL_NODE, "grows", mode)?;
    let name = pods::bound("grows")?;
    let written = write(mode)?;
    tour::wires_ready(&name)?;
    let was = identity(&name)?;
    let shrunk = kubectl(&[
        "patch",
        "volumes.weft.storage",
        &name,
        "--type",
        "merge",
        "-p",
        r#"{"spec":{"size":"32Mi"}}"#,
    ]);
    let refusal = format!("{:#}", shrunk.err().context("a volume shrank")?);
    ensure!(refusal.contains("size cannot shrink"), "{refusal}");
    step(
        "  beyond the drive's room: a condition and an Event",
        || {
            ask(4096)?;
            wait("NoRoom", SOON, || {
                let volume = volume(&name)?;
                let said = condition(&volume, "Expanded").cloned().unwrap_or_default();
                Ok(if said["reason"] == "NoRoom" && said["status"] == "False" {
                    say(&format!("\n    {}", said["message"]));
                    Ok(())
                } else {
                    Err(volume["status"].to_string())
                })
            })?;
            wait("an Event of it", SOON, || {
                let all = list("events", "")?;
                let found = all.iter().any(|e| {
                    e["reason"] == "NoRoom" && e["involvedObject"]["name"] == name.as_str()
                });
                Ok(if found {
                    Ok(())
                } else {
                    Err("none".to_owned())
                })
            })
        },
    )?;
    let now = volume(&name)?;
    ensure!(
        now["status"]["size"] == "64Mi" && now["status"]["phase"] == "Ready",
        "{now}"
    );
    let slices = list("slices.weft.storage", "")?;
    let slice = slices.iter().find(|s| s["spec"]["volume"] == name.as_str());
    ensure!(
        slice.context("its slice")?["spec"]["size"] == "64Mi",
        "half done"
    );
    ensure!(identity(&name)? == was && sum(mode)? == written, "lost");
    step("  with room it grows by itself", || {
        overcommit("900%")?;
        has(4096)
    })?;
    ensure!(identity(&name)? == was && sum(mode)? == written, "lost");
    pods::stop("grows")?;
    pods::release("grows")?;
    overcommit("200%")
}

fn overcommit(percent: &str) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"overcommit":"{percent}"}}}}"#);
    kubectl(&[
        "patch",
        "pools.weft.storage",
        "fast",
        "--type",
        "merge",
        "-p",
        &patch,
    ])
    .map(drop)
}
