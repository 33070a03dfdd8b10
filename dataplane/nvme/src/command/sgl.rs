//! SGL descriptors (Base section 4.1.2; TCP section 3.4): one in each command, of two kinds.

use crate::status::Status;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SGL Data Block, sub type Offset: data in the capsule.
const IN_CAPSULE: u8 = 0x01;
/// Transport SGL Data Block, sub type Transport Specific (Ah).
const TRANSPORT: u8 = 0x5a;

/// Where a command's data are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SglKind {
    /// In the capsule, from ICDOFF (0) on.
    InCapsule,
    /// In data PDUs.
    Transport,
}

/// 16 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Sgl {
    /// Offset in the capsule.
    pub address: U64,
    /// Bytes.
    pub length: U32,
    reserved: [u8; 3],
    /// Descriptor type and sub type.
    pub kind: u8,
}

impl Sgl {
    /// No data.
    pub fn none() -> Self {
        Self::transport(0)
    }

    /// That many bytes in data PDUs.
    pub fn transport(length: u32) -> Self {
        Self {
            address: U64::ZERO,
            length: U32::new(length),
            reserved: [0; 3],
            kind: TRANSPORT,
        }
    }

    /// That many bytes in the capsule.
    pub fn in_capsule(length: u32) -> Self {
        Self {
            address: U64::ZERO,
            length: U32::new(length),
            reserved: [0; 3],
            kind: IN_CAPSULE,
        }
    }

    /// Refuses every other kind, and an offset in the capsule.
    pub fn parse(&self) -> Result<SglKind, Status> {
        match self.kind {
            TRANSPORT => Ok(SglKind::Transport),
            IN_CAPSULE if self.address.get() == 0 => Ok(SglKind::InCapsule),
            IN_CAPSULE => Err(Status::SGL_OFFSET_INVALID),
            _ => Err(Status::SGL_TYPE_INVALID),
        }
    }
}
