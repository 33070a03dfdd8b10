//! Everything that is measured, and what is compared with what.

use crate::echo::{self, CAPSULE, DATA_HEADER, RESPONSE, Session};
use crate::figures::{Comparison, Metric, Sample};
use crate::load::Load;
use crate::nbd::{self, Server};
use crate::processes::{Drive, Part, Volume, free_port};
use crate::raw::{self, Durability};
use crate::{cores, target};
use anyhow::Context;
use rustix::process::Pid;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;
use weft_block::{BLOCK, Disk, Write};
use weft_e2e_local::setup::Setup;
use weft_transport::{RemoteDisk, polling};

/// Bytes that the load goes to.
const SPAN: u64 = 128 << 20;
/// Requests at a time of the streams.
const STREAM_DEPTH: usize = 8;

/// How long both sides spin where they do.
const POLL: Duration = Duration::from_micros(100);

type Measure = Box<dyn FnMut(Duration) -> anyhow::Result<Sample>>;

/// One thing that is measured.
pub struct Case {
    /// Its name.
    pub name: String,
    /// Requests at a time.
    pub depth: usize,
    /// Measures it for a time.
    pub measure: Measure,
}

/// All of it. What a case measures lives in its closure, so all processes end with this.
#[derive(Default)]
pub struct Plan {
    /// In the order of a round.
    pub cases: Vec<Case>,
    /// Of them.
    pub comparisons: Vec<Comparison>,
}

/// A connection and what is at its other end.
struct Link {
    runtime: Rc<Runtime>,
    /// Adaptive polling on both sides.
    poll: Duration,
    disk: Arc<RemoteDisk>,
    pids: Vec<Pid>,
    /// Kept running.
    _processes: Vec<Box<dyn std::any::Any>>,
}

impl Plan {
    /// Starts every process. `directory` holds the files.
    pub fn make(runtime: &Rc<Runtime>, directory: &Path) -> anyhow::Result<Self> {
        let mut plan = Self::default();
        plan.bare_tcp()?;
        for backing in ["null", "memory"] {
            let link = plan.part(runtime, Duration::ZERO, &[backing])?;
            plan.whole(backing, &link);
            plan.against_tcp(backing);
        }
        for io in ["plain", "io_uring"] {
            let path = file(directory, &format!("weft-{io}"))?;
            let path = path.display().to_string();
            let link = plan.part(runtime, Duration::ZERO, &["file", &path, "--io", io])?;
            plan.whole(&format!("file {io}"), &link);
            plan.nvme(&format!("file {io} durable write"), &link, Load::durable());
        }
        plan.polled(runtime)?;
        plan.two_hops(runtime)?;
        plan.drive(runtime)?;
        plan.raw_file(directory)?;
        plan.peers(directory)?;
        Ok(plan)
    }

    fn add(&mut self, name: &str, depth: usize, measure: Measure) {
        self.cases.push(Case {
            name: name.to_owned(),
            depth,
            measure,
        });
    }

    fn compare(&mut self, case: &str, of: Metric, against: &[&str], goal: Option<f64>) {
        self.comparisons.push(Comparison {
            case: case.to_owned(),
            of,
            against: against.iter().map(|name| (*name).to_owned()).collect(),
            goal,
        });
    }

    fn nvme(&mut self, name: &str, link: &Rc<Link>, load: Load) {
        let link = link.clone();
        let measure = move |time| {
            let (disk, pids) = (link.disk.clone(), link.pids.clone());
            link.runtime.block_on(async {
                polling::set(link.poll);
                // A task, as its users are: the runtime wakes what it blocks on by a system call.
                let load =
                    tokio::spawn(async move { load.measure(&*disk, &pids, SPAN, time).await });
                let done = load.await;
                polling::set(Duration::ZERO);
                Ok(done??)
            })
        };
        self.add(name, load.depth, Box::new(measure));
    }

    /// A target of this program.
    fn part(
        &self,
        runtime: &Rc<Runtime>,
        poll: Duration,
        backing: &[&str],
    ) -> anyhow::Result<Rc<Link>> {
        let micros = poll.as_micros().to_string();
        let part = Part::start(&[&["target", "--poll", &micros], backing].concat())?;
        let disk = runtime.block_on(part.connect())?;
        Ok(Rc::new(Link {
            runtime: runtime.clone(),
            poll,
            disk: Arc::new(disk),
            pids: vec![part.pid()],
            _processes: vec![Box::new(part)],
        }))
    }

    fn whole(&mut self, backing: &str, link: &Rc<Link>) {
        for depth in [1, 8, 32, 128] {
            for (kind, writes) in [("read", 0), ("write", 100), ("mixed", 30)] {
                let name = format!("{backing} 4k {kind} qd{depth}");
                self.nvme(&name, link, Load::random(depth, writes));
            }
        }
        for (kind, writes) in [("read", 0), ("write", 100)] {
            let name = format!("{backing} 128k {kind}");
            self.nvme(&name, link, Load::stream(STREAM_DEPTH, writes));
        }
    }

    fn bare_tcp(&mut self) -> anyhow::Result<()> {
        let server = Rc::new(Part::start(&["echo"])?);
        let block = BLOCK as u32;
        let exchange = |request, answer, polling| Session::Exchange {
            request,
            answer,
            polling,
        };
        for (name, session) in [
            (
                "tcp exchange read blocking",
                exchange(CAPSULE, DATA_HEADER + block, false),
            ),
            (
                "tcp exchange write blocking",
                exchange(CAPSULE + block, RESPONSE, false),
            ),
            (
                "tcp exchange read polling",
                exchange(CAPSULE, DATA_HEADER + block, true),
            ),
            (
                "tcp exchange write polling",
                exchange(CAPSULE + block, RESPONSE, true),
            ),
            ("tcp stream from server", Session::FromServer),
            ("tcp stream to server", Session::ToServer),
        ] {
            let server = server.clone();
            let measure = move |time| echo::measure(server.address, server.pid(), session, time);
            self.add(name, 1, Box::new(measure));
        }
        Ok(())
    }

    fn against_tcp(&mut self, backing: &str) {
        for (kind, stream) in [("read", "from"), ("write", "to")] {
            let case = format!("{backing} 4k {kind} qd1");
            let exchange = format!("tcp exchange {kind} blocking");
            self.compare(&case, Metric::P50, &[&exchange], Some(1.25));
            let case = format!("{backing} 128k {kind}");
            let goal = (kind == "read").then_some(0.8);
            let stream = format!("tcp stream {stream} server");
            self.compare(&case, Metric::Iops, &[&stream], goal);
        }
    }

    /// Adaptive polling on both sides, with what is in memory.
    fn polled(&mut self, runtime: &Rc<Runtime>) -> anyhow::Result<()> {
        for backing in ["null", "memory"] {
            let link = self.part(runtime, POLL, &[backing])?;
            for (kind, writes) in [("read", 0), ("write", 100)] {
                for depth in [1, 32, 128] {
                    let name = format!("polled {backing} 4k {kind} qd{depth}");
                    self.nvme(&name, &link, Load::random(depth, writes));
                }
                let case = format!("polled {backing} 4k {kind} qd1");
                let exchange = format!("tcp exchange {kind} polling");
                self.compare(&case, Metric::P50, &[&exchange], Some(1.25));
                let event_driven = format!("{backing} 4k {kind} qd1");
                self.compare(&case, Metric::P50, &[&event_driven], None);
            }
        }
        Ok(())
    }

    /// A target in front of a target that costs nothing.
    fn two_hops(&mut self, runtime: &Rc<Runtime>) -> anyhow::Result<()> {
        let far = Part::start(&["target", "null"])?;
        let near = Part::start(&["target", "relay", &far.address.to_string()])?;
        let disk = runtime.block_on(near.connect())?;
        let link = Rc::new(Link {
            runtime: runtime.clone(),
            poll: Duration::ZERO,
            disk: Arc::new(disk),
            pids: vec![near.pid(), far.pid()],
            _processes: vec![Box::new(near), Box::new(far)],
        });
        for (kind, writes) in [("read", 0), ("write", 100)] {
            for depth in [1, 32] {
                let name = format!("two hops null 4k {kind} qd{depth}");
                self.nvme(&name, &link, Load::random(depth, writes));
                let goal = (depth == 1).then_some(1.9);
                let one = format!("null 4k {kind} qd{depth}");
                self.compare(&name, Metric::P50, &[&one], goal);
            }
        }
        Ok(())
    }

    /// The real processes.
    fn drive(&mut self, runtime: &Rc<Runtime>) -> anyhow::Result<()> {
        let drive = Drive::start()?;
        let disk = runtime.block_on(drive.connect())?;
        let one = Rc::new(Link {
            runtime: runtime.clone(),
            poll: Duration::ZERO,
            disk: Arc::new(disk),
            pids: vec![drive.pid()?],
            _processes: vec![Box::new(drive)],
        });
        let two = volume(runtime, Setup::new())?;
        let mirror = volume(runtime, Setup::mirrored())?;
        for (hops, link) in [
            ("drive", &one),
            ("engine and drive", &two),
            ("mirror of two", &mirror),
        ] {
            fill(link)?;
            for (kind, writes) in [("read", 0), ("write", 100)] {
                for depth in [1, 32] {
                    let name = format!("{hops} 4k {kind} qd{depth}");
                    self.nvme(&name, link, Load::random(depth, writes));
                }
            }
            self.nvme(&format!("{hops} durable write"), link, Load::durable());
        }
        for kind in ["4k read qd1", "4k write qd1", "durable write"] {
            let (case, one) = (format!("engine and drive {kind}"), format!("drive {kind}"));
            self.compare(&case, Metric::P50, &[&one], Some(1.9));
        }
        for (kind, goal) in [
            ("4k read qd1", None),
            ("4k write qd1", Some(1.2)),
            ("4k write qd32", None),
            ("durable write", Some(1.2)),
        ] {
            let (case, single) = (
                format!("mirror of two {kind}"),
                format!("engine and drive {kind}"),
            );
            self.compare(&case, Metric::P50, &[&single], goal);
        }
        Ok(())
    }

    fn raw_file(&mut self, directory: &Path) -> anyhow::Result<()> {
        let path = file(directory, "raw")?;
        for (name, durability) in [
            ("raw file O_DSYNC write", Durability::Dsync),
            ("raw file write and fdatasync", Durability::Fdatasync),
        ] {
            let path = path.clone();
            let measure = move |time| raw::measure(&path, durability, time);
            self.add(name, 1, Box::new(measure));
        }
        for case in [
            "file plain durable write",
            "file io_uring durable write",
            "drive durable write",
        ] {
            self.compare(case, Metric::P50, &["raw file O_DSYNC write"], Some(2.0));
        }
        Ok(())
    }

    /// Other targets of user space.
    fn peers(&mut self, directory: &Path) -> anyhow::Result<()> {
        let ports = free_port;
        let (p1, p2, p3, p4) = (ports()?, ports()?, ports()?, ports()?);
        let kit_file = file(directory, "nbdkit")?.display().to_string();
        let daemon_file = nbd::file_device(&file(directory, "qemu")?);
        let null = "driver=null-co,size=268435456";
        let servers: [(&str, u16, &str, Server); 4] = cores::on_target(|| {
            Ok([
                (
                    "nbdkit memory",
                    p1,
                    "",
                    nbd::nbdkit(p1, &["memory", "256M"])?,
                ),
                ("qemu null", p2, "disk", nbd::storage_daemon(p2, null)?),
                (
                    "nbdkit file",
                    p3,
                    "",
                    nbd::nbdkit(p3, &["file", &kit_file])?,
                ),
                (
                    "qemu file",
                    p4,
                    "disk",
                    nbd::storage_daemon(p4, &daemon_file)?,
                ),
            ])
        })?;
        let mut names = vec![];
        for (name, port, export, server) in servers {
            let server = Rc::new(server);
            for (kind, writes) in [("read", false), ("write", true)] {
                for depth in [1, 32, 128] {
                    let case = format!("{name} 4k {kind} qd{depth}");
                    let uri = format!("nbd://127.0.0.1:{port}/{export}");
                    let server = server.clone();
                    let measure = move |time| nbd::measure(&server, &uri, writes, depth, time);
                    self.add(&case, depth, Box::new(measure));
                    names.push(case);
                }
            }
        }
        for kind in ["read", "write"] {
            let of = |file: bool| {
                let fits =
                    move |name: &&String| name.contains(kind) && name.contains("file") == file;
                names
                    .iter()
                    .filter(fits)
                    .map(String::as_str)
                    .collect::<Vec<_>>()
            };
            for (depth, goal) in [(1, None), (32, Some(2.5)), (128, Some(8.0))] {
                for backing in ["null", "memory"] {
                    let case = format!("{backing} 4k {kind} qd{depth}");
                    self.compare(&case, Metric::Iops, &of(false), goal);
                }
                for io in ["plain", "io_uring"] {
                    let case = format!("file {io} 4k {kind} qd{depth}");
                    self.compare(&case, Metric::Iops, &of(true), None);
                }
            }
        }
        Ok(())
    }
}

/// Writes everything that will be read, so that reads are of chunks that there are.
fn fill(link: &Link) -> anyhow::Result<()> {
    const STEP: u64 = 256 << 10;
    let data = bytes::Bytes::from(vec![0x5a; STEP as usize]);
    link.runtime.block_on(async {
        for offset in (0..SPAN).step_by(STEP as usize) {
            link.disk.write(offset, data.clone(), Write::Cached).await?;
        }
        link.disk.flush().await.context("the slice is filled")
    })
}

/// A file with blocks of its own, written once.
fn file(directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    std::fs::write(&path, vec![0x5a; target::SIZE as usize])?;
    std::fs::File::open(&path)?.sync_all()?;
    Ok(path)
}

/// A volume's real processes, and the host's connection.
fn volume(runtime: &Rc<Runtime>, setup: Setup) -> anyhow::Result<Rc<Link>> {
    let volume = Volume::start(setup)?;
    let disk = runtime.block_on(volume.connect())?;
    Ok(Rc::new(Link {
        runtime: runtime.clone(),
        poll: Duration::ZERO,
        disk: Arc::new(disk),
        pids: volume.pids()?,
        _processes: vec![Box::new(volume)],
    }))
}
