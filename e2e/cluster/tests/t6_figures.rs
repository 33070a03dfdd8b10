//! Figures that the closing line of a run prints: time from claim to Bound, from pod to first byte,
//! and what an idle volume costs. Nothing is asserted of an absolute time.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use weft_e2e_cluster::kubectl::wait;
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::process::{node_of, pids, pod_of};
use weft_e2e_cluster::progress::{say, spread};
use weft_e2e_cluster::{clean, install, lab, tour};

const RUNS: usize = 5;
const IDLE: Duration = Duration::from_secs(60);

#[test]
fn times_and_idle_costs_are_measured() {
    install::ready().expect("the lab is up with Weft installed");
    times().expect("times");
    idle().expect("idle costs");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn times() -> Result<()> {
    let (mut bound, mut first_byte) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let began = Instant::now();
        pods::claim("timed", "64Mi", Use::FileSystem, "weft-fast")?;
        pods::bound("timed")?;
        bound.push(began.elapsed().as_secs_f64());
        let began = Instant::now();
        pods::start("timed", tour::USER_SPACE_NODE, "timed", Use::FileSystem)?;
        pods::shell("timed", "echo x > /data/x && sync")?;
        first_byte.push(began.elapsed().as_secs_f64());
        pods::stop("timed")?;
        pods::release("timed")?;
    }
    say(&spread("claim to Bound", &mut bound));
    say(&spread("pod created to first byte", &mut first_byte));
    Ok(())
}

/// Counters of one process, read on its node.
struct Cost {
    resident_kib: u64,
    /// Context switches of each thread, by its number.
    switches: BTreeMap<u32, u64>,
}

impl Cost {
    /// Switches between two looks, of the threads that lived at both: a thread that has ended takes
    /// its counter with it.
    fn switches_since(&self, before: &Self) -> u64 {
        let both = self
            .switches
            .iter()
            .filter_map(|(thread, now)| Some((now, before.switches.get(thread)?)));
        both.map(|(now, then)| now.saturating_sub(*then)).sum()
    }
}

fn cost(node: &str, pid: u32) -> Result<Cost> {
    let text = lab::on_node(
        node,
        &format!(
            "awk '/^VmRSS/{{print \"rss\", $2}}' /proc/{pid}/status; for t in /proc/{pid}/task/*; do \
             echo ${{t##*/}} $(awk '/ctxt_switches/{{s+=$2}} END{{print s}}' $t/status 2>/dev/null); done"
        ),
    )?;
    let mut cost = Cost {
        resident_kib: 0,
        switches: BTreeMap::new(),
    };
    for (name, value) in text.lines().filter_map(|line| line.split_once(' ')) {
        match (name.parse(), value.parse()) {
            (Ok(thread), Ok(count)) => drop(cost.switches.insert(thread, count)),
            (Err(_), Ok(kib)) => cost.resident_kib = kib,
            // A thread that ended between the two commands.
            (_, Err(_)) => {}
        }
    }
    ensure!(
        cost.resident_kib > 0 && !cost.switches.is_empty(),
        "process {pid} on {node} cannot be read: {text:?}"
    );
    Ok(cost)
}

/// Memory of the pod's cgroup, kernel and pause included, in KiB.
fn cgroup_kib(node: &str, pid: u32) -> Result<u64> {
    let script = format!(
        "c=$(awk -F: '$2==\"memory\"{{print $3}}' /proc/{pid}/cgroup); cat /sys/fs/cgroup/memory$(dirname $c)/memory.usage_in_bytes"
    );
    Ok(lab::on_node(node, &script)?
        .trim()
        .parse::<u64>()
        .unwrap_or(0)
        / 1024)
}

/// Resident memory of the pod's containerd shim in KiB.
fn shim_kib(node: &str, pid: u32) -> Result<u64> {
    let script = format!(
        "p=$(awk '/^PPid/{{print $2}}' /proc/{pid}/status); awk '/^VmRSS/{{print $2}}' /proc/$p/status"
    );
    Ok(lab::on_node(node, &script)?.trim().parse().unwrap_or(0))
}

fn idle() -> Result<()> {
    pods::claim("idle", "64Mi", Use::FileSystem, "weft-fast")?;
    let volume = pods::bound("idle")?;
    measure("unattached", &volume)?;
    pods::start("idle", tour::USER_SPACE_NODE, "idle", Use::FileSystem)?;
    pods::shell("idle", "echo x > /data/x && sync")?;
    measure("attached", &volume)?;
    pods::stop("idle")?;
    pods::release("idle")
}

fn measure(when: &str, volume: &str) -> Result<()> {
    let engine = pod_of("engine", &volume[..volume.len().min(40)])?;
    let slice = weft_e2e_cluster::kubectl::list("slices.weft.storage", "")?;
    let drive_name = slice
        .iter()
        .find(|s| s["spec"]["volume"] == volume)
        .map(|s| s["spec"]["drive"].as_str().unwrap_or_default().to_owned());
    let drive = pod_of("drive", &drive_name.unwrap_or_default())?;
    let mut rows = Vec::new();
    for (what, pod) in [("engine", &engine), ("drive", &drive)] {
        let (supervisor, child) = pids(pod)?;
        let node = node_of(pod)?;
        rows.push((
            what,
            node.clone(),
            supervisor,
            child,
            cost(&node, supervisor)?,
            cost(&node, child)?,
        ));
    }
    let began = Instant::now();
    wait("the idle minute", IDLE * 2, || {
        Ok(if began.elapsed() >= IDLE {
            Ok(())
        } else {
            Err(String::new())
        })
    })?;
    for (what, node, supervisor, child, s0, c0) in rows {
        let (s1, c1) = (cost(&node, supervisor)?, cost(&node, child)?);
        let per_second =
            |before: &Cost, after: &Cost| after.switches_since(before) as f64 / IDLE.as_secs_f64();
        say(&format!(
            "idle {when:<10} {what:<7} child {:5} KiB {:5.2} switches/s   PID 1 {:5} KiB {:5.2} switches/s   pod cgroup {:6} KiB   shim {:6} KiB",
            c1.resident_kib,
            per_second(&c0, &c1),
            s1.resident_kib,
            per_second(&s0, &s1),
            cgroup_kib(&node, child)?,
            shim_kib(&node, supervisor)?
        ));
    }
    Ok(())
}
