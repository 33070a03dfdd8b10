//! The operator dies after each of its API writes of "create volume, attach, detach, delete" in turn:
//! no duplicate, no leak.

use anyhow::{Result, ensure};
use std::time::Duration;
use weft_e2e_cluster::kubectl::{apply, kubectl, list, wait, wait_gone, wait_phase};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::{clean, install};

/// Environment variable that makes the operator abort right after its Nth successful write.
const FAULT: &str = "WEFT_EXIT_AFTER_WRITES";
/// More writes than one life of a volume needs: the sweep must reach the end by itself.
const MOST_WRITES: u32 = 60;

const VOLUME: &str = r#"{"apiVersion":"weft.storage/v1alpha1","kind":"Volume","metadata":{"name":"swept"},
    "spec":{"pool":"fast","size":"64Mi","replicas":1}}"#;
const ATTACHMENT: &str = r#"{"apiVersion":"weft.storage/v1alpha1","kind":"Attachment","metadata":{"name":"swept-n1"},
    "spec":{"volume":"swept","node":"n1","access":"ReadWriteOnce"}}"#;

/// A step: its name, and how a person does it and sees it done.
type Step = (&'static str, fn() -> Result<()>);

/// Each step of a volume's life: what a person does, and when it is done.
const STEPS: &[Step] = &[
    ("create volume", || {
        apply(VOLUME)?;
        wait_phase("volumes.weft.storage", "swept", &["Ready"], 90 * SECOND).map(drop)
    }),
    ("attach", || {
        apply(ATTACHMENT)?;
        wait_phase(
            "attachments.weft.storage",
            "swept-n1",
            &["Admitted", "Attached"],
            90 * SECOND,
        )
        .map(drop)
    }),
    ("detach", || {
        kubectl(&[
            "delete",
            "attachments.weft.storage",
            "swept-n1",
            "--wait=false",
        ])?;
        wait_gone("attachments.weft.storage", "swept-n1", None, 90 * SECOND)
    }),
    ("delete volume", || {
        kubectl(&["delete", "volumes.weft.storage", "swept", "--wait=false"])?;
        wait_gone("volumes.weft.storage", "swept", None, 90 * SECOND)
    }),
];
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_operator_that_dies_after_any_write_leaves_no_duplicate_and_no_leak() {
    install::ready().expect("the lab is up with Weft installed");
    let result = sweep();
    let off = fault(None);
    result.expect("the sweep");
    off.expect("the fault taken out again");
}

fn sweep() -> Result<()> {
    for (index, (what, _)) in STEPS.iter().enumerate() {
        for write in 1..=MOST_WRITES {
            let died = step(
                &format!("{what}: the operator dies after write {write}"),
                || life(index, write),
            )?;
            if !died {
                say(&format!("  {what} needs {} writes", write - 1));
                break;
            }
            ensure!(
                write < MOST_WRITES,
                "{what} needs more than {MOST_WRITES} writes"
            );
        }
    }
    Ok(())
}

/// One life of a volume in which the operator dies once, in one step. Whether it died.
fn life(faulty: usize, write: u32) -> Result<bool> {
    let mut died = false;
    for (index, (_, work)) in STEPS.iter().enumerate() {
        if index == faulty {
            fault(Some(write))?;
            let before = operator_restarts()?;
            work()?;
            died = operator_restarts()? > before;
            fault(None)?;
        } else {
            work()?;
        }
        no_duplicate()?;
    }
    clean::nothing_left(60 * SECOND)?;
    Ok(died)
}

/// Sets or takes out the fault. The container that died is restarted by the kubelet with the fault
/// still set, and counts anew: so the operator dies once per N writes until the step is done.
fn fault(after: Option<u32>) -> Result<()> {
    let value = after.map_or_else(|| format!("{FAULT}-"), |n| format!("{FAULT}={n}"));
    kubectl(&[
        "set",
        "env",
        "deployment/weft-operator",
        "-n",
        install::SYSTEM,
        &value,
    ])?;
    kubectl(&[
        "rollout",
        "status",
        "deployment/weft-operator",
        "-n",
        install::SYSTEM,
        "--timeout=120s",
    ])
    .map(drop)
}

fn operator_restarts() -> Result<u64> {
    let pods = list("pods", "app.kubernetes.io/name=weft-operator")?;
    Ok(pods
        .iter()
        .map(|p| {
            p["status"]["containerStatuses"][0]["restartCount"]
                .as_u64()
                .unwrap_or(0)
        })
        .sum())
}

/// At most one slice, one Ready engine pod and one attachment belong to the volume.
fn no_duplicate() -> Result<()> {
    let slices = list("slices.weft.storage", "")?.len();
    ensure!(slices <= 1, "{slices} slices of one volume");
    wait("one engine at most", 60 * SECOND, || {
        let engines = list("pods", "weft.storage/component=engine")?.len();
        Ok(if engines <= 1 {
            Ok(())
        } else {
            Err(format!("{engines} engine pods"))
        })
    })
}
