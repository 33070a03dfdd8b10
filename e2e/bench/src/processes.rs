//! The measured processes, each on the target's core.

use crate::cores::on_target;
use crate::target;
use anyhow::Context;
use rustix::process::Pid;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::Setup;
use weft_e2e_local::wait::until_async;
use weft_spec::engine::Stack;
use weft_transport::{ConnectOptions, RemoteDisk};

/// This program again, in another part; dies with this.
pub struct Part {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Part {
    /// Starts it and waits for its address.
    pub fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        on_target(|| {
            let mut child = Command::new(std::env::current_exe()?)
                .args(arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()?;
            let mut line = String::new();
            let output = child.stdout.take().context("a pipe")?;
            BufReader::new(output).read_line(&mut line)?;
            let address = line.trim().parse();
            let address = address.with_context(|| format!("{arguments:?} says {line:?}"))?;
            Ok(Self { child, address })
        })
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Connects to it.
    pub async fn connect(&self) -> anyhow::Result<RemoteDisk> {
        Ok(RemoteDisk::connect(target::options(self.address)).await?)
    }
}

/// A real drive on a file, and a real engine in front of it.
pub struct Pair {
    setup: Setup,
    drive: Process,
    engine: Process,
    ports: [u16; 2],
}

impl Pair {
    /// Starts both; `io` is the drive's back-end.
    pub fn start() -> anyhow::Result<Self> {
        let setup = Setup::new();
        let ports = [free_port()?, free_port()?];
        let [drive_port, engine_port] = ports;
        let mut document = setup.drive_document();
        document.port = drive_port;
        let drive_path = setup.write("drive.json", &document);
        let mut document = setup.engine_document(1);
        document.port = engine_port;
        if let Stack::Slice(member) = &mut document.stack {
            member.address = loopback(drive_port);
        }
        let engine_path = setup.write("engine.json", &document);
        let (drive, engine) = on_target(|| {
            Ok((
                Process::start("weft-drive", Role::Direct, &drive_path),
                Process::start("weft-engine", Role::Direct, &engine_path),
            ))
        })?;
        Ok(Self {
            setup,
            drive,
            engine,
            ports,
        })
    }

    /// Connects as the host does: two hops.
    pub async fn connect(&self) -> anyhow::Result<RemoteDisk> {
        let mut options = self.setup.host_options(1);
        options.address = loopback(self.ports[1]);
        patiently(options).await
    }

    /// Processes of both hops.
    pub fn pids(&self) -> anyhow::Result<[Pid; 2]> {
        Ok([
            self.drive.worker().context("the drive has ended")?,
            self.engine.worker().context("the engine has ended")?,
        ])
    }
}

/// A real drive on a file, and this program as its engine.
pub struct Drive {
    setup: Setup,
    process: Process,
    port: u16,
}

impl Drive {
    /// Starts it.
    pub fn start() -> anyhow::Result<Self> {
        let (setup, port) = (Setup::new(), free_port()?);
        let mut document = setup.drive_document();
        document.port = port;
        let path = setup.write("drive.json", &document);
        let process = on_target(|| Ok(Process::start("weft-drive", Role::Direct, &path)))?;
        Ok(Self {
            setup,
            process,
            port,
        })
    }

    /// Connects as an engine does: one hop.
    pub async fn connect(&self) -> anyhow::Result<RemoteDisk> {
        let (subsystem, host) = self.setup.engine_at_drive(weft_spec::ids::FencePair {
            term: weft_spec::ids::Term(1),
            boot: weft_spec::ids::Boot(1),
        });
        let address = loopback(self.port);
        patiently(ConnectOptions::new(
            address,
            subsystem,
            host.expose(),
            host.host_id(),
        ))
        .await
    }

    /// Its process.
    pub fn pid(&self) -> anyhow::Result<Pid> {
        self.process.worker().context("the drive has ended")
    }
}

/// Connects once the other end serves.
async fn patiently(mut options: ConnectOptions) -> anyhow::Result<RemoteDisk> {
    options.keep_alive_ms = 0;
    let address = options.address;
    // It listens only when it serves.
    until_async(&format!("a target at {address}"), || {
        TcpStream::connect(address).ok()
    })
    .await;
    let connected = RemoteDisk::connect(options).await;
    connected.with_context(|| address.to_string())
}

/// A port that nothing listens on now.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
