//! `weft-operator`: arguments, wiring, lease, admin HTTP. It decides nothing; what is to be done
//! is decided in `weft-controllers`.
//!
//! | file | what |
//! | --- | --- |
//! | `args.rs` | arguments and environment |
//! | `run.rs` | the order of a start, and what runs side by side |
//! | `adopt.rs` | `adopt`: volumes built again from the drives |
//! | `lease.rs` | one operator at a time |
//! | `endpoint.rs` | where pods find it |
//! | `admin.rs` | `/healthz`, `/readyz`, `/metrics`, `/debug/state` |
//! | `crds.rs` | printing the CRDs, and the check at start that they are there |
//! | `fault.rs` | the test instrument that ends the process after a chosen write |

mod admin;
mod adopt;
mod args;
mod crds;
mod endpoint;
mod fault;
mod lease;
mod run;

use clap::Parser;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match args::Args::parse().command {
        args::Command::Run(options) => {
            tracing_subscriber::fmt()
                .with_env_filter(
                    tracing_subscriber::EnvFilter::try_from_default_env()
                        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
                )
                .with_writer(std::io::stderr)
                // Read by people and by log collectors alike, never by a terminal of its own.
                .with_ansi(false)
                .init();
            run::run(options).await
        }
        args::Command::Adopt(options) => adopt::adopt(options).await,
        args::Command::Crds { into } => crds::print(into.as_deref()),
    }
}
