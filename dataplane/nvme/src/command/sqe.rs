//! Submission queue entry (Base section 3.3.3.1, figures 86 and 87).

use super::Sgl;
use crate::status::Status;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// PSDT 01b: an SGL, the only way data are described over Fabrics (Base figure 86, bits 15:14).
const PSDT_SGL: u8 = 0x40;
/// FUSE (bits 9:8) and the reserved bits beside it.
const FUSE_AND_RESERVED: u8 = 0x3f;
/// Fabrics commands, and where their type is.
pub(crate) const FABRICS: u8 = 0x7f;

/// Which way the data of a command go: bits 1:0 of the opcode, or of the Fabrics command type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// 00b.
    None,
    /// 01b: host to controller.
    ToController,
    /// 10b: controller to host.
    ToHost,
    /// 11b: no command of ours.
    Both,
}

/// 64 bytes.
#[derive(
    Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Sqe {
    /// OPC.
    pub opcode: u8,
    /// FUSE and PSDT.
    pub flags: u8,
    /// CID.
    pub cid: U16,
    /// NSID; byte 0 is the command type of a Fabrics command.
    pub nsid: U32,
    /// Dwords 2 and 3.
    pub cdw2: [U32; 2],
    /// MPTR: unused over Fabrics.
    pub mptr: U64,
    /// SGL1.
    pub sgl: Sgl,
    /// Dwords 10 to 15.
    pub cdw: [U32; 6],
}

impl Sqe {
    /// An entry without data; the connection fills in identifier and SGL.
    pub fn new(opcode: u8, nsid: u32) -> Self {
        Self {
            opcode,
            flags: PSDT_SGL,
            cid: U16::ZERO,
            nsid: U32::new(nsid),
            cdw2: [U32::ZERO; 2],
            mptr: U64::ZERO,
            sgl: Sgl::none(),
            cdw: [U32::ZERO; 6],
        }
    }

    /// Dword 10 to 15; 0 for others.
    pub fn dword(&self, number: usize) -> u32 {
        number
            .checked_sub(10)
            .and_then(|index| self.cdw.get(index))
            .map_or(0, |dword| dword.get())
    }

    /// Sets dword 10 to 15; others stay.
    #[must_use]
    pub fn with(mut self, number: usize, value: u32) -> Self {
        if let Some(dword) = number
            .checked_sub(10)
            .and_then(|index| self.cdw.get_mut(index))
        {
            *dword = U32::new(value);
        }
        self
    }

    /// FCTYPE.
    pub fn fabrics_type(&self) -> u8 {
        self.nsid.to_bytes()[0]
    }

    /// Which way data go.
    pub fn direction(&self) -> Direction {
        let code = if self.opcode == FABRICS {
            self.fabrics_type()
        } else {
            self.opcode
        };
        match code & 0b11 {
            0b00 => Direction::None,
            0b01 => Direction::ToController,
            0b10 => Direction::ToHost,
            _ => Direction::Both,
        }
    }

    /// Refuses fused commands, reserved flags, and data described by anything but an SGL.
    pub(crate) fn check_flags(&self) -> Result<(), Status> {
        if self.flags & FUSE_AND_RESERVED != 0 || self.flags & !FUSE_AND_RESERVED != PSDT_SGL {
            return Err(Status::INVALID_FIELD);
        }
        Ok(())
    }
}
