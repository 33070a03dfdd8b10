//! The lab program, called as a person would call it.

use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// The repository's root.
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// `weft-lab` with these arguments.
pub fn command(args: &[&str]) -> Command {
    let program = std::env::var_os("WEFT_LAB")
        .map_or_else(|| root().join("target/debug/weft-lab"), PathBuf::from);
    let mut command = Command::new(program);
    command.args(args).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs to its end; the output on success, the error text otherwise.
pub fn run(args: &[&str]) -> Result<String> {
    let output = output(args)?;
    if !output.status.success() {
        bail!(
            "weft-lab {}: {}\n{}{}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs to its end, whatever it is.
pub fn output(args: &[&str]) -> Result<Output> {
    command(args)
        .output()
        .with_context(|| "weft-lab cannot be run: build it first with `make lab`".to_owned())
}

/// Runs a shell script on a node.
pub fn on_node(node: &str, script: &str) -> Result<String> {
    run(&["exec", node, "sh", "-c", script])
}

/// Brings the lab up; harmless when it is up.
pub fn up() -> Result<()> {
    let status = command(&["up"]).status().context("weft-lab up")?;
    anyhow::ensure!(status.success(), "weft-lab up: {status}");
    Ok(())
}
