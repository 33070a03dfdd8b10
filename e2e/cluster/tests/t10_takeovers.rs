//! How long a pod that writes to a volume of two copies waits when something is lost: the engine's
//! process, a drive's, the node of the engine. Ten runs each, from a pod on another node; default timers of
//! Kubernetes. Figures are printed; only that nothing fails is asserted.

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;
use std::time::Duration;
use weft_e2e_cluster::kubectl::{get, kubectl, wait};
use weft_e2e_cluster::mirrors::{Places, VOLUMES, operator_elsewhere, powered, short, whole};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::process::{self, Which, node_of, pod_of};
use weft_e2e_cluster::progress::{say, spread, step};
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, install, lab};

const RUNS: usize = 10;
/// After so long the supervisor of a pod starts its child again without a pause.
const LONG_LIFE: Duration = Duration::from_secs(11);
/// A node that boots again, its pods and a rebuild.
const BOOT: Duration = Duration::from_secs(180);

#[test]
fn takeovers_are_measured_from_a_pod_that_writes() {
    install::ready().expect("the lab is up with Weft installed");
    let result = takeovers();
    let restored = powered();
    result.expect("no I/O error");
    restored.expect("every node is back");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn takeovers() -> Result<()> {
    pods::claim("waits", "64Mi", Use::FileSystem, "weft-mirror")?;
    let volume = pods::bound("waits")?;
    let places = Places::of(&whole(&volume, BOOT)?)?;
    pods::start("waits", &places.witness, "waits", Use::FileSystem)?;
    let writer = Writer::start("waits")?;
    step("the engine's process is killed", || {
        gaps(&volume, &writer, || pod_of("engine", &short(&volume)))
    })?;
    step("the process of a drive with a copy is killed", || {
        gaps(&volume, &writer, || {
            let object = get(VOLUMES, &volume, None)?.context("it exists")?;
            let drive = object["status"]["members"][1]["drive"].as_str();
            pod_of("drive", drive.context("a drive")?)
        })
    })?;
    let mut lost = Lost::default();
    step("the node of the engine loses its power", || {
        for _ in 0..RUNS {
            lost.run(&volume, &writer)?;
        }
        Ok(())
    })?;
    lost.print();
    writer.finish()?;
    pods::stop("waits")?;
    pods::release("waits")
}

fn gaps(volume: &str, writer: &Writer, victim: impl Fn() -> Result<Value>) -> Result<()> {
    let mut gaps = Vec::new();
    for _ in 0..RUNS {
        whole(volume, BOOT)?;
        let pod = victim()?;
        has_lived(&pod)?;
        writer.reset_gap()?;
        let before = writer.progress()?;
        process::kill9(&pod, Which::Child)?;
        writer.goes_on(before)?;
        gaps.push(writer.progress()?.longest_gap.as_secs_f64());
    }
    say(&spread("\n    longest gap", &mut gaps));
    Ok(())
}

/// A process that dies again soon is started again later: that is another figure.
fn has_lived(pod: &Value) -> Result<()> {
    let (node, (_, child)) = (node_of(pod)?, process::pids(pod)?);
    wait("a process that has lived for a while", BOOT, || {
        let age = format!("echo $(($(date +%s) - $(stat -c %Y /proc/{child})))");
        let seconds: u64 = lab::on_node(&node, &age)?.trim().parse().unwrap_or(0);
        Ok(if seconds > LONG_LIFE.as_secs() {
            Ok(())
        } else {
            Err(format!("{seconds} s"))
        })
    })
}

/// What is known of the nodes that were lost, in seconds.
#[derive(Default)]
struct Lost {
    gap: Vec<f64>,
    detect: Vec<f64>,
    start: Vec<f64>,
    fence: Vec<f64>,
    reconnect: Vec<f64>,
}

impl Lost {
    fn run(&mut self, volume: &str, writer: &Writer) -> Result<()> {
        whole(volume, BOOT)?;
        let node = node_of(&pod_of("engine", &short(volume))?)?;
        operator_elsewhere(&node)?;
        writer.reset_gap()?;
        let (before, began) = (writer.progress()?, Timestamp::now());
        lab::run(&["node", "kill", &node])?;
        writer.goes_on(before)?;
        self.gap.push(writer.progress()?.longest_gap.as_secs_f64());
        self.read_logs(volume, began)?;
        lab::run(&["node", "start", &node])?;
        whole(volume, BOOT).map(drop)
    }

    /// By the words of the operator and of the engine that took over.
    fn read_logs(&mut self, volume: &str, began: Timestamp) -> Result<()> {
        let object = get(VOLUMES, volume, None)?.context("it exists")?;
        let pod = object["status"]["engine"]["pod"]
            .as_str()
            .context("a pod")?;
        let engine = kubectl(&["logs", "-n", "weft-engines", pod])?;
        let operator = kubectl(&["logs", "-n", install::SYSTEM, "deployment/weft-operator"])?;
        let found = first(&operator, "an engine is lost", began)?;
        let fences = first(&engine, "raises the fence", began)?;
        let serves = first(&engine, "serving port", began)?;
        let host = first(&engine, "host admitted", began)?;
        let between = |from: Timestamp, to: Timestamp| (to - from).total(jiff::Unit::Second);
        self.detect.push(between(began, found)?);
        self.start.push(between(found, fences)?);
        self.fence.push(between(fences, serves)?);
        self.reconnect.push(between(serves, host)?);
        Ok(())
    }

    fn print(mut self) {
        let rows = [
            ("    longest gap", &mut self.gap),
            ("    detect: power off to found lost", &mut self.detect),
            ("    start: to the new engine", &mut self.start),
            ("    fence: to serving", &mut self.fence),
            ("    reconnect: to the host admitted", &mut self.reconnect),
        ];
        for (what, seconds) in rows {
            say(&spread(what, seconds));
        }
    }
}

/// When a log said this for the first time after a moment.
fn first(log: &str, words: &str, after: Timestamp) -> Result<Timestamp> {
    let said = log.lines().filter(|line| line.contains(words));
    let at = |line: &str| line.split_whitespace().next()?.parse::<Timestamp>().ok();
    said.filter_map(at)
        .find(|at| *at >= after)
        .with_context(|| format!("no line with {words:?} after {after}"))
}
