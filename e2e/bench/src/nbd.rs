//! Other user-space targets, over NBD and TCP, with fio as the load.

use crate::cores::whole_run_time;
use crate::figures::Sample;
use anyhow::{Context, ensure};
use rustix::process::Pid;
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A server that dies with this.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _reaped = self.0.wait();
    }
}

impl Server {
    /// Starts a program and waits until something listens at the port.
    pub fn start(program: &str, arguments: &[String], port: u16) -> anyhow::Result<Self> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{program}: `make bench` names its package"))?;
        let mut server = Self(child);
        let patience = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.0.try_wait()?;
            ensure!(
                ended.is_none(),
                "{program} {arguments:?} has ended: {ended:?}"
            );
            ensure!(Instant::now() < patience, "{program} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }
}

/// nbdkit with one of its plugins.
pub fn nbdkit(port: u16, plugin: &[&str]) -> anyhow::Result<Server> {
    let fixed = [
        "--foreground",
        "--ipaddr=127.0.0.1",
        &format!("--port={port}"),
    ];
    let arguments = fixed.iter().chain(plugin).map(|word| (*word).to_owned());
    Server::start("nbdkit", &arguments.collect::<Vec<_>>(), port)
}

/// qemu-storage-daemon with one block device.
pub fn storage_daemon(port: u16, device: &str) -> anyhow::Result<Server> {
    let arguments = [
        "--blockdev".to_owned(),
        format!("{device},node-name=disk"),
        "--nbd-server".to_owned(),
        format!("addr.type=inet,addr.host=127.0.0.1,addr.port={port}"),
        "--export".to_owned(),
        "type=nbd,id=export,node-name=disk,name=disk,writable=on".to_owned(),
    ];
    Server::start("qemu-storage-daemon", &arguments, port)
}

/// The device of a file, as the drive opens it.
pub fn file_device(path: &Path) -> String {
    format!(
        "driver=file,filename={},cache.direct=on,aio=io_uring",
        path.display()
    )
}

/// Measures 4 KiB anywhere.
pub fn measure(
    server: &Server,
    uri: &str,
    writes: bool,
    depth: usize,
    time: Duration,
) -> anyhow::Result<Sample> {
    let cpu = whole_run_time(server.pid());
    let output = Command::new("fio")
        .args(["--name=bench", "--ioengine=nbd", "--bs=4k", "--size=256M"])
        .args(["--time_based", "--norandommap", "--randrepeat=0"])
        .args(["--output-format=json", "--gtod_reduce=0", "--thread"])
        .arg(format!("--uri={uri}"))
        .arg(format!(
            "--rw={}",
            if writes { "randwrite" } else { "randread" }
        ))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={}ms", time.as_millis()))
        .output()
        .context("fio: `make bench` names its package")?;
    let cpu = whole_run_time(server.pid()) - cpu;
    let said = String::from_utf8_lossy(&output.stdout);
    let from = said.find('{').unwrap_or(0);
    let report: Value = serde_json::from_str(said.get(from..).unwrap_or_default())
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let job = &report["jobs"][0];
    let part = &job[if writes { "write" } else { "read" }];
    let number = |value: &Value| value.as_f64().context("fio's report lacks a number");
    let percentile = |name: &str| number(&part["clat_ns"]["percentile"][name]);
    ensure!(job["error"] == 0, "fio against {uri}: {}", job["error"]);
    Ok(Sample {
        p50_us: percentile("50.000000")? / 1e3,
        p99_us: percentile("99.000000")? / 1e3,
        iops: number(&part["iops"])?,
        cpu_us: cpu.as_secs_f64() * 1e6 / number(&part["total_ios"])?,
    })
}
