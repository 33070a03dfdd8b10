//! Completion status (Base section 3.3.3.2.1): status code type, status code, Do Not Retry.

use std::fmt;

/// Status of a completed command. Ordered by nothing; compare with [`Status::code`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status {
    code: u16,
    dnr: bool,
}

impl Status {
    /// Generic command status 00h.
    pub const SUCCESS: Self = Self::retry(0x000);
    /// Generic 01h.
    pub const INVALID_OPCODE: Self = Self::never(0x001);
    /// Generic 02h.
    pub const INVALID_FIELD: Self = Self::never(0x002);
    /// Generic 03h: the identifier is in use by another command.
    pub const COMMAND_ID_CONFLICT: Self = Self::never(0x003);
    /// Generic 06h.
    pub const INTERNAL: Self = Self::retry(0x006);
    /// Generic 0Bh.
    pub const INVALID_NAMESPACE: Self = Self::never(0x00b);
    /// Generic 0Ch.
    pub const COMMAND_SEQUENCE: Self = Self::never(0x00c);
    /// Generic 0Fh.
    pub const DATA_SGL_LENGTH_INVALID: Self = Self::never(0x00f);
    /// Generic 11h.
    pub const SGL_TYPE_INVALID: Self = Self::never(0x011);
    /// Generic 16h: SGL offset within the capsule.
    pub const SGL_OFFSET_INVALID: Self = Self::never(0x016);
    /// Generic 20h.
    pub const WRITE_PROTECTED: Self = Self::never(0x020);
    /// Generic 22h: a host sends the command again.
    pub const TRANSIENT_TRANSPORT: Self = Self::retry(0x022);
    /// Generic 80h.
    pub const LBA_OUT_OF_RANGE: Self = Self::never(0x080);
    /// Generic 81h.
    pub const CAPACITY_EXCEEDED: Self = Self::never(0x081);
    /// Generic 83h: what an engine of an older term meets at a drive.
    pub const RESERVATION_CONFLICT: Self = Self::never(0x083);
    /// Command specific 05h: more Asynchronous Event Requests than AERL allows.
    pub const AER_LIMIT_EXCEEDED: Self = Self::never(0x105);
    /// Command specific 09h.
    pub const INVALID_LOG_PAGE: Self = Self::never(0x109);
    /// Command specific 0Dh.
    pub const FEATURE_NOT_SAVEABLE: Self = Self::never(0x10d);
    /// Command specific 0Eh.
    pub const FEATURE_NOT_CHANGEABLE: Self = Self::never(0x10e);
    /// Command specific 80h of Connect: RECFMT unknown.
    pub const CONNECT_INCOMPATIBLE_FORMAT: Self = Self::never(0x180);
    /// Command specific 81h of Connect, without Do Not Retry: come back later.
    pub const CONNECT_BUSY: Self = Self::retry(0x181);
    /// Command specific 82h of Connect; dword 0 says which parameter.
    pub const CONNECT_INVALID_PARAMETERS: Self = Self::never(0x182);
    /// Command specific 84h of Connect.
    pub const CONNECT_INVALID_HOST: Self = Self::never(0x184);
    /// Media 80h.
    pub const WRITE_FAULT: Self = Self::retry(0x280);
    /// The same, for good: bytes that were acknowledged before are lost.
    pub const WRITES_LOST: Self = Self::never(0x280);
    /// Media 81h: the block stays what it is, asking again only costs the medium time.
    pub const UNRECOVERED_READ: Self = Self::never(0x281);
    /// Path related 02h: a multipath host waits or takes another path.
    pub const ANA_INACCESSIBLE: Self = Self::retry(0x302);

    /// Vendor specific 01h: a slice's change under another config than its record's.
    pub const WRONG_CONFIG: Self = Self::never(0x701);
    /// Vendor specific 02h: the record of a slice is not the one that was expected.
    pub const SWAP_LOST: Self = Self::never(0x702);

    const fn retry(code: u16) -> Self {
        Self { code, dnr: false }
    }

    const fn never(code: u16) -> Self {
        Self { code, dnr: true }
    }

    /// Any status: type in bits 10:8, code in bits 7:0.
    pub const fn new(code: u16, dnr: bool) -> Self {
        Self {
            code: code & 0x7ff,
            dnr,
        }
    }

    /// Status code type (bits 10:8) and status code (bits 7:0).
    pub const fn code(self) -> u16 {
        self.code
    }

    /// Do Not Retry.
    pub const fn dnr(self) -> bool {
        self.dnr
    }

    /// Whether the command was done.
    pub const fn is_success(self) -> bool {
        self.code == 0
    }

    /// As in bits 31:16 of completion dword 3; the phase tag is always 0 over Fabrics.
    pub const fn to_field(self) -> u16 {
        (self.code << 1) | if self.dnr { 0x8000 } else { 0 }
    }

    /// From bits 31:16 of completion dword 3.
    pub const fn from_field(field: u16) -> Self {
        Self {
            code: (field >> 1) & 0x7ff,
            dnr: field & 0x8000 != 0,
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}h{}",
            self.code,
            if self.dnr { "+DNR" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_its_field() {
        for field in 0..=u16::MAX {
            let status = Status::from_field(field);
            assert_eq!(Status::from_field(status.to_field()), status);
        }
    }

    #[test]
    fn reservation_conflict_is_0083h_with_dnr_on_the_wire() {
        assert_eq!(Status::RESERVATION_CONFLICT.to_field(), 0x8106);
        assert_eq!(Status::ANA_INACCESSIBLE.to_field(), 0x0604);
    }
}
