//! The measured processes, each on the target's core.

use crate::cores::on_target;
use crate::target;
use anyhow::Context;
use rustix::process::Pid;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use weft_e2e_local::process::{Process, Role};
use weft_e2e_local::setup::{Nth, Setup};
use weft_e2e_local::wait::until_async;
use weft_spec::engine::{SliceMember, Stack};
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

/// Real drives on files, and a real engine in front of them.
pub struct Volume {
    setup: Setup,
    drives: Vec<Process>,
    engine: Process,
    port: u16,
}

impl Volume {
    /// Starts all of a volume's processes.
    pub fn start(setup: Setup) -> anyhow::Result<Self> {
        let mut document = setup.engine_document(1);
        document.port = free_port()?;
        let port = document.port;
        let mut paths = Vec::new();
        for (nth, member) in slices(&mut document.stack).into_iter().enumerate() {
            let nth = Nth(u16::try_from(nth)?);
            let mut drive = setup.document_of(nth);
            drive.port = free_port()?;
            member.address = loopback(drive.port);
            paths.push(setup.write(&format!("drive-{}.json", nth.0), &drive));
        }
        let engine = setup.write("engine.json", &document);
        let start = |program, path: &PathBuf| Process::start(program, Role::Direct, path);
        let (drives, engine) = on_target(|| {
            let drives = paths.iter().map(|path| start("weft-drive", path)).collect();
            Ok((drives, start("weft-engine", &engine)))
        })?;
        Ok(Self {
            setup,
            drives,
            engine,
            port,
        })
    }

    /// Connects as the host does: two hops.
    pub async fn connect(&self) -> anyhow::Result<RemoteDisk> {
        let mut options = self.setup.host_options(1);
        options.address = loopback(self.port);
        patiently(options).await
    }

    /// Processes of all hops.
    pub fn pids(&self) -> anyhow::Result<Vec<Pid>> {
        let all = self.drives.iter().chain([&self.engine]);
        all.map(|process| process.worker().context("a process has ended"))
            .collect()
    }
}

/// In the order of their drives.
fn slices(stack: &mut Stack) -> Vec<&mut SliceMember> {
    match stack {
        Stack::Slice(member) => vec![member],
        Stack::Mirror(mirror) => {
            let members = mirror.members.iter_mut();
            members.chain(&mut mirror.witnesses).collect()
        }
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
