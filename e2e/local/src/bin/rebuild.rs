//! Figures of rebuilds on real processes and files: beside a raw copy on the same file system, of a
//! volume with holes, with interruptions, and what others notice of it. Printed and stored; nothing is
//! asserted of times.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use rustix::process::Pid;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use weft_block::{BLOCK, Disk, Write};
use weft_e2e_local::faults::mirrored::{ALL, Mirrored, said, says_again};
use weft_e2e_local::host::attach;
use weft_e2e_local::namespace;
use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::{Nth, Setup};
use weft_e2e_local::wait::until_async;
use weft_transport::initiator::ReconnectingDisk;

const MIB: u64 = 1 << 20;
const DENSE: u64 = 1024 * MIB;
const SPARSE: u64 = 256 * MIB;
const INTERRUPTED: u64 = 512 * MIB;
const PIECE: u64 = 128 << 10;
const INTERRUPTIONS: u64 = 10;
/// Writes of others that are measured before a rebuild.
const BEFORE: usize = 20_000;
/// The member that is rebuilt.
const TARGET: Nth = Nth(1);
const BEGINS: &str = "brings a slice up to date";

/// Of all figures, or of those that are named: `dense`, `sparse`, `interrupted`, `foreground`.
fn main() -> Result<()> {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let is_asked = |name: &str| named.is_empty() || named.iter().any(|asked| asked == name);
    namespace::enter();
    namespace::runtime().block_on(async {
        let mut figures = Vec::new();
        if is_asked("dense") || is_asked("sparse") {
            let (dense, per_byte) = dense().await?;
            figures.push(dense);
            if is_asked("sparse") {
                figures.push(sparse(per_byte).await?);
            }
        }
        if is_asked("interrupted") {
            figures.push(interrupted().await?);
        }
        if is_asked("foreground") {
            figures.push(foreground().await?);
        }
        std::fs::create_dir_all("target/report")?;
        let text = serde_json::to_string_pretty(&figures)?;
        std::fs::write("target/report/rebuild.json", text)?;
        println!("stored in target/report/rebuild.json");
        Ok(())
    })
}

fn tell(name: &str, ratio: f64, goal: &str, detail: &str) -> serde_json::Value {
    println!("{name:<44} {ratio:6.2}   {goal:<8} {detail}");
    json!({"name": name, "ratio": ratio, "goal": goal, "detail": detail})
}

/// A mirror whose target is away, and what a host has written meanwhile.
struct Rig {
    mirrored: Mirrored,
    host: Arc<ReconnectingDisk>,
}

impl Rig {
    async fn start(size: u64) -> Self {
        let mirrored = Mirrored::of(Setup::mirrored_of(size));
        let host = attach(mirrored.setup.host_options(1)).await;
        Self { mirrored, host }
    }

    /// Writes `length` bytes at every `step`, with the target away.
    async fn miss(&mut self, size: u64, step: u64, length: u64) -> Result<()> {
        self.mirrored.lose(TARGET).await;
        let offsets = (0..size).step_by(usize::try_from(step)?);
        let write = |offset| write(&self.host, offset, length);
        let writes = stream::iter(offsets).map(write).buffer_unordered(16);
        writes.try_collect::<Vec<()>>().await?;
        self.host.flush().await.context("a flush")
    }

    fn bring_back(&mut self) {
        let again = self.mirrored.setup.start_nth(TARGET, Role::Supervised);
        self.mirrored.drives[usize::from(TARGET.0)] = again;
    }

    fn target(&self) -> &Process {
        &self.mirrored.drives[usize::from(TARGET.0)]
    }

    /// From the beginning of the copy to the record that counts the target in.
    async fn rebuild(&mut self) -> Duration {
        let engine = &self.mirrored.engine;
        let (begun, whole) = (said(engine, BEGINS), said(engine, ALL));
        self.bring_back();
        let engine = &self.mirrored.engine;
        says_again(engine, BEGINS, begun).await;
        let began = Instant::now();
        says_again(engine, ALL, whole).await;
        began.elapsed()
    }

    async fn end(self) {
        self.host.stop().await;
    }
}

async fn write(host: &ReconnectingDisk, offset: u64, length: u64) -> Result<()> {
    let mut data = vec![0; usize::try_from(length)?];
    for (nth, word) in data.chunks_exact_mut(8).enumerate() {
        let word_of = (offset + nth as u64 * 8).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word.copy_from_slice(&word_of.to_le_bytes());
    }
    let write = host.write(offset, Bytes::from(data), Write::Cached);
    write.await.context("a write")
}

/// A raw copy of so many bytes between files of the same file system, past its cache.
fn raw_copy(from: &Path, to: &Path, bytes: u64) -> Result<Duration> {
    let file = std::fs::File::create(to)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    let began = Instant::now();
    let status = Command::new("dd")
        .arg(format!("if={}", from.display()))
        .arg(format!("of={}", to.display()))
        .args([
            "bs=1M",
            "iflag=direct",
            "oflag=direct",
            "conv=notrunc,fsync",
            "status=none",
        ])
        .arg(format!("count={}", bytes / MIB))
        .status()?;
    ensure!(status.success(), "dd: {status}");
    let took = began.elapsed();
    std::fs::remove_file(to)?;
    Ok(took)
}

async fn dense() -> Result<(serde_json::Value, f64)> {
    let mut rig = Rig::start(DENSE).await;
    rig.miss(DENSE, PIECE, PIECE).await?;
    let (from, to) = (
        rig.mirrored.setup.medium(Nth(0)),
        rig.mirrored.setup.path("copy"),
    );
    let before = raw_copy(&from, &to, DENSE)?;
    let took = rig.rebuild().await;
    let after = raw_copy(&from, &to, DENSE)?;
    rig.end().await;
    let raw = (before + after).as_secs_f64() / 2.0;
    let speed = |seconds: f64| DENSE as f64 / seconds / MIB as f64;
    let detail = format!(
        "rebuild {:.0} MiB/s; raw copy before {:.0}, after {:.0}",
        speed(took.as_secs_f64()),
        speed(before.as_secs_f64()),
        speed(after.as_secs_f64())
    );
    let ratio = raw / took.as_secs_f64();
    let figure = tell(
        "1 GiB dense, of the raw copy's speed",
        ratio,
        ">= 0.8",
        &detail,
    );
    Ok((figure, took.as_secs_f64() / DENSE as f64))
}

async fn sparse(dense_per_byte: f64) -> Result<serde_json::Value> {
    let mut rig = Rig::start(SPARSE).await;
    rig.miss(SPARSE, 2 * BLOCK, BLOCK).await?;
    let took = rig.rebuild().await;
    rig.end().await;
    let per_byte = took.as_secs_f64() / (SPARSE / 2) as f64;
    let name = "4 KiB data, 4 KiB hole: time per data byte";
    let detail = format!(
        "{:.2} s for {} MiB of data",
        took.as_secs_f64(),
        SPARSE / 2 / MIB
    );
    Ok(tell(name, per_byte / dense_per_byte, "<= 3", &detail))
}

/// Bytes that a process has had written to its medium.
fn written(pid: Pid) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{}/io", pid.as_raw_nonzero()))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.context("write_bytes")?.trim().parse()?)
}

async fn interrupted() -> Result<serde_json::Value> {
    let mut rig = Rig::start(INTERRUPTED).await;
    rig.miss(INTERRUPTED, PIECE, PIECE).await?;
    let whole = said(&rig.mirrored.engine, ALL);
    let mut total = 0;
    for nth in 1..=INTERRUPTIONS {
        rig.bring_back();
        let goal = INTERRUPTED * nth / (INTERRUPTIONS + 1);
        let reached = || {
            let own = rig.target().worker().and_then(|pid| written(pid).ok());
            own.filter(|own| total + own >= goal)
        };
        until_async("a part of the copy", reached).await;
        // The last that is known of a process that ends now.
        let own = rig.target().worker().and_then(|pid| written(pid).ok());
        total += own.context("the drive lives")?;
        rig.mirrored.drives[usize::from(TARGET.0)].kill();
    }
    rig.bring_back();
    says_again(&rig.mirrored.engine, ALL, whole).await;
    let own = rig.target().worker().context("the drive lives")?;
    total += written(own)?;
    rig.end().await;
    let ratio = total as f64 / INTERRUPTED as f64;
    let detail = format!(
        "{} MiB written by the target's drive, its metadata and log included, of {} MiB dirty",
        total / MIB,
        INTERRUPTED / MIB
    );
    Ok(tell(
        "bytes after ten interruptions",
        ratio,
        "<= 1.1",
        &detail,
    ))
}

/// One write of 4 KiB at a time until so many are enough; how long each took.
async fn one_at_a_time(
    host: &ReconnectingDisk,
    enough: impl Fn(usize) -> bool,
) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    let blocks = INTERRUPTED / BLOCK;
    for nth in 0.. {
        if enough(took.len()) {
            break;
        }
        let began = Instant::now();
        write(host, (nth * 7919 % blocks) * BLOCK, BLOCK).await?;
        took.push(began.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

fn p99(took: &[Duration]) -> f64 {
    let nth = took.len() * 99 / 100;
    took.get(nth).map_or(0.0, Duration::as_secs_f64)
}

async fn foreground() -> Result<serde_json::Value> {
    let mut rig = Rig::start(INTERRUPTED).await;
    let host = rig.host.clone();
    // Every block is there, so that none is slower for being the first.
    rig.miss(INTERRUPTED, PIECE, PIECE).await?;
    rig.rebuild().await;
    let before = one_at_a_time(&host, |writes| writes >= BEFORE).await?;
    rig.miss(INTERRUPTED, PIECE, PIECE).await?;
    let stop = AtomicBool::new(false);
    let rebuild = async {
        let took = rig.rebuild().await;
        stop.store(true, Ordering::Relaxed);
        took
    };
    let is_whole = |_| stop.load(Ordering::Relaxed);
    let (during, took) = tokio::join!(one_at_a_time(&host, is_whole), rebuild);
    let during = during?;
    rig.end().await;
    let ratio = p99(&during) / p99(&before).max(f64::MIN_POSITIVE);
    let micros = |seconds: f64| seconds * 1e6;
    let detail = format!(
        "{:.0} us before ({} writes), {:.0} us during ({} writes, {:.1} s)",
        micros(p99(&before)),
        before.len(),
        micros(p99(&during)),
        during.len(),
        took.as_secs_f64()
    );
    Ok(tell(
        "p99 of 4 KiB writes beside a rebuild",
        ratio,
        "<= 2",
        &detail,
    ))
}
