//! With the operator and the API server stopped, while a pod writes: the engine's child killed five
//! times in a minute, then PID 1 once; the user-space initiator's worker; no I/O error, data right.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::{Duration, Instant};
use weft_e2e_cluster::kubectl::{list, name, wait};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::process::{Which, node_of, pids_of_container, pod_of};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, control_plane, install, lab, tour};

#[test]
fn kills_without_operator_and_api_server_cost_no_io_error_on_either_kind_of_node() {
    install::ready().expect("the lab is up with Weft installed");
    for node in [tour::USER_SPACE_NODE, tour::KERNEL_NODE] {
        say(&format!("pod on {node}"));
        let result = kills_on(node);
        let restored = control_plane::restore();
        result.expect("no I/O error, data right");
        restored.expect("operator and API server are back");
    }
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

/// A pod's container as the node knows it, so that the API server is not needed to find it.
struct Container {
    node: String,
    id: String,
    name: String,
}

impl Container {
    fn of(pod: &Value) -> Result<Self> {
        let id = pod["status"]["containerStatuses"][0]["containerID"]
            .as_str()
            .context("a container id")?;
        let id = id.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self {
            node: node_of(pod)?,
            id,
            name: name(pod).to_owned(),
        })
    }

    fn kill(&self, which: Which) -> Result<()> {
        let before = pids_of_container(&self.node, &self.id)?;
        let pid = if which == Which::Child {
            before.1
        } else {
            before.0
        };
        lab::on_node(&self.node, &format!("kill -9 {pid}"))?;
        if which == Which::Child {
            wait("a new child", Duration::from_secs(10), || {
                Ok(match pids_of_container(&self.node, &self.id) {
                    Ok((_, child)) if child != pid => Ok(()),
                    seen => Err(format!("{seen:?}")),
                })
            })?;
        }
        Ok(())
    }

    /// The kubelet has started the container again: a container of this pod with another id lives.
    fn restarted_by_kubelet(&self) -> Result<()> {
        wait(
            "the container started again by the kubelet",
            Duration::from_secs(60),
            || {
                let script = format!(
                    "ctr -n k8s.io containers ls -q 'labels.\"io.kubernetes.pod.name\"=={}' | while read c; do \
                 ctr -n k8s.io tasks ls | grep -q \"$c.*RUNNING\" && echo $c; done; true",
                    self.name
                );
                let live = lab::on_node(&self.node, &script)?;
                let again = live
                    .lines()
                    .any(|id| id != self.id && pids_of_container(&self.node, id).is_ok());
                Ok(if again { Ok(()) } else { Err(live) })
            },
        )
    }
}

fn kills_on(node: &str) -> Result<()> {
    pods::claim("killed", "256Mi", Use::FileSystem, "weft-fast")?;
    let volume = pods::bound("killed")?;
    pods::start("killed", node, "killed", Use::FileSystem)?;
    let engine = Container::of(&pod_of("engine", &volume[..volume.len().min(40)])?)?;
    let initiator = list("pods", "weft.storage/component=initiator")?
        .iter()
        .find(|pod| node_of(pod).is_ok_and(|n| n == node))
        .map(Container::of)
        .transpose()?;
    ensure!(
        initiator.is_some() == (node != tour::KERNEL_NODE),
        "a user-space node has an initiator pod, the kernel node none"
    );
    let writer = Writer::start("killed")?;
    step("operator and API server stopped", control_plane::stop)?;
    let began = Instant::now();
    step("engine's child killed five times within a minute", || {
        for round in 0..5u32 {
            engine.kill(Which::Child)?;
            // Spread over the minute: the pod must have written in between.
            let next = began + Duration::from_secs(u64::from(round + 1) * 8);
            wait("the next kill", Duration::from_secs(20), || {
                Ok(if Instant::now() >= next {
                    Ok(())
                } else {
                    Err(String::new())
                })
            })?;
        }
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "took {:?}",
            began.elapsed()
        );
        Ok(())
    })?;
    step("engine's PID 1 killed; the kubelet starts it again", || {
        engine.kill(Which::Supervisor)?;
        engine.restarted_by_kubelet()
    })?;
    if let Some(initiator) = &initiator {
        step("the user-space initiator's worker killed", || {
            initiator.kill(Which::Child)
        })?;
    }
    step("API server back", control_plane::restore)?;
    step(
        "the pod has gone on writing, without an error, and every sum is right",
        || verify(writer),
    )?;
    pods::stop("killed")?;
    pods::release("killed")
}

fn verify(writer: Writer) -> Result<()> {
    writer.goes_on(writer.progress()?)?;
    writer.finish()
}
