//! H2CData (TCP section 3.6.2.7, figure 31).

use super::{CommonHeader, Flags, PduType, framed};
use crate::digest::Digests;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Host to Controller Data: what an R2T asked for, or a part of it.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct H2cData {
    /// Common header.
    pub header: CommonHeader,
    /// Command identifier.
    pub cccid: U16,
    /// Transfer tag of the R2T.
    pub ttag: U16,
    /// Offset in the command's data.
    pub datao: U32,
    /// Bytes in this PDU.
    pub datal: U32,
    reserved: [u8; 4],
}

impl H2cData {
    /// A PDU with that many bytes; `last` of its R2T.
    pub fn new(
        cccid: u16,
        ttag: u16,
        datao: u32,
        datal: u32,
        last: bool,
        digests: Digests,
    ) -> Self {
        let flags = if last { Flags::LAST } else { Flags::NONE };
        Self {
            header: framed(PduType::H2cData, flags, datal as usize, digests),
            cccid: U16::new(cccid),
            ttag: U16::new(ttag),
            datao: U32::new(datao),
            datal: U32::new(datal),
            reserved: [0; 4],
        }
    }
}
