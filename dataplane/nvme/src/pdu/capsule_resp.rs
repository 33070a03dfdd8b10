//! CapsuleResp (TCP section 3.6.2.6, figure 30).

use super::{CommonHeader, Flags, PduType, framed};
use crate::command::Cqe;
use crate::digest::Digests;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Response Capsule: a completion queue entry. Never carries data on this transport.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct CapsuleResp {
    /// Common header.
    pub header: CommonHeader,
    /// The completion.
    pub cqe: Cqe,
}

impl CapsuleResp {
    /// A capsule with this completion.
    pub fn new(cqe: Cqe, digests: Digests) -> Self {
        Self {
            header: framed(PduType::CapsuleResp, Flags::NONE, 0, digests),
            cqe,
        }
    }
}
