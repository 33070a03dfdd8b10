//! Images without a registry: archives in docker's format, imported by every node.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::PAUSE_IMAGE;
use crate::paths::{Paths, hex};
use crate::process;

/// The image with a shell and the usual tools, which tests use for their pods.
pub(crate) const BUSYBOX_IMAGE: &str = "busybox:1";

const PAUSE_SOURCE: &str = include_str!("../pause/pause.c");

/// Makes the two images that every node needs from its first moment, if they are not there yet.
pub(crate) fn base(paths: &Paths) -> Result<()> {
    fs::create_dir_all(paths.images())?;
    let pause = paths.images().join("pause.tar");
    if !pause.exists() {
        pack(&pause, PAUSE_IMAGE, "/pause", compile_pause)?;
    }
    let busybox = paths.images().join("busybox-1.tar");
    if !busybox.exists() {
        pack(&busybox, BUSYBOX_IMAGE, "", install_busybox)?;
    }
    Ok(())
}

/// Makes a docker archive of one layer, which `fill` puts together in an empty directory. It
/// runs `entry`, or a shell when that is empty.
pub(crate) fn pack(
    archive: &Path,
    image: &str,
    entry: &str,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let mut process = json!({"Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]});
    if entry.is_empty() {
        process["Cmd"] = json!(["/bin/sh"]);
    } else {
        process["Entrypoint"] = json!([entry]);
    }
    let work = archive.with_extension("work");
    let _ = fs::remove_dir_all(&work);
    let root = work.join("root");
    fs::create_dir_all(&root)?;
    fill(&root)?;
    tar(&root, &work.join("layer.tar"), ".")?;

    let layer = sha256(&work.join("layer.tar"))?;
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": process,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    })
    .to_string();
    let name = format!("{}.json", hex(&Sha256::digest(&config)));
    fs::write(work.join(&name), &config)?;
    let manifest = json!([{"Config": name, "RepoTags": [image], "Layers": ["layer.tar"]}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    fs::remove_dir_all(&root)?;
    let unfinished = archive.with_extension("new");
    tar(&work, &unfinished, ".")?;
    fs::rename(&unfinished, archive)?;
    fs::remove_dir_all(&work).context("cannot remove the work directory of an image")
}

fn tar(dir: &Path, archive: &Path, what: &str) -> Result<()> {
    process::run(
        Command::new("tar")
            .args([
                "--sort=name",
                "--owner=0",
                "--group=0",
                "--numeric-owner",
                "--mtime=@0",
            ])
            .arg("-C")
            .arg(dir)
            .arg("-cf")
            .arg(archive)
            .args(["--transform=s,^\\./,,", what]),
    )
    .map(drop)
}

/// By the system's program: an unoptimized build of this one takes seconds for a large file.
pub(crate) fn sha256(file: &Path) -> Result<String> {
    let line = process::run(Command::new("sha256sum").arg(file))?;
    let digest = line.split_whitespace().next();
    Ok(digest.context("sha256sum said nothing")?.to_owned())
}

fn compile_pause(root: &Path) -> Result<()> {
    let target = root.join("pause");
    process::run_with_input(
        Command::new("musl-gcc")
            .args(["-xc", "-", "-static", "-Os", "-s", "-o"])
            .arg(&target),
        PAUSE_SOURCE,
    )
    .context("cannot compile the pause program")
    .map(drop)
}

fn install_busybox(root: &Path) -> Result<()> {
    for dir in ["bin", "tmp", "dev", "proc", "sys", "etc", "root", "var"] {
        fs::create_dir_all(root.join(dir))?;
    }
    let program = root.join("bin/busybox");
    fs::copy("/bin/busybox", &program).context("cannot copy /bin/busybox (busybox-static)")?;
    for applet in process::run(Command::new("/bin/busybox").arg("--list"))?.lines() {
        // A link "busybox" to itself would hide the program.
        if applet != "busybox" {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n").context("cannot write etc/group")
}

/// Copies archives to where nodes look for them. A copy keeps the time of its archive, by which
/// nodes know whether they have imported it.
pub(crate) fn keep(paths: &Paths, archives: &[PathBuf]) -> Result<()> {
    fs::create_dir_all(paths.images())?;
    for archive in archives {
        let name = archive
            .file_name()
            .with_context(|| format!("{} is no file", archive.display()))?;
        let copy = paths.images().join(name).with_extension("tar");
        let seen = |path: &Path| {
            let meta = fs::metadata(path).ok()?;
            Some((meta.len(), meta.modified().ok()?))
        };
        if seen(&copy).is_some() && seen(&copy) == seen(archive) {
            continue;
        }
        let unfinished = copy.with_extension("new");
        fs::copy(archive, &unfinished)
            .with_context(|| format!("cannot read {}", archive.display()))?;
        if let Some((_, time)) = seen(archive) {
            fs::File::options()
                .write(true)
                .open(&unfinished)?
                .set_modified(time)?;
        }
        fs::rename(&unfinished, &copy)?;
    }
    Ok(())
}
