//! The operator dies after each of its API writes of "create volume, attach, detach, delete" in turn:
//! no duplicate, no leak.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use weft_e2e_cluster::kubectl::{apply, kubectl, list, wait, wait_gone, wait_phase};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::{clean, install, lab};

/// Environment variable that gives the operator its test instrument.
const INSTRUMENT: &str = "WEFT_TEST_FAULTS";
/// More writes than one step needs: the sweep must reach the end by itself.
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
    instrument(&format!("{INSTRUMENT}=1")).expect("an operator with the instrument");
    let result = sweep();
    let off = instrument(&format!("{INSTRUMENT}-"));
    result.expect("the sweep");
    off.expect("an operator without the instrument again");
}

/// Round N lives one life of a volume in which the operator dies after the Nth write of each step,
/// until no step has an Nth write.
fn sweep() -> Result<()> {
    let mut writes = [0; STEPS.len()];
    for round in 1..=MOST_WRITES {
        let mut died = false;
        for (index, (what, work)) in STEPS.iter().enumerate() {
            if writes[index] + 1 < round {
                work()?;
                continue;
            }
            let title = format!("{what}: the operator dies after write {round}");
            if step(&title, || death(round, *work))? {
                (writes[index], died) = (round, true);
            }
            no_duplicate()?;
        }
        clean::nothing_left(60 * SECOND)?;
        if !died {
            for ((what, _), writes) in STEPS.iter().zip(writes) {
                say(&format!("  {what}: died after each of {writes} writes"));
                ensure!(writes > 0, "{what} came about without a write");
            }
            return Ok(());
        }
    }
    anyhow::bail!("a step has more than {MOST_WRITES} writes: {writes:?}")
}

/// One step in which the operator dies after that many writes. Whether it died.
fn death(write: u32, work: fn() -> Result<()>) -> Result<bool> {
    arm(write)?;
    work()?;
    // A step may be done before its last write: what is left of the count tells.
    let died = arm(0)? == 0;
    if died {
        // A pod of its own for each death: the kubelet makes a container that died twice wait.
        let (pod, _) = operator()?;
        kubectl(&["delete", "pod", "-n", install::SYSTEM, &pod])?;
        rolled_out()?;
    }
    Ok(died)
}

fn instrument(variable: &str) -> Result<()> {
    let deployment = "deployment/weft-operator";
    kubectl(&["set", "env", deployment, "-n", install::SYSTEM, variable])?;
    rolled_out()
}

fn rolled_out() -> Result<()> {
    kubectl(&[
        "rollout",
        "status",
        "deployment/weft-operator",
        "-n",
        install::SYSTEM,
        "--timeout=120s",
    ])?;
    wait("one operator that leads", 60 * SECOND, || {
        Ok(match operator() {
            Ok((_, address)) => match ask(&address, "GET", "/readyz", "") {
                Ok(answer) if answer == "leads" => Ok(()),
                answer => Err(format!("{answer:?}")),
            },
            Err(error) => Err(error.to_string()),
        })
    })
}

/// Name and address of the operator's one pod.
fn operator() -> Result<(String, String)> {
    let pods = list("pods", "app.kubernetes.io/name=weft-operator")?;
    ensure!(pods.len() == 1, "{} operator pods", pods.len());
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    Ok((
        text(&pods[0]["metadata"]["name"]).context("a name")?,
        text(&pods[0]["status"]["podIP"]).context("an address")?,
    ))
}

/// Lets the operator die after this many writes; what was left of the count before, which is zero
/// in a process that has been started since.
fn arm(writes: u32) -> Result<u32> {
    wait("the operator takes the count", 90 * SECOND, || {
        let asked = operator().and_then(|(_, address)| {
            ask(
                &address,
                "POST",
                "/debug/exit-after-writes",
                &writes.to_string(),
            )
        });
        Ok(match asked {
            Ok(left) => Ok(left.parse().with_context(|| format!("a count: {left}"))?),
            Err(error) => Err(error.to_string()),
        })
    })
}

/// One request to the operator's admin server over a plain socket; the body of its answer.
fn ask(address: &str, method: &str, path: &str, body: &str) -> Result<String> {
    let script = format!(
        "exec 3<>/dev/tcp/{address}/8080 && printf '{method} {path} HTTP/1.1\\r\\nHost: weft\\r\\n\
         Content-Length: {}\\r\\nConnection: close\\r\\n\\r\\n{body}' >&3 && timeout 5 cat <&3",
        body.len()
    );
    let answer = lab::run(&["run", "bash", "-c", &script])?;
    let (head, body) = answer.split_once("\r\n\r\n").context("an HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(body.trim().to_owned())
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
