//! The common header (TCP section 3.1.1, figure 9) and what each type allows in it.

use super::Fault;
use crate::digest::Digests;
use bytes::Bytes;
use std::ops::BitOr;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PDU-Type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PduType {
    /// Initialize Connection Request.
    IcReq = 0x00,
    /// Initialize Connection Response.
    IcResp = 0x01,
    /// Host to Controller Terminate Connection Request.
    H2cTermReq = 0x02,
    /// Controller to Host Terminate Connection Request.
    C2hTermReq = 0x03,
    /// Command Capsule.
    CapsuleCmd = 0x04,
    /// Response Capsule.
    CapsuleResp = 0x05,
    /// Host to Controller Data.
    H2cData = 0x06,
    /// Controller to Host Data.
    C2hData = 0x07,
    /// Ready to Transfer.
    R2t = 0x09,
}

impl PduType {
    /// From the wire.
    pub fn parse(value: u8) -> Option<Self> {
        Some(match value {
            0x00 => Self::IcReq,
            0x01 => Self::IcResp,
            0x02 => Self::H2cTermReq,
            0x03 => Self::C2hTermReq,
            0x04 => Self::CapsuleCmd,
            0x05 => Self::CapsuleResp,
            0x06 => Self::H2cData,
            0x07 => Self::C2hData,
            0x09 => Self::R2t,
            _ => return None,
        })
    }
}

/// FLAGS.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(u8);

impl Flags {
    /// None set.
    pub const NONE: Self = Self(0);
    /// Header digest present.
    pub const HDGST: Self = Self(1);
    /// Data digest present.
    pub const DDGST: Self = Self(2);
    /// Last PDU of its series.
    pub const LAST: Self = Self(4);
    /// The command succeeded and no response capsule follows.
    pub const SUCCESS: Self = Self(8);

    /// Whether all bits of `other` are set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As on the wire.
    pub fn bits(self) -> u8 {
        self.0
    }
}

impl BitOr for Flags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// CH.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct CommonHeader {
    /// PDU-Type.
    pub pdu_type: u8,
    /// FLAGS.
    pub flags: u8,
    /// Header length.
    pub hlen: u8,
    /// Where data begin, from the start of the PDU; 0 without data.
    pub pdo: u8,
    /// Length of the whole PDU.
    pub plen: U32,
}

/// Offsets of the fields, told in a termination request.
pub(crate) mod at {
    pub const TYPE: u32 = 0;
    pub const FLAGS: u32 = 1;
    pub const HLEN: u32 = 2;
    pub const PDO: u32 = 3;
    pub const PLEN: u32 = 4;
}

impl CommonHeader {
    pub(super) fn new(kind: PduType, flags: Flags, hlen: u8, pdo: usize, plen: usize) -> Self {
        Self {
            pdu_type: kind as u8,
            flags: flags.0,
            hlen,
            // Ours are at most 72 + 4.
            pdo: u8::try_from(pdo).unwrap_or(u8::MAX),
            // Ours are at most the transfer limit and a header.
            plen: U32::new(u32::try_from(plen).unwrap_or(u32::MAX)),
        }
    }

    /// FLAGS, typed.
    pub fn flags(&self) -> Flags {
        Flags(self.flags)
    }
}

/// What the specification fixes for a type.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub hlen: u8,
    /// Flags that may be set; all others are reserved.
    flags: u8,
    /// Whether digests apply.
    digests: bool,
}

/// Layout of each type (TCP section 3.6).
pub(crate) fn layout(kind: PduType) -> Layout {
    let (hlen, flags, digests) = match kind {
        PduType::IcReq | PduType::IcResp => (128, 0, false),
        PduType::H2cTermReq | PduType::C2hTermReq => (24, 0, false),
        PduType::CapsuleCmd => (72, 0b0011, true),
        PduType::CapsuleResp => (24, 0b0001, true),
        PduType::H2cData => (24, 0b0111, true),
        PduType::C2hData => (24, 0b1111, true),
        PduType::R2t => (24, 0b0001, true),
    };
    Layout {
        hlen,
        flags,
        digests,
    }
}

/// What a receiver accepts now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expect {
    pub digests: Digests,
    /// Most data a PDU of this type may carry now; `None`: this type is not expected now.
    pub limit: fn(PduType, &Self) -> Option<u32>,
    /// Data that a capsule may carry.
    pub capsule: u32,
    /// Data that a data PDU may carry.
    pub data: u32,
    /// Whether ICReq or ICResp was exchanged.
    pub ready: bool,
}

/// A PDU whose header is complete and whose frame is right.
#[derive(Debug)]
pub(crate) struct Head {
    pub kind: PduType,
    pub flags: Flags,
    /// Data in this PDU.
    pub data: usize,
    /// Data of a PDU that is taken whole, and whether their digest was right.
    pub inline: Option<(Bytes, bool)>,
}

/// Frame of a PDU: where things are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub kind: PduType,
    pub flags: Flags,
    pub hlen: usize,
    pub header_digest: bool,
    pub data: usize,
    pub data_digest: bool,
}

impl Frame {
    /// Bytes up to the data.
    pub fn start(&self) -> usize {
        self.hlen + if self.header_digest { 4 } else { 0 }
    }

    /// Bytes of the data digest.
    pub fn trailer(&self) -> usize {
        if self.data_digest { 4 } else { 0 }
    }
}

/// Checks the eight bytes that every PDU begins with, before anything else of it is looked at.
pub(crate) fn check(header: &CommonHeader, expect: &Expect) -> Result<Frame, Fault> {
    let kind = PduType::parse(header.pdu_type).ok_or(Fault::HeaderField(at::TYPE))?;
    let limit = (expect.limit)(kind, expect).ok_or(Fault::Sequence)?;
    let rules = layout(kind);
    if header.hlen != rules.hlen {
        return Err(Fault::HeaderField(at::HLEN));
    }
    let flags = header.flags();
    let header_digest = rules.digests && expect.digests.header;
    if flags.0 & !rules.flags != 0 || flags.has(Flags::HDGST) != header_digest {
        return Err(Fault::HeaderField(at::FLAGS));
    }
    let hlen = usize::from(header.hlen);
    let start = hlen + if header_digest { 4 } else { 0 };
    let plen = usize::try_from(header.plen.get()).map_err(|_| Fault::HeaderField(at::PLEN))?;
    let Some(rest) = plen.checked_sub(start) else {
        return Err(Fault::HeaderField(at::PLEN));
    };
    // What is too long for its type is that, wherever its data are said to begin.
    let digested = rules.digests && expect.digests.data;
    let most = u64::from(limit) + if digested && limit > 0 { 4 } else { 0 };
    if u64::try_from(rest).map_or(true, |rest| rest > most) {
        return Err(Fault::HeaderField(at::PLEN));
    }
    let data_digest = digested && rest > 0;
    if flags.has(Flags::DDGST) != data_digest {
        return Err(Fault::HeaderField(at::FLAGS));
    }
    // Both ends of ours ask for no alignment (CPDA and HPDA 0): data follow the header at once.
    // Termination requests have no PDO (it is reserved there) although bytes follow.
    let term = matches!(kind, PduType::H2cTermReq | PduType::C2hTermReq);
    let pdo = usize::from(header.pdo);
    if rest > 0 && !term && pdo != start {
        return Err(Fault::HeaderField(at::PDO));
    }
    let trailer = if data_digest { 4 } else { 0 };
    let Some(data) = rest
        .checked_sub(trailer)
        .filter(|data| *data > 0 || rest == 0)
    else {
        return Err(Fault::HeaderField(at::PLEN));
    };
    Ok(Frame {
        kind,
        flags,
        hlen,
        header_digest,
        data,
        data_digest,
    })
}
