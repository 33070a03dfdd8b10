//! Completion queue entry (Base section 3.3.3.2, figure 89).

use crate::status::Status;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// 16 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Cqe {
    /// Dwords 0 and 1: what the command answers.
    pub result: U64,
    /// SQHD.
    pub sqhd: U16,
    /// SQID: reserved over Fabrics.
    pub sqid: U16,
    /// CID, all 16 bits as received.
    pub cid: U16,
    /// Phase tag (0) and status.
    pub status: U16,
}

impl Cqe {
    /// A completion.
    pub fn new(cid: u16, status: Status, result: u64, sqhd: u16) -> Self {
        Self {
            result: U64::new(result),
            sqhd: U16::new(sqhd),
            sqid: U16::ZERO,
            cid: U16::new(cid),
            status: U16::new(status.to_field()),
        }
    }

    /// Status, typed.
    pub fn status(&self) -> Status {
        Status::from_field(self.status.get())
    }
}
