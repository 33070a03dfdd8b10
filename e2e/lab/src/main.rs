//! `weft-lab`: the lab from the command line.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};
use weft_lab::{Lab, Options, Paths};

/// A real Kubernetes cluster on this machine, for the tests of Weft
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring the lab up, or what is missing of it; harmless when it is up
    Up(Up),
    /// End the lab and remove all that belongs to it, also after a crash
    Down,
    /// Show what runs
    Status,
    /// Run kubectl against the lab
    #[command(disable_help_flag = true)]
    Kubectl(Rest),
    /// Run helm against the lab
    #[command(disable_help_flag = true)]
    Helm(Rest),
    /// Run a program of this machine in the network of the lab's router
    Run(Rest),
    /// Run a program on a node
    Exec {
        /// The node's name
        node: String,
        #[command(flatten)]
        rest: Rest,
    },
    /// Power and freezing of a node
    Node {
        /// What to do
        action: NodeAction,
        /// The node's name
        node: String,
    },
    /// Take the control plane away, or bring it back
    Control {
        /// What to do
        action: ControlAction,
    },
    /// Import image archives into every node
    Load {
        /// Files as `docker save` and `buildah push docker-archive:` write them
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Build the images of Weft around its static executables, and load them when the lab is up
    Images,
    /// Build what is built once and cached: Kubernetes, the guest's kernel
    Tools {
        /// Leave the guest's kernel out
        #[arg(long)]
        no_guest: bool,
    },
}

#[derive(Args)]
struct Up {
    /// Nodes made of namespaces
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    nodes: u8,
    /// Leave out n4, the node with a kernel of its own
    #[arg(long)]
    no_guest: bool,
    /// Lost nodes are noticed after 8 s instead of 50 s
    #[arg(long)]
    fast_timers: bool,
}

#[derive(Args)]
struct Rest {
    /// Program and arguments, or arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum NodeAction {
    /// Take its power away
    Kill,
    /// Boot it
    Start,
    /// Freeze all its processes
    Stop,
    /// Let them go on
    Cont,
    /// Cut its link
    Unplug,
    /// Mend its link
    Plug,
}

#[derive(Clone, Copy, ValueEnum)]
enum ControlAction {
    /// End etcd, API server, controller manager and scheduler
    Stop,
    /// Start them again on the same data
    Start,
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("weft-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Up(up) => {
            Lab::up(&Options {
                nodes: up.nodes,
                guest: !up.no_guest,
                fast_timers: up.fast_timers,
                quiet: false,
            })?;
        }
        Verb::Down => weft_lab::down(&Paths::from_env()?)?,
        Verb::Status => print(&weft_lab::status(&Lab::attach()?)),
        Verb::Kubectl(rest) => return pass(Lab::attach()?.kubectl_command(), &rest.words),
        Verb::Helm(rest) => return pass(Lab::attach()?.helm_command(), &rest.words),
        Verb::Run(rest) => {
            let Some((program, args)) = rest.words.split_first() else {
                bail!("say which program to run");
            };
            return pass(Lab::attach()?.command(program), args);
        }
        Verb::Exec { node, rest } => {
            let words: Vec<_> = rest.words.iter().map(String::as_str).collect();
            if words.is_empty() {
                bail!("say which program to run on {node}");
            }
            return pass(Lab::attach()?.node(&node)?.command(&words)?, &[]);
        }
        Verb::Node { action, node } => {
            let lab = Lab::attach()?;
            let node = lab.node(&node)?;
            match action {
                NodeAction::Kill => node.kill()?,
                NodeAction::Start => {
                    node.start()?;
                    node.wait_booted()?;
                }
                NodeAction::Stop => node.stop()?,
                NodeAction::Cont => node.cont()?,
                NodeAction::Unplug => node.unplug()?,
                NodeAction::Plug => node.plug()?,
            }
        }
        Verb::Control { action } => match action {
            ControlAction::Stop => Lab::attach()?.control().stop()?,
            ControlAction::Start => Lab::attach()?.control().start()?,
        },
        Verb::Load { archives } => Lab::attach()?.load(&archives)?,
        Verb::Images => {
            let archives = weft_lab::build_images(&Paths::from_env()?)?;
            match Lab::attach() {
                Ok(lab) => lab.load(&archives)?,
                Err(_) => println!("the lab is not up; `weft-lab load` takes these:"),
            }
            for archive in archives {
                println!("{}", archive.display());
            }
        }
        Verb::Tools { no_guest } => weft_lab::tools::build(&Paths::from_env()?, !no_guest)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints; a reader that went away is no error.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Runs a program with this terminal, and ends as it ends.
fn pass(mut command: Command, args: &[String]) -> Result<ExitCode> {
    let status = command
        .args(args)
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}
