//! CapsuleCmd (TCP section 3.6.2.5, figure 29).

use super::{CommonHeader, Flags, PduType, framed};
use crate::command::Sqe;
use crate::digest::Digests;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Command Capsule: a submission queue entry, and data if they fit in the capsule.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleCmd {
    /// Common header.
    pub header: CommonHeader,
    /// The command.
    pub sqe: Sqe,
}

impl CapsuleCmd {
    /// A capsule with that many bytes of data.
    pub fn new(sqe: Sqe, data: usize, digests: Digests) -> Self {
        Self {
            header: framed(PduType::CapsuleCmd, Flags::NONE, data, digests),
            sqe,
        }
    }
}
