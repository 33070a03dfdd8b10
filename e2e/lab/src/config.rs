//! What is written on a node's disk before it boots: containerd, CNI, kubelet, kube-proxy.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::paths::Paths;
use crate::topology::{DNS_IP, NodeKind, NodeSpec, POD_CIDR};

/// The name under which every node knows its sandbox image.
pub(crate) const PAUSE_IMAGE: &str = "weft.lab/pause:1";

/// Writes all files of one node.
pub(crate) fn write(paths: &Paths, node: &NodeSpec, fast_timers: bool) -> Result<()> {
    let dir = paths.node(&node.name);
    for sub in [
        "kubelet",
        "containerd",
        "weft",
        "log/pods",
        "log/containers",
        "config",
    ] {
        fs::create_dir_all(dir.join(sub))?;
    }
    let config = dir.join("config");
    put(&config, "containerd.toml", &containerd())?;
    put(&config, "10-lab.conflist", &cni(node).to_string())?;
    let kubelet = kubelet(paths, node, fast_timers);
    put(&config, "kubelet.json", &kubelet.to_string())?;
    put(
        &config,
        "kube-proxy.json",
        &kube_proxy(paths, node).to_string(),
    )
}

fn put(dir: &Path, file: &str, text: &str) -> Result<()> {
    let path = dir.join(file);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn containerd() -> String {
    // Without CAP_SYS_RESOURCE runc cannot write a negative oom_score_adj and dies of it.
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.tracing.processor.v1.otlp",
]

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  tolerate_missing_hugetlb_controller = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"#
    )
}

/// Point to point: a pod's address is routed, never translated. The leases live in /run, since
/// the pods of an earlier boot are gone.
fn cni(node: &NodeSpec) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "lab",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": "/run/cni",
                "ranges": [[{"subnet": node.pod_cidr()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn kubelet(paths: &Paths, node: &NodeSpec, fast_timers: bool) -> Value {
    let pki = paths.pki();
    let mut config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "x509": {"clientCAFile": pki.join("ca.crt")},
            "webhook": {"enabled": true},
            "anonymous": {"enabled": false},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": pki.join(format!("{}.crt", node.name)),
        "tlsPrivateKeyFile": pki.join(format!("{}.key", node.name)),
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "evictionHard": {
            "memory.available": "0%",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "clusterDNS": [DNS_IP],
        "clusterDomain": "cluster.local",
        "maxPods": 250,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "registerNode": true,
    });
    let extra = match node.kind {
        NodeKind::Namespace => json!({
            "cgroupRoot": format!("/{}/{}", paths.cgroup(), node.name),
            "failCgroupV1": false,
            "localStorageCapacityIsolation": false,
        }),
        // The guest has cgroup v2 and a file system of its own below /var/lib/containerd;
        // without the isolation its kubelet finds no file system and wants to evict.
        NodeKind::Guest => json!({
            "cgroupRoot": "/",
            "localStorageCapacityIsolation": true,
            "enforceNodeAllocatable": ["pods"],
        }),
    };
    merge(&mut config, extra);
    if fast_timers {
        merge(
            &mut config,
            json!({"nodeStatusUpdateFrequency": "1s", "nodeLeaseDurationSeconds": 8}),
        );
    }
    config
}

fn kube_proxy(paths: &Paths, node: &NodeSpec) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        "detectLocalMode": "ClusterCIDR",
        "hostnameOverride": node.name,
        "clientConnection": {"kubeconfig": paths.pki().join("kube-proxy.kubeconfig")},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        // The nodes' conntrack limits are the machine's: leave them alone.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    })
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::nodes;

    #[test]
    fn the_guest_and_the_others_differ_only_where_their_kernels_do() {
        let paths = Paths::new("/srv/lab".into(), "/srv/cache".into()).expect("absolute");
        let all = nodes(1, true);
        let [first, guest] = all.as_slice() else {
            panic!("two nodes expected");
        };
        let first = kubelet(&paths, first, false);
        let guest = kubelet(&paths, guest, false);
        assert_eq!(guest["cgroupRoot"], "/");
        assert_eq!(
            first["cgroupRoot"],
            format!("/{}/n1", paths.cgroup()).as_str()
        );
        assert_eq!(first["authentication"], guest["authentication"]);
    }
}
