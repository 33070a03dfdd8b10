//! R2T (TCP section 3.6.2.9, figure 33).

use super::{CommonHeader, Flags, PduType, framed};
use crate::digest::Digests;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Ready to Transfer: the controller has room for this part of a command's data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct R2t {
    /// Common header.
    pub header: CommonHeader,
    /// Command identifier.
    pub cccid: U16,
    /// Transfer tag, echoed by H2CData.
    pub ttag: U16,
    /// Offset in the command's data.
    pub r2to: U32,
    /// Bytes asked for.
    pub r2tl: U32,
    reserved: [u8; 4],
}

impl R2t {
    /// Asks for a part.
    pub fn new(cccid: u16, ttag: u16, r2to: u32, r2tl: u32, digests: Digests) -> Self {
        Self {
            header: framed(PduType::R2t, Flags::NONE, 0, digests),
            cccid: U16::new(cccid),
            ttag: U16::new(ttag),
            r2to: U32::new(r2to),
            r2tl: U32::new(r2tl),
            reserved: [0; 4],
        }
    }
}
