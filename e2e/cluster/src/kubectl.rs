//! Objects as JSON, and waiting on conditions with a deadline.

use crate::lab;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// `kubectl` with these arguments.
pub fn kubectl(args: &[&str]) -> Result<String> {
    let mut all = vec!["kubectl"];
    all.extend(args);
    lab::run(&all)
}

/// Applies a manifest given as text; the error text of the API server otherwise.
pub fn apply(manifest: &str) -> Result<String> {
    let mut child = lab::command(&["kubectl", "apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("kubectl apply")?;
    child
        .stdin
        .take()
        .context("standard input of kubectl")?
        .write_all(manifest.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// One object, or `None` when there is none.
pub fn get(kind: &str, name: &str, namespace: Option<&str>) -> Result<Option<Value>> {
    let mut args = vec!["get", kind, name, "-o", "json", "--ignore-not-found"];
    if let Some(namespace) = namespace {
        args.extend(["-n", namespace]);
    }
    let text = kubectl(&args)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    Ok(Some(
        serde_json::from_str(&text).with_context(|| format!("{kind} {name} as JSON"))?,
    ))
}

/// All objects of a kind, in all namespaces, that carry a label selector (empty: all).
pub fn list(kind: &str, selector: &str) -> Result<Vec<Value>> {
    let mut args = vec!["get", kind, "-A", "-o", "json"];
    if !selector.is_empty() {
        args.extend(["-l", selector]);
    }
    let whole: Value = serde_json::from_str(&kubectl(&args)?)?;
    Ok(whole["items"].as_array().cloned().unwrap_or_default())
}

/// Name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The condition of this type, if there is one.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|c| c["type"] == kind)
}

/// Waits until `check` gives a value; says what was seen last when the time is over.
///
/// `check` answers `Ok(Ok(value))` when it is so, `Ok(Err(text))` when not yet.
pub fn wait<T>(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> Result<Result<T, String>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match check()? {
            Ok(value) => return Ok(value),
            Err(seen) if began.elapsed() > within => {
                bail!(
                    "{what}: not so within {} s; seen last: {seen}",
                    within.as_secs()
                )
            }
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Waits until an object's `.status.phase` is one of these.
pub fn wait_phase(kind: &str, name: &str, phases: &[&str], within: Duration) -> Result<Value> {
    let (kind, namespace) = kind
        .split_once('/')
        .map_or((kind, None), |(k, n)| (k, Some(n)));
    wait(
        &format!("{kind} {name} {}", phases.join(" or ")),
        within,
        || {
            let Some(object) = get(kind, name, namespace)? else {
                return Ok(Err("it does not exist".to_owned()));
            };
            let phase = object["status"]["phase"].as_str().unwrap_or("(no phase)");
            Ok(if phases.contains(&phase) {
                Ok(object)
            } else {
                Err(object["status"].to_string())
            })
        },
    )
}

/// Waits until an object is gone.
pub fn wait_gone(kind: &str, name: &str, namespace: Option<&str>, within: Duration) -> Result<()> {
    wait(&format!("{kind} {name} gone"), within, || {
        Ok(match get(kind, name, namespace)? {
            None => Ok(()),
            Some(object) => Err(format!("{} {}", object["metadata"], object["status"])),
        })
    })
}
