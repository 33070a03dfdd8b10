//! ICResp (TCP section 3.6.2.2, figure 26).

use super::{CommonHeader, Fault, Flags, PduType, framed};
use crate::digest::Digests;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Initialize Connection Response, controller to host.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IcResp {
    /// Common header.
    pub header: CommonHeader,
    /// PDU format version.
    pub pfv: U16,
    /// Controller PDU data alignment: anything but 0 makes Linux leave.
    pub cpda: u8,
    /// Bit 0 header digest, bit 1 data digest.
    pub dgst: u8,
    /// Most data in one H2CData PDU.
    pub maxh2cdata: U32,
    reserved: [u8; 112],
}

impl IcResp {
    /// Agrees to these digests.
    pub fn new(digests: Digests, maxh2cdata: u32) -> Self {
        Self {
            header: framed(PduType::IcResp, Flags::NONE, 0, Digests::default()),
            pfv: U16::ZERO,
            cpda: 0,
            dgst: u8::from(digests.header) | u8::from(digests.data) << 1,
            maxh2cdata: U32::new(maxh2cdata),
            reserved: [0; 112],
        }
    }

    /// What a host checks: the format, no alignment, the digests it asked for and no others, and
    /// a MAXH2CDATA of at least 4096 in dwords.
    pub fn accept(&self, asked: Digests) -> Result<u32, Fault> {
        if self.pfv.get() != 0 {
            return Err(Fault::Unsupported(8));
        }
        if self.cpda != 0 {
            return Err(Fault::Unsupported(10));
        }
        if self.dgst != u8::from(asked.header) | u8::from(asked.data) << 1 {
            return Err(Fault::HeaderField(11));
        }
        let max = self.maxh2cdata.get();
        if max < 4096 || !max.is_multiple_of(4) {
            return Err(Fault::HeaderField(12));
        }
        Ok(max)
    }
}
