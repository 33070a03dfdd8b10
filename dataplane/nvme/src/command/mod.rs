//! Commands: raw entries, and typed commands parsed from them once, reserved bits refused.

mod admin;
mod cqe;
pub mod fabrics;
mod io;
mod sgl;
mod sqe;
mod stamp;

pub use admin::{AdminCommand, admin_opcode};
pub use cqe::Cqe;
pub use io::{BlockRange, IoCommand, encode_ranges, io_opcode, parse_ranges};
pub use sgl::{Sgl, SglKind};
pub use sqe::{Direction, Sqe};
pub use stamp::Stamp;
