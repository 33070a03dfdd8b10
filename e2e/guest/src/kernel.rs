//! The guests' kernel, built once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

/// The source package, in the one version series that is known to do all that is needed: TLS in
/// nvme-tcp starts with 6.7.
const PACKAGE: &str = "linux-source-6.12";
const CONFIG: &str = include_str!("../guest.config");

/// Up to 6.12 the kernel under User-Mode Linux has 2696 bytes for the vector registers of its
/// programs, and a host whose processor has more of them (AMX: 11008) refuses to take back part
/// of them: no program runs. The host cuts what is too long; so there is room for any, and with it
/// larger kernel stacks (`guest.config`).
const REGISTERS: Patch = Patch {
    file: "arch/x86/um/user-offsets.c",
    from: "DEFINE_LONGS(HOST_FP_SIZE, 2696);",
    to: "DEFINE_LONGS(HOST_FP_SIZE, 16384);",
};

/// A line of the source that is built in another form.
struct Patch {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

impl Patch {
    fn apply(&self, source: &Path) -> Result<()> {
        let path = source.join(self.file);
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        if !text.contains(self.from) {
            bail!("{} has no line `{}`", path.display(), self.from);
        }
        fs::write(&path, text.replace(self.from, self.to))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where the kernel of these options and this source package is, built or not.
pub fn kernel_path(cache: &Path) -> Result<PathBuf> {
    let mut digest = Sha256::new();
    digest.update(CONFIG);
    digest.update(REGISTERS.to);
    digest.update(package_version()?);
    let name: String = digest
        .finalize()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(cache.join(format!("guest-{name}")).join("linux"))
}

/// The kernel; builds it, and says so aloud, when it is not in the cache.
pub fn kernel(cache: &Path) -> Result<PathBuf> {
    let target = kernel_path(cache)?;
    if !target.exists() {
        eprintln!(
            "weft-guest: building the guest's kernel from {PACKAGE} \
             (once; about 10 minutes on 2 cores) ..."
        );
        let begin = Instant::now();
        let work = cache.join(format!("guest-build-{}", std::process::id()));
        fs::create_dir_all(&work)?;
        let result = build(&work, &target);
        fs::remove_dir_all(&work)?;
        result?;
        eprintln!(
            "weft-guest: kernel built in {:.0} s: {}",
            begin.elapsed().as_secs_f64(),
            target.display()
        );
    }
    Ok(target)
}

fn package_version() -> Result<String> {
    let output = Command::new("dpkg-query")
        .args(["-W", "-f", "${Version}", PACKAGE])
        .output()
        .context("cannot start dpkg-query: the guest's kernel comes from a Debian package")?;
    if !output.status.success() || output.stdout.is_empty() {
        bail!(
            "{PACKAGE} is not installed; apt-get install {PACKAGE} \
             build-essential flex bison bc libelf-dev libssl-dev xz-utils"
        );
    }
    String::from_utf8(output.stdout).context("dpkg-query answered something else")
}

fn build(work: &Path, target: &Path) -> Result<()> {
    let source = work.join(PACKAGE);
    let out = work.join("build");
    fs::create_dir_all(&out)?;
    let fragment = work.join("guest.config");
    fs::write(&fragment, CONFIG)?;
    run(Command::new("tar")
        .arg("-xf")
        .arg(format!("/usr/src/{PACKAGE}.tar.xz"))
        .arg("-C")
        .arg(work))?;
    REGISTERS.apply(&source)?;
    let output = format!("O={}", out.display());
    let make = |goal: &str| {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = Command::new("nice");
        command
            .args(["make", "-s", "ARCH=um", &output, &format!("-j{jobs}"), goal])
            .current_dir(&source);
        command
    };
    run(&mut make("x86_64_defconfig"))?;
    run(Command::new(source.join("scripts/kconfig/merge_config.sh"))
        .args(["-m", "-O"])
        .arg(&out)
        .arg(out.join(".config"))
        .arg(&fragment)
        .current_dir(&out))?;
    run(&mut make("olddefconfig"))?;
    let lost = lost_options(&fs::read_to_string(out.join(".config"))?);
    if !lost.is_empty() {
        bail!("this kernel source does not take: {}", lost.join(", "));
    }
    run(&mut make("linux"))?;
    let dir = target.parent().context("the kernel has no directory")?;
    fs::create_dir_all(dir)?;
    let unfinished = target.with_extension("new");
    run(Command::new("strip")
        .arg("-o")
        .arg(&unfinished)
        .arg(out.join("linux")))?;
    fs::rename(&unfinished, target).context("cannot move the kernel into the cache")
}

/// Lines of the fragment that the configuration did not keep.
fn lost_options(config: &str) -> Vec<&'static str> {
    let kept = |line: &str| match line.strip_suffix("=n") {
        Some(name) => !config
            .lines()
            .any(|have| have.strip_prefix(name).is_some_and(|r| r.starts_with('='))),
        None => config.lines().any(|have| have == line),
    };
    CONFIG
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#') && !kept(line))
        .collect()
}

fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?} ended with {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_got_lost_is_named() {
        let all: String = CONFIG
            .lines()
            .filter(|l| !l.ends_with("=n") && *l != "CONFIG_NVME_TCP=y")
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!(lost_options(&all), ["CONFIG_NVME_TCP=y"]);
        let with_forbidden = format!("{all}CONFIG_NVME_TCP=y\nCONFIG_MODULES=y\n");
        assert_eq!(lost_options(&with_forbidden), ["CONFIG_MODULES=n"]);
    }
}
