//! Every object of a volume of two copies is lost while nobody uses it, and nothing at the drives: it
//! comes back by `adopt` with its bytes, and in a term above all that were used.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::time::Duration;
use weft_e2e_cluster::kubectl::{get, kubectl, list, name, wait, wait_gone};
use weft_e2e_cluster::mirrors::{Places, VOLUMES, whole};
use weft_e2e_cluster::pods::{self, Use};
use weft_e2e_cluster::progress::step;
use weft_e2e_cluster::writer::Writer;
use weft_e2e_cluster::{clean, control_plane, install};

const SLICES: &str = "slices.weft.storage";
const ATTACHMENTS: &str = "attachments.weft.storage";
const OPERATOR: &str = "deployment/weft-operator";
const SOON: Duration = Duration::from_secs(120);

#[test]
fn a_volume_without_any_object_comes_back_from_its_drives() {
    install::ready().expect("the lab is up with Weft installed");
    adopted().expect("every byte is there, in a higher term");
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn adopted() -> Result<()> {
    pods::claim("adopted", "64Mi", Use::FileSystem, "weft-mirror")?;
    let volume = pods::bound("adopted")?;
    let before = whole(&volume, SOON)?;
    let node = Places::of(&before)?.witness;
    pods::start("adopted", &node, "adopted", Use::FileSystem)?;
    let writer = Writer::start("adopted")?;
    writer.goes_on(writer.progress()?)?;
    writer.finish()?;
    pods::stop("adopted")?;
    step("nobody uses the volume", unused)?;
    let term = term(&get(VOLUMES, &volume, None)?.context("it exists")?)?;

    step("the operator ends", || scale(0))?;
    step("every object of the volume is lost", || lose(&volume))?;
    step("another operator", || {
        scale(1)?;
        control_plane::rolled_out(SOON)
    })?;
    let uid = before["spec"]["uid"].as_str().context("a uid")?;
    let named = format!("{uid}={volume}");
    let said = step("adopt, once the drives are heard", || adopt(&named))?;
    ensure!(said.contains("is adopted"), "{said}");

    let after = whole(&volume, SOON)?;
    ensure!(self::term(&after)? > term, "{}", after["status"]);
    ensure!(after["spec"]["uid"] == before["spec"]["uid"]);
    ensure!(
        slices(&after)? == slices(&before)?,
        "other slices than before"
    );
    pods::start("adopted", &node, "adopted", Use::FileSystem)?;
    let sums = "for s in /data/*.sum; do sha256sum -c -s $s || exit 1; done";
    step("every sum is right", || pods::shell("adopted", sums))?;
    pods::stop("adopted")?;
    pods::release("adopted")
}

fn term(volume: &Value) -> Result<i64> {
    volume["status"]["term"].as_i64().context("a term")
}

fn slices(volume: &Value) -> Result<Vec<String>> {
    let members = volume["status"]["members"].as_array().context("members")?;
    let uid = |member: &Value| member["sliceUid"].as_str().map(str::to_owned);
    let mut uids = members
        .iter()
        .map(|m| uid(m).context("a uid"))
        .collect::<Result<Vec<_>>>()?;
    uids.sort();
    Ok(uids)
}

fn unused() -> Result<()> {
    wait("no attachment", SOON, || {
        let left = list(ATTACHMENTS, "")?;
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{} attachments", left.len()))
        })
    })
}

fn scale(operators: u8) -> Result<()> {
    let replicas = format!("--replicas={operators}");
    kubectl(&["scale", OPERATOR, "-n", install::SYSTEM, &replicas])?;
    let running = || list("pods", "app.kubernetes.io/name=weft-operator");
    wait("as many operators", SOON, || {
        let found = running()?.len();
        Ok(if found == usize::from(operators) {
            Ok(())
        } else {
            Err(format!("{found} pods"))
        })
    })
}

/// Without an operator finalizers hold everything: they go first, as in a backup that never had them.
fn lose(volume: &str) -> Result<()> {
    let of_volume = |slice: &Value| slice["spec"]["volume"] == volume;
    let slices = list(SLICES, "")?.into_iter().filter(of_volume);
    for slice in slices.collect::<Vec<_>>() {
        forget(SLICES, name(&slice))?;
    }
    forget(VOLUMES, volume)?;
    // Secret and pod of its engine have it as owner.
    wait("no engine", SOON, || {
        let mut left = list("pods", "weft.storage/component=engine")?;
        left.extend(list("secrets", "weft.storage/component=engine")?);
        Ok(if left.is_empty() {
            Ok(())
        } else {
            Err(left.iter().map(name).collect::<Vec<_>>().join(", "))
        })
    })
}

fn forget(kind: &str, name: &str) -> Result<()> {
    let bare = r#"{"metadata":{"finalizers":null}}"#;
    kubectl(&["patch", kind, name, "--type=merge", "-p", bare])?;
    kubectl(&["delete", kind, name, "--wait=false", "--ignore-not-found"])?;
    wait_gone(kind, name, None, SOON)
}

/// Until every drive was heard: the operator may have started a moment ago.
fn adopt(named: &str) -> Result<String> {
    let command = [
        "exec",
        "-n",
        install::SYSTEM,
        OPERATOR,
        "--",
        "/weft-operator",
        "adopt",
        "--volume-name",
        named,
    ];
    wait("adopt", SOON, || {
        let dry: Vec<_> = command.iter().copied().chain(["--dry-run"]).collect();
        let would = kubectl(&dry)?;
        Ok(if would.contains("was not heard") {
            Err(would)
        } else {
            Ok(())
        })
    })?;
    kubectl(&command)
}
