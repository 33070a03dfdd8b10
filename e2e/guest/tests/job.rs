//! A guest boots, works, and tells the truth about how it ended.

use std::path::PathBuf;
use std::time::Duration;

use weft_guest::{Guest, Job};

fn guest() -> Guest {
    let cache = std::env::var_os("WEFT_CACHE").map_or_else(
        || {
            let home = std::env::var_os("HOME").expect("HOME is set");
            PathBuf::from(home).join(".cache/weft")
        },
        PathBuf::from,
    );
    Guest::new(&cache).expect("a kernel")
}

fn job(script: &str) -> Job {
    Job {
        script: script.to_owned(),
        ..Job::default()
    }
}

#[test]
fn a_guest_has_a_kernel_of_its_own_with_an_nvme_tcp_host() {
    let report = guest()
        .run(&job("uname -r; head -1 /dev/nvme-fabrics; id -u"))
        .expect("it runs");
    assert_eq!(report.status, Some(0), "{report:?}");
    assert!(report.out.contains("6.12"), "{}", report.out);
    assert!(report.out.contains("transport="), "{}", report.out);
    assert!(report.dmesg.contains("Linux version"), "{}", report.dmesg);
}

#[test]
fn the_status_of_the_script_is_the_status_of_the_report() {
    let report = guest()
        .run(&job("echo broken >&2; exit 7"))
        .expect("it runs");
    assert_eq!(report.status, Some(7));
    assert_eq!(report.out, "broken\n");
}

#[test]
fn what_a_guest_writes_outside_of_its_shares_does_not_reach_the_host() {
    let share = tempfile::tempdir_in("/var/tmp").expect("a directory");
    let inside = share.path().join("inside");
    let outside = format!("/var/weft-guest-test-{}", std::process::id());
    let report = guest()
        .run(&Job {
            shares: vec![share.path().to_owned()],
            ..job(&format!(
                "echo a > {}; echo b > {outside}",
                inside.display()
            ))
        })
        .expect("it runs");
    assert_eq!(report.status, Some(0), "{report:?}");
    assert_eq!(std::fs::read_to_string(inside).expect("written"), "a\n");
    assert!(!PathBuf::from(outside).exists());
}

#[test]
fn a_guest_that_does_not_end_is_killed_and_its_words_are_kept() {
    let error = guest()
        .run(&Job {
            time_limit: Duration::from_secs(8),
            ..job("echo still here; sync; sleep 1000")
        })
        .expect_err("it is too late");
    assert!(error.to_string().contains("still here"), "{error}");
}
