//! The images of Weft itself: the final stages of the Dockerfile, around executables that exist
//! already, and the standard CSI sidecars beside them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::images::{pack, sha256};
use crate::paths::Paths;
use crate::process;
use crate::tools::kube_dir;

/// The repository's root.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Final stages of the Dockerfile; each carries the executable `weft-STAGE`.
const STAGES: [&str; 5] = ["operator", "drive", "engine", "initiator", "csi"];

/// Sidecars, from the programs that are built with Kubernetes.
const SIDECARS: [&str; 3] = ["csi-provisioner", "csi-attacher", "csi-resizer"];

/// Where the static executables are: `WEFT_BIN`, or where `make binaries` puts them.
pub fn executables() -> PathBuf {
    std::env::var_os("WEFT_BIN").map_or_else(
        || Path::new(ROOT).join("target/x86_64-unknown-linux-musl/image"),
        PathBuf::from,
    )
}

/// Builds every image whose content changed, without a registry, and returns all archives.
pub fn build_images(paths: &Paths) -> Result<Vec<PathBuf>> {
    let executables = executables();
    let out = paths.cache().join("images");
    fs::create_dir_all(&out)?;
    let mut archives = Vec::new();
    for stage in STAGES {
        let program = executables.join(format!("weft-{stage}"));
        if !program.exists() {
            bail!(
                "{} is missing; build it with `make binaries`, or say by WEFT_BIN where it is",
                program.display()
            );
        }
        let archive = out.join(format!("weft-{stage}.tar"));
        let inputs = [
            program.clone(),
            Path::new(ROOT).join("Dockerfile"),
            Path::new(ROOT).join("clients/csi/collect-tools.sh"),
        ];
        unless_built(&archive, &inputs, || build_stage(stage, &program, &archive))?;
        archives.push(archive);
    }
    for sidecar in SIDECARS {
        let program = kube_dir(paths).join(sidecar);
        let archive = out.join(format!("{sidecar}.tar"));
        unless_built(&archive, std::slice::from_ref(&program), || {
            pack(
                &archive,
                &format!("weft.storage/{sidecar}:lab"),
                &format!("/{sidecar}"),
                |root| {
                    fs::copy(&program, root.join(sidecar))
                        .with_context(|| format!("cannot read {}", program.display()))
                        .map(drop)
                },
            )
        })?;
        archives.push(archive);
    }
    Ok(archives)
}

/// Calls `build` when the inputs are others than those of the archive that exists.
fn unless_built(
    archive: &Path,
    inputs: &[PathBuf],
    build: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let mut key = String::new();
    for input in inputs {
        key.push_str(&sha256(input)?);
        key.push('\n');
    }
    let file = archive.with_extension("inputs");
    if archive.exists() && fs::read_to_string(&file).is_ok_and(|old| old == key) {
        return Ok(());
    }
    build().with_context(|| format!("cannot build {}", archive.display()))?;
    fs::write(&file, key).context("cannot note what an image was built from")
}

/// buildah takes directories in place of the stages that would compile.
fn build_stage(stage: &str, program: &Path, archive: &Path) -> Result<()> {
    let work = archive.with_extension("work");
    let _ = fs::remove_dir_all(&work);
    let build = work.join("build/rootfs");
    let tools = work.join("tools/rootfs");
    let empty = work.join("empty");
    for dir in [&build, &tools, &empty] {
        fs::create_dir_all(dir)?;
    }
    fs::copy(program, build.join(format!("weft-{stage}")))?;
    if stage == "csi" {
        process::run(
            Command::new("sh")
                .arg(Path::new(ROOT).join("clients/csi/collect-tools.sh"))
                .arg(&tools),
        )?;
    }
    let image = format!("weft.storage/weft-{stage}:dev");
    process::run(
        buildah(&work)
            .args([
                "build",
                "--isolation",
                "chroot",
                "--quiet",
                "--timestamp",
                "0",
            ])
            .arg(context("build", &work))
            .arg(context("tools", &work))
            .arg("--file")
            .arg(Path::new(ROOT).join("Dockerfile"))
            .args(["--target", stage, "--tag", &image])
            .arg(&empty),
    )?;
    let unfinished = archive.with_extension("new");
    let _ = fs::remove_file(&unfinished);
    process::run(
        buildah(&work)
            .args(["push", "--quiet", &image])
            .arg(format!("docker-archive:{}:{image}", unfinished.display())),
    )?;
    fs::rename(&unfinished, archive)?;
    fs::remove_dir_all(&work).context("cannot remove the work directory of an image")
}

/// With a store of its own, so that nothing stays in the machine's.
fn buildah(work: &Path) -> Command {
    let mut command = Command::new("buildah");
    command
        .args(["--storage-driver", "vfs", "--root"])
        .arg(work.join("store"))
        .arg("--runroot")
        .arg(work.join("run"));
    command
}

fn context(name: &str, work: &Path) -> String {
    format!("--build-context={name}={}", work.join(name).display())
}
