//! The NVMe/TCP initiator: the remote namespace as a [`weft_block::Disk`].
//!
//! | file | what |
//! | --- | --- |
//! | `initiator/error.rs` | why a Connect did not succeed |
//! | `initiator/discovery.rs` | [`discover`]: which subsystems a host may use, and where they are |
//! | `initiator/queue.rs` | one queue: socket, state machine, keep-alive |
//! | `initiator/probe.rs` | whether the target still answers while something is asked of it |
//! | `initiator/handshake.rs` | from a socket to an identified namespace |
//! | `initiator/remote.rs` | [`RemoteDisk`]: one association, lost once it is lost |
//! | `initiator/reconnecting.rs` | [`ReconnectingDisk`]: holds requests while there is no association |

mod discovery;
mod error;
mod handshake;
mod live;
mod probe;
mod queue;
mod reconnecting;
mod remote;

pub use discovery::discover;
pub use error::ConnectError;
pub use probe::Probe;
pub use reconnecting::{PathState, ReconnectingDisk};
pub use remote::{ConnectOptions, RemoteDisk};
