//! Bad input gets a clear error or condition that says what to do; nothing crashes, nothing is lost.

use anyhow::{Context, Result, ensure};
use std::time::Duration;
use weft_e2e_cluster::kubectl::{apply, condition, get, kubectl, list, wait, wait_gone};
use weft_e2e_cluster::progress::{say, step};
use weft_e2e_cluster::{clean, install, lab};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn bad_input_is_answered_with_what_to_do() {
    install::ready().expect("the lab is up with Weft installed");
    let before = restarts().expect("restart counts");
    step("a Volume of size 0 is refused", size_zero).expect("refused");
    step("a Volume with four replicas is refused", four_replicas).expect("refused");
    step(
        "a Volume with more copies than failure domains says so",
        too_few_domains,
    )
    .expect("a condition");
    step("a Volume that names an unknown pool says so", unknown_pool).expect("a condition");
    step(
        "a Volume beyond capacity says asked and free",
        beyond_capacity,
    )
    .expect("a condition");
    step("a Drive with foreign data is left alone", foreign_data).expect("a condition");
    assert_eq!(
        before,
        restarts().expect("restart counts"),
        "something crashed"
    );
    clean::nothing_left(Duration::from_secs(60)).expect("nothing left");
}

fn volume(name: &str, pool: &str, size: &str, replicas: u32) -> String {
    format!(
        r#"{{"apiVersion":"weft.storage/v1alpha1","kind":"Volume","metadata":{{"name":"{name}"}},
            "spec":{{"pool":"{pool}","size":"{size}","replicas":{replicas}}}}}"#
    )
}

fn refused(manifest: &str, words: &[&str]) -> Result<()> {
    let error = match apply(manifest) {
        Ok(text) => anyhow::bail!("accepted: {text}"),
        Err(error) => format!("{error:#}"),
    };
    say(&format!("\n    {}", error.trim()));
    for word in words {
        ensure!(error.contains(word), "the message does not say {word:?}");
    }
    Ok(())
}

fn size_zero() -> Result<()> {
    refused(&volume("bad-size", "fast", "0", 1), &["size"])
}

fn four_replicas() -> Result<()> {
    refused(
        &volume("bad-replicas", "fast", "64Mi", 4),
        &["replicas must be 1, 2 or 3"],
    )
}

/// A pool of two drives has no place for the witness.
fn too_few_domains() -> Result<()> {
    kubectl(&["label", "drives.weft.storage", "n1-d0", "n2-d0", "pair=yes"])?;
    apply(
        r#"{"apiVersion":"weft.storage/v1alpha1","kind":"Pool","metadata":{"name":"pair"},
            "spec":{"selector":{"matchLabels":{"pair":"yes"}}}}"#,
    )?;
    apply(&volume("bad-domains", "pair", "64Mi", 2))?;
    says(
        "volumes.weft.storage",
        "bad-domains",
        &["TooFewDomains", "3 slices", "on 2: n1, n2"],
    )?;
    delete_volume("bad-domains")?;
    kubectl(&["delete", "pools.weft.storage", "pair"])?;
    kubectl(&["label", "drives.weft.storage", "n1-d0", "n2-d0", "pair-"]).map(drop)
}

/// A condition of the volume with status False whose message says all these words.
fn says(kind: &str, object: &str, words: &[&str]) -> Result<()> {
    wait(&format!("{object} says {words:?}"), SOON, || {
        let object = get(kind, object, None)?.context("it exists")?;
        let conditions = object["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let found = conditions.iter().find(|c| {
            let text = format!("{} {}", c["reason"], c["message"]);
            c["status"] == "False" && words.iter().all(|word| text.contains(word))
        });
        if let Some(found) = found {
            say(&format!(
                "\n    {}: {}",
                found["reason"].as_str().unwrap_or_default(),
                found["message"].as_str().unwrap_or_default()
            ));
            return Ok(Ok(()));
        }
        Ok(Err(object["status"].to_string()))
    })
}

fn delete_volume(name: &str) -> Result<()> {
    kubectl(&["delete", "volumes.weft.storage", name, "--wait=false"])?;
    wait_gone("volumes.weft.storage", name, None, SOON)
}

fn unknown_pool() -> Result<()> {
    apply(&volume("bad-pool", "no-such-pool", "64Mi", 1))?;
    says("volumes.weft.storage", "bad-pool", &["no-such-pool"])?;
    delete_volume("bad-pool")
}

fn beyond_capacity() -> Result<()> {
    apply(&volume("too-large", "fast", "100Gi", 1))?;
    says("volumes.weft.storage", "too-large", &["100Gi"])?;
    delete_volume("too-large")
}

fn foreign_data() -> Result<()> {
    let file = "/var/lib/weft/drives/foreign.img";
    lab::on_node(
        "n2",
        &format!(
            "truncate -s 256M {file} && mkfs.ext4 -q -F {file} && sha256sum {file} > {file}.sum"
        ),
    )?;
    apply(&format!(
        r#"{{"apiVersion":"weft.storage/v1alpha1","kind":"Drive","metadata":{{"name":"foreign"}},
            "spec":{{"hostExport":{{"node":"n2","file":{{"path":"{file}","size":"256Mi"}}}},"adoption":"IfBlank"}}}}"#
    ))?;
    says("drives.weft.storage", "foreign", &["ForeignData"])?;
    let drive = get("drives.weft.storage", "foreign", None)?.context("it exists")?;
    ensure!(
        condition(&drive, "Ready").is_some_and(|c| c["status"] == "False"),
        "a foreign drive is not Ready"
    );
    lab::on_node("n2", &format!("sha256sum -c {file}.sum"))?;
    kubectl(&["delete", "drives.weft.storage", "foreign", "--wait=false"])?;
    wait_gone("drives.weft.storage", "foreign", None, SOON * 2)?;
    lab::on_node(
        "n2",
        &format!("sha256sum -c {file}.sum && rm {file} {file}.sum"),
    )
    .map(drop)
}

/// Restart counts of all Weft containers: nothing may crash over bad input.
fn restarts() -> Result<u64> {
    let mut sum = 0;
    for pod in list("pods", "app.kubernetes.io/part-of=weft")? {
        for container in pod["status"]["containerStatuses"]
            .as_array()
            .cloned()
            .unwrap_or_default()
        {
            sum += container["restartCount"].as_u64().unwrap_or(0);
        }
    }
    Ok(sum)
}
