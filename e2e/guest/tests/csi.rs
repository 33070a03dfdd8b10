//! The CSI node plugin's tests that need a kernel with an NVMe/TCP initiator, or one that lets a
//! mounted ext4 grow, run in a guest: the program is built here and knows both ends.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use weft_guest::{Guest, Job};

#[test]
fn the_node_plugin_uses_the_kernels_initiator() {
    run("kernel", "2 passed");
}

#[test]
fn a_mounted_ext4_grows() {
    run("expand", "1 passed");
}

/// Runs those of a program's tests that only a guest can run.
fn run(test: &str, expected: &str) {
    let program = build(test);
    let report = guest()
        .run(&Job {
            script: format!(
                "{} --ignored --test-threads=1 --nocapture",
                program.display()
            ),
            time_limit: Duration::from_secs(180),
            ..Job::default()
        })
        .expect("the guest runs");
    println!("{}", report.out);
    assert_eq!(report.status, Some(0), "{}\n{}", report.out, report.dmesg);
    assert!(report.out.contains(expected), "{}", report.out);
}

/// Builds the test program and says where it is.
fn build(test: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["test", "--locked", "-p", "weft-csi", "--test", test])
        .args(["--no-run", "--message-format=json"])
        .current_dir(root)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(built.status.success(), "weft-csi's tests do not build");
    let messages = String::from_utf8(built.stdout).expect("cargo writes UTF-8");
    let executable = messages
        .lines()
        .filter(|line| line.contains(&format!(r#""name":"{test}""#)))
        .find_map(|line| line.split_once(r#""executable":""#)?.1.split('"').next());
    PathBuf::from(executable.expect("cargo names the program"))
}

fn guest() -> Guest {
    let cache = std::env::var_os("WEFT_CACHE").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/weft"),
        PathBuf::from,
    );
    Guest::new(&cache).expect("a kernel")
}
