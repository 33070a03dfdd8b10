//! ICReq (TCP section 3.6.2.1, figure 25).

use super::{CommonHeader, Fault, Flags, PduType, framed};
use crate::digest::Digests;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Initialize Connection Request: the first PDU, host to controller.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcReq {
    /// Common header.
    pub header: CommonHeader,
    /// PDU format version.
    pub pfv: U16,
    /// Host PDU data alignment, in dwords, zero-based.
    pub hpda: u8,
    /// Bit 0 header digest, bit 1 data digest.
    pub dgst: u8,
    /// R2Ts in flight per command, zero-based.
    pub maxr2t: U32,
    reserved: [u8; 112],
}

impl IcReq {
    /// Asks for these digests, no alignment, one R2T at a time.
    pub fn new(digests: Digests) -> Self {
        Self {
            header: framed(PduType::IcReq, Flags::NONE, 0, Digests::default()),
            pfv: U16::ZERO,
            hpda: 0,
            dgst: u8::from(digests.header) | u8::from(digests.data) << 1,
            maxr2t: U32::ZERO,
            reserved: [0; 112],
        }
    }

    /// What the host asks for. An alignment is refused: nobody needs one, and data that follow
    /// their header at once are what makes one receive path.
    pub fn digests(&self) -> Result<Digests, Fault> {
        if self.pfv.get() != 0 {
            return Err(Fault::Unsupported(8));
        }
        if self.hpda != 0 {
            return Err(Fault::Unsupported(10));
        }
        if self.dgst & !0b11 != 0 {
            return Err(Fault::HeaderField(11));
        }
        Ok(Digests {
            header: self.dgst & 1 != 0,
            data: self.dgst & 2 != 0,
        })
    }
}
