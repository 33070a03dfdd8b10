//! H2CTermReq and C2HTermReq (TCP sections 3.6.2.3 and 3.6.2.4, figures 27 and 28).

use super::{CommonHeader, Fault, Flags, PduType, layout};
use crate::Outbox;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the offending PDU's header that may follow.
pub(crate) const MAX_ECHO: u32 = 128;

/// The last PDU that its sender sends.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct TermReq {
    /// Common header.
    pub header: CommonHeader,
    /// Fatal error status.
    pub fes: U16,
    /// Fatal error information.
    pub fei: [U16; 2],
    reserved: [u8; 10],
}

impl TermReq {
    /// Appends the request with the header it is about; nothing if the fault is not to be told.
    pub(crate) fn emit(outbox: &mut Outbox, kind: PduType, fault: Fault, about: &[u8]) {
        let Some((fes, fei)) = fault.report() else {
            return;
        };
        let fei = U32::new(fei).to_bytes();
        let echo = about.get(..MAX_ECHO as usize).unwrap_or(about);
        let hlen = layout(kind).hlen;
        let pdu = Self {
            header: CommonHeader::new(kind, Flags::NONE, hlen, 0, usize::from(hlen) + echo.len()),
            fes: U16::new(fes),
            fei: [
                U16::from_bytes([fei[0], fei[1]]),
                U16::from_bytes([fei[2], fei[3]]),
            ],
            reserved: [0; 10],
        };
        outbox.copy(pdu.as_bytes());
        outbox.copy(echo);
    }

    /// FEI as one number.
    pub fn information(&self) -> u32 {
        u32::from(self.fei[0].get()) | u32::from(self.fei[1].get()) << 16
    }
}
