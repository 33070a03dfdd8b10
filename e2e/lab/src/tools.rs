//! Programs that are built once and kept outside the tree: Kubernetes from its Go modules, the
//! guest's kernel from the distribution's source package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::paths::{Paths, hex};

/// The directory with `go.mod`, `go.sum` and `main.go` of the Kubernetes programs.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kube");
const GO_SUM: &[u8] = include_bytes!("../kube/go.sum");
/// What the API server says it is. Without it kubectl and helm cannot read its version.
const KUBERNETES_VERSION: (&str, &str, &str) = ("v1.37.2", "1", "37");

/// Programs of the one executable `kube`, which looks at the name it was started under.
const APPLETS: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

/// Programs that are packages of their own in the same module.
const PACKAGES: [(&str, &str); 4] = [
    (
        "csi-provisioner",
        "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
    ),
    (
        "csi-attacher",
        "github.com/kubernetes-csi/external-attacher/v4/cmd/csi-attacher",
    ),
    (
        "csi-resizer",
        "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
    ),
    ("helm", "helm.sh/helm/v3/cmd/helm"),
];

/// What must be installed: a program, and the Debian package that has it.
const PROGRAMS: [(&str, &str); 14] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("losetup", "mount"),
    ("ip", "iproute2"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("perl", "perl-base"),
    ("awk", "mawk"),
    ("busybox", "busybox-static"),
    ("musl-gcc", "musl-tools"),
];

/// Where the Kubernetes programs of this `go.sum` are.
pub fn kube_dir(paths: &Paths) -> PathBuf {
    let digest = hex(&Sha256::digest(GO_SUM));
    let short = digest.get(..16).unwrap_or(&digest).to_owned();
    paths.cache().join(format!("kube-{short}"))
}

/// Builds what is not in the cache yet, and says so aloud.
pub fn build(paths: &Paths, guest: bool) -> Result<()> {
    check_programs()?;
    build_kube(paths)?;
    if guest {
        weft_guest::kernel(paths.cache())?;
    }
    Ok(())
}

/// Whether nothing would have to be built.
pub fn is_built(paths: &Paths, guest: bool) -> bool {
    let dir = kube_dir(paths);
    let kernel = !guest || weft_guest::kernel_path(paths.cache()).is_ok_and(|k| k.exists());
    kernel && dir.join("kube").exists() && PACKAGES.iter().all(|(name, _)| dir.join(name).exists())
}

fn build_kube(paths: &Paths) -> Result<()> {
    let dir = kube_dir(paths);
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let (version, major, minor) = KUBERNETES_VERSION;
    let prefix = "k8s.io/component-base/version.git";
    let flags = format!(
        "-s -w -X {prefix}Version={version} -X {prefix}Major={major} -X {prefix}Minor={minor}"
    );
    go_build(&dir, "kube", ".", &flags, "about 9 minutes on 2 cores")?;
    for (name, package) in PACKAGES {
        go_build(&dir, name, package, "-s -w", "up to 3 minutes")?;
    }
    Ok(())
}

fn go_build(dir: &Path, name: &str, package: &str, flags: &str, usual: &str) -> Result<()> {
    let target = dir.join(name);
    if target.exists() {
        return Ok(());
    }
    eprintln!(
        "weft-lab: building {name} from {package} (once; {usual} when nothing is cached) ..."
    );
    let begin = Instant::now();
    let unfinished = dir.join(format!(".{name}.{}", std::process::id()));
    let status = Command::new("go")
        .args([
            "build",
            "-trimpath",
            "-mod=readonly",
            "-ldflags",
            flags,
            "-o",
        ])
        .arg(&unfinished)
        .arg(package)
        .current_dir(MODULE)
        .env("CGO_ENABLED", "0")
        .status()
        .context("cannot start go: install Go 1.25 or newer")?;
    if !status.success() {
        bail!("go build {package} in {MODULE} ended with {status}");
    }
    fs::rename(&unfinished, &target)?;
    eprintln!(
        "weft-lab: {name} built in {:.0} s: {}",
        begin.elapsed().as_secs_f64(),
        target.display()
    );
    Ok(())
}

/// Names the packages that are missing, all at once.
pub fn check_programs() -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin".into(), "/sbin".into()]);
    let missing: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| !dirs.iter().any(|dir| dir.join(program).exists()))
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        bail!("not installed: {0}; apt-get install {0}", missing.join(" "));
    }
    if !Path::new("/usr/lib/cni/ptp").exists() {
        bail!("no CNI plugins; apt-get install containernetworking-plugins");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("the lab makes namespaces, mounts and loop devices: run it as root");
    }
    Ok(())
}

/// Links with the programs' names in the lab's `bin`, and the scripts of the nodes.
pub(crate) fn link(paths: &Paths) -> Result<()> {
    let (bin, dir) = (paths.bin(), kube_dir(paths));
    fs::create_dir_all(&bin)?;
    for name in APPLETS {
        symlink(&dir.join("kube"), &bin.join(name))?;
    }
    for (name, _) in PACKAGES {
        symlink(&dir.join(name), &bin.join(name))?;
    }
    for (name, text) in [
        ("node-init", include_str!("../scripts/node-init.sh")),
        ("node-services", include_str!("../scripts/node-services.sh")),
    ] {
        replace(&bin.join(name), text.as_bytes())?;
    }
    Ok(())
}

/// Writes a file in one step: a shell that runs the old one keeps reading the old one.
pub(crate) fn replace(path: &Path, text: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, path).with_context(|| format!("cannot write {}", path.display()))
}

fn symlink(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == target) {
        return Ok(());
    }
    let _ = fs::remove_file(link);
    std::os::unix::fs::symlink(target, link)
        .with_context(|| format!("cannot link {}", link.display()))
}
