//! The lab against its promises, on this machine: as root, with nothing else that is a lab.
//!
//! One test, since there is one lab: its steps are functions named as sentences.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use weft_lab::{BLOCK_DRIVE, Lab, Options, Paths};

const PROBE: &str = r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: probe}
spec:
  selector: {matchLabels: {app: probe}}
  template:
    metadata: {labels: {app: probe}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: probe
        image: busybox:1
        imagePullPolicy: IfNotPresent
        securityContext: {privileged: true}
        command: [sh, -c, "echo hello; exec nc -ll -p 7000 -e /bin/hostname"]
        volumeMounts:
        - {name: shared, mountPath: /shared, mountPropagation: Bidirectional}
      volumes:
      - {name: shared, hostPath: {path: /var/lib/weft/shared, type: DirectoryOrCreate}}
"#;

#[test]
fn the_lab_keeps_its_promises() -> Result<()> {
    // What a failed run left up for whoever wanted to look at it.
    weft_lab::down(&Paths::from_env()?)?;
    let before = Leftovers::now()?;
    let options = Options::default();
    let begin = Instant::now();
    let lab = Lab::up(&options)?;
    println!("up in {:.1} s", begin.elapsed().as_secs_f64());
    up_again_is_harmless(&options)?;
    pods_of_all_nodes_reach_each_other_and_the_api_server(&lab)?;
    a_mount_made_in_a_pod_is_seen_on_its_node_only(&lab)?;
    one_node_has_a_block_device_with_a_stable_name(&lab)?;
    the_guest_has_the_kernel_initiator(&lab)?;
    a_node_without_power_is_silent_and_its_loop_devices_are_gone(&lab)?;
    a_power_cut_loses_what_was_not_synced_and_nothing_else(&lab)?;
    a_frozen_node_goes_on_where_it_was(&lab)?;
    pods_go_on_without_a_control_plane(&lab)?;
    up_heals_what_a_test_left(&lab, &options)?;
    lab.down()?;
    before.ensure_same()?;

    a_crash_leaves_nothing_after_down(&options)?;
    before.ensure_same()
}

fn up_again_is_harmless(options: &Options) -> Result<()> {
    let first = Lab::attach()?;
    let pids: Vec<_> = first.nodes().iter().map(|n| n.pid()).collect();
    let second = Lab::up(options)?;
    ensure!(first.sandbox_pid() == second.sandbox_pid());
    ensure!(pids == second.nodes().iter().map(|n| n.pid()).collect::<Vec<_>>());
    let other = Options {
        nodes: 2,
        ..options.clone()
    };
    ensure!(Lab::up(&other).is_err(), "another shape is refused");
    Ok(())
}

fn pods_of_all_nodes_reach_each_other_and_the_api_server(lab: &Lab) -> Result<()> {
    lab.apply(PROBE)?;
    wait_probe(lab)?;
    let pods = probes(lab)?;
    ensure!(pods.len() == 4, "{pods:?}");
    for from in &pods {
        ensure!(
            lab.kubectl(&["logs", &from.name])?.contains("hello"),
            "logs of {}",
            from.name
        );
        for to in &pods {
            let name = in_pod(
                lab,
                from,
                &format!("timeout 5 nc {} 7000 </dev/null", to.address),
            )?;
            ensure!(name.trim() == to.name, "{from:?} to {to:?}: {name}");
        }
        in_pod(lab, from, "nc -w 5 10.211.0.1 443 </dev/null")?;
    }
    Ok(())
}

fn a_mount_made_in_a_pod_is_seen_on_its_node_only(lab: &Lab) -> Result<()> {
    for pod in probes(lab)? {
        let script = "mkdir -p /shared/m && mount -t tmpfs t /shared/m && echo a >/shared/m/file";
        in_pod(lab, &pod, script)?;
        let file = "/var/lib/weft/shared/m/file";
        ensure!(lab.node(&pod.node)?.exec(&["cat", file])? == "a\n");
        ensure!(!Path::new(file).exists(), "the machine sees {file}");
        in_pod(lab, &pod, "umount /shared/m")?;
    }
    Ok(())
}

fn one_node_has_a_block_device_with_a_stable_name(lab: &Lab) -> Result<()> {
    let size = lab
        .node("n3")?
        .exec(&["blockdev", "--getsize64", BLOCK_DRIVE])?;
    ensure!(size.trim() == (1 << 30).to_string(), "{size}");
    for other in ["n1", "n2", "n4"] {
        ensure!(lab.node(other)?.exec(&["ls", BLOCK_DRIVE]).is_err());
    }
    Ok(())
}

fn the_guest_has_the_kernel_initiator(lab: &Lab) -> Result<()> {
    let guest = lab.node("n4")?;
    ensure!(guest.exec(&["uname", "-r"])?.starts_with("6.12"));
    ensure!(
        guest
            .exec(&["head", "-1", "/dev/nvme-fabrics"])?
            .contains("transport=")
    );
    let output = guest.output(&["sh", "-c", "echo out; echo err >&2; exit 3"])?;
    ensure!(output.status.code() == Some(3), "{output:?}");
    ensure!(output.stdout == b"out\n" && output.stderr == b"err\n");
    Ok(())
}

fn a_node_without_power_is_silent_and_its_loop_devices_are_gone(lab: &Lab) -> Result<()> {
    let node = lab.node("n2")?;
    let script = "set -e; cd /var/lib/weft; truncate -s 64M disk; mkfs.ext4 -q disk; mkdir -p m
        l=$(losetup -f --show disk); mount $l m; echo kept >m/kept; sync m/kept
        echo b >m/unsynced; echo $l";
    let device = node.exec(&["bash", "-c", script])?;
    node.kill()?;
    ensure!(node.pid().is_none());
    ensure!(
        !loop_devices()?.contains(device.trim()),
        "{device} is attached still"
    );
    let ping = lab
        .command("ping")
        .args(["-c1", "-W1", "172.30.2.2"])
        .output()?;
    let words = String::from_utf8_lossy(&ping.stdout);
    ensure!(!words.to_lowercase().contains("unreachable"), "{words}");

    node.start()?;
    node.wait_booted()?;
    let script = "set -e; cd /var/lib/weft; mount -o loop disk m; cat m/kept; ls m; umount m";
    let seen = node.exec(&["bash", "-c", script])?;
    ensure!(seen.starts_with("kept"), "{seen}");
    ensure!(!seen.contains("unsynced"), "{seen}");
    wait_probe(lab)
}

fn a_power_cut_loses_what_was_not_synced_and_nothing_else(lab: &Lab) -> Result<()> {
    let guest = lab.node("n4")?;
    let script = "cd /var/lib/weft; echo kept >kept; sync kept; echo lost >lost";
    guest.exec(&["bash", "-c", script])?;
    guest.kill()?;
    guest.start()?;
    guest.wait_booted()?;
    ensure!(guest.exec(&["cat", "/var/lib/weft/kept"])? == "kept\n");
    ensure!(guest.exec(&["cat", "/var/lib/weft/lost"]).is_err());
    wait_probe(lab)
}

fn a_frozen_node_goes_on_where_it_was(lab: &Lab) -> Result<()> {
    let pods = probes(lab)?;
    for name in ["n3", "n4"] {
        let pod = pods.iter().find(|p| p.node == name).context("a pod")?;
        let node = lab.node(name)?;
        let pid = node.pid();
        node.stop()?;
        let ask = format!("timeout 3 nc {} 7000 </dev/null | grep .", pod.address);
        let silent = lab.command("busybox").args(["sh", "-c", &ask]).output()?;
        ensure!(!silent.status.success(), "{name} answers: {silent:?}");
        node.cont()?;
        ensure!(node.pid() == pid);
        eventually(&format!("{name} to answer"), || {
            let answer = lab.command("busybox").args(["sh", "-c", &ask]).output()?;
            Ok(answer.status.success())
        })?;
    }
    Ok(())
}

fn pods_go_on_without_a_control_plane(lab: &Lab) -> Result<()> {
    let pods = probes(lab)?;
    lab.control().stop()?;
    ensure!(
        lab.kubectl(&["--request-timeout=2s", "get", "pods"])
            .is_err()
    );
    for pod in &pods {
        let ask = format!("timeout 5 nc {} 7000 </dev/null", pod.address);
        let answer = lab.command("busybox").args(["sh", "-c", &ask]).output()?;
        ensure!(String::from_utf8_lossy(&answer.stdout).trim() == pod.name);
    }
    lab.control().start()?;
    ensure!(lab.control().running());
    wait_probe(lab)
}

fn up_heals_what_a_test_left(lab: &Lab, options: &Options) -> Result<()> {
    lab.node("n1")?.kill()?;
    lab.node("n2")?.stop()?;
    lab.node("n3")?.unplug()?;
    lab.control().stop()?;
    let lab = Lab::up(options)?;
    ensure!(!lab.node("n3")?.is_cut());
    wait_probe(&lab)?;
    for pod in probes(&lab)? {
        eventually(&format!("exec in {}", pod.name), || {
            Ok(in_pod(&lab, &pod, "true").is_ok())
        })?;
    }
    Ok(())
}

fn a_crash_leaves_nothing_after_down(options: &Options) -> Result<()> {
    let lab = Lab::up(options)?;
    // A frozen node must not keep the sandbox alive.
    lab.node("n1")?.stop()?;
    let sandbox = Pid::from_raw(lab.sandbox_pid()).context("a pid")?;
    kill_process(sandbox, Signal::KILL)?;
    eventually("the sandbox to end", || Ok(Lab::attach().is_err()))?;
    weft_lab::down(&Paths::from_env()?)
}

#[derive(Debug)]
struct Pod {
    name: String,
    node: String,
    address: String,
}

fn probes(lab: &Lab) -> Result<Vec<Pod>> {
    let template =
        "jsonpath={range .items[*]}{.metadata.name} {.spec.nodeName} {.status.podIP}\n{end}";
    let text = lab.kubectl(&["get", "pods", "-l", "app=probe", "-o", template])?;
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split(' ').map(str::to_owned);
            let mut word = || words.next().context("a word is missing");
            Ok(Pod {
                name: word()?,
                node: word()?,
                address: word()?,
            })
        })
        .collect()
}

/// Every probe answers at its address of now: a status from before a power cut is no proof.
fn wait_probe(lab: &Lab) -> Result<()> {
    lab.kubectl(&["rollout", "status", "daemonset/probe", "--timeout=120s"])?;
    eventually("all probes to answer", || {
        for pod in probes(lab)? {
            let ask = format!("timeout 3 nc {} 7000 </dev/null", pod.address);
            let answer = lab.command("busybox").args(["sh", "-c", &ask]).output()?;
            if String::from_utf8_lossy(&answer.stdout).trim() != pod.name {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

fn in_pod(lab: &Lab, pod: &Pod, script: &str) -> Result<String> {
    lab.kubectl(&["exec", &pod.name, "--", "sh", "-c", script])
}

fn eventually(what: &str, mut ask: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + Duration::from_secs(120);
    while !ask()? {
        ensure!(Instant::now() < end, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

fn loop_devices() -> Result<String> {
    let output = Command::new("losetup")
        .args(["-n", "-O", "NAME"])
        .output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What a lab could leave on the machine.
#[derive(Debug, PartialEq)]
struct Leftovers {
    mounts: Vec<String>,
    loops: String,
    cgroups: Vec<PathBuf>,
    links: String,
    device_names: bool,
}

impl Leftovers {
    fn now() -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts")?;
        let mut cgroups = Vec::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.flatten() {
            let Ok(entries) = std::fs::read_dir(hierarchy.path()) else {
                continue;
            };
            let paths = entries.flatten().map(|entry| entry.path());
            cgroups.extend(paths.filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with("weft-lab"))
            }));
        }
        let links = Command::new("ip").args(["-o", "-br", "link"]).output()?;
        Ok(Self {
            mounts: mounts.lines().map(str::to_owned).collect(),
            loops: loop_devices()?,
            cgroups,
            links: String::from_utf8_lossy(&links.stdout).into_owned(),
            device_names: Path::new("/dev/disk").exists(),
        })
    }

    fn ensure_same(&self) -> Result<()> {
        let now = Self::now()?;
        ensure!(*self == now, "before: {self:#?}\nafter: {now:#?}");
        let state = Paths::from_env()?.state().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(words) = std::fs::read(entry.path().join("cmdline")) else {
                continue;
            };
            let words = String::from_utf8_lossy(&words).into_owned();
            ensure!(!words.contains(&state), "a process is left: {words}");
        }
        Ok(())
    }
}
