//! C2HData (TCP section 3.6.2.8, figure 32).

use super::{CommonHeader, Flags, PduType, framed};
use crate::digest::Digests;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Controller to Host Data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct C2hData {
    /// Common header.
    pub header: CommonHeader,
    /// Command identifier.
    pub cccid: U16,
    reserved: [u8; 2],
    /// Offset in the command's data.
    pub datao: U32,
    /// Bytes in this PDU.
    pub datal: U32,
    reserved2: [u8; 4],
}

impl C2hData {
    /// The only PDU of a command's data. With `success` no response capsule follows.
    pub fn whole(cccid: u16, datal: u32, success: bool, digests: Digests) -> Self {
        let flags = if success {
            Flags::LAST | Flags::SUCCESS
        } else {
            Flags::LAST
        };
        Self::part(cccid, 0, datal, flags, digests)
    }

    /// A PDU with these flags.
    pub fn part(cccid: u16, datao: u32, datal: u32, flags: Flags, digests: Digests) -> Self {
        Self {
            header: framed(PduType::C2hData, flags, datal as usize, digests),
            cccid: U16::new(cccid),
            reserved: [0; 2],
            datao: U32::new(datao),
            datal: U32::new(datal),
            reserved2: [0; 4],
        }
    }
}
