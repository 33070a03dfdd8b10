//! Admin commands (Base section 5), Fabrics commands apart.

use super::Sqe;
use crate::status::Status;

/// Opcodes (Base figure 138).
pub mod admin_opcode {
    /// Get Log Page.
    pub const GET_LOG: u8 = 0x02;
    /// Identify.
    pub const IDENTIFY: u8 = 0x06;
    /// Abort.
    pub const ABORT: u8 = 0x08;
    /// Set Features.
    pub const SET_FEATURES: u8 = 0x09;
    /// Get Features.
    pub const GET_FEATURES: u8 = 0x0a;
    /// Asynchronous Event Request.
    pub const ASYNC_EVENT: u8 = 0x0c;
    /// Keep Alive.
    pub const KEEP_ALIVE: u8 = 0x18;
    /// The first vendor specific one.
    pub const VENDOR: u8 = 0xc0;
}

/// Save, of Set Features: dword 10 bit 31.
const SAVE: u32 = 1 << 31;

/// An admin command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminCommand {
    /// Identify (section 5.17).
    Identify {
        /// Which structure.
        cns: u8,
        /// Of which namespace.
        nsid: u32,
        /// Of which command set.
        csi: u8,
    },
    /// Get Log Page (section 5.16).
    GetLog {
        /// Which page.
        page: u8,
        /// LSP.
        specific: u8,
        /// From which byte.
        offset: u64,
        /// Bytes asked for.
        length: u32,
        /// Read without clearing the event it belongs to.
        retain: bool,
    },
    /// Set Features (section 5.27).
    SetFeatures {
        /// FID.
        feature: u8,
        /// Dword 11.
        value: u32,
        /// Keep it beyond a reset.
        save: bool,
    },
    /// Get Features (section 5.15).
    GetFeatures {
        /// FID.
        feature: u8,
        /// SEL: 0 current, 1 default, 2 saved, 3 capabilities.
        select: u8,
    },
    /// Asynchronous Event Request (section 5.2).
    AsyncEvent,
    /// Keep Alive (section 5.18).
    KeepAlive,
    /// Abort (section 5.1).
    Abort,
    /// C0h to FFh.
    Vendor {
        /// OPC.
        opcode: u8,
        /// Dword 10.
        cdw10: u32,
    },
}

impl AdminCommand {
    /// Parses and checks all that can be checked without data.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        sqe.check_flags()?;
        let (cdw10, cdw11) = (sqe.dword(10), sqe.dword(11));
        let [low, high, ..] = sqe.cdw[0].to_bytes();
        Ok(match sqe.opcode {
            admin_opcode::IDENTIFY => {
                // Figure 273: the structure is 4096 bytes, whichever it is.
                if sqe.sgl.length.get() < 4096 {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                let csi = sqe.cdw[1].to_bytes()[3];
                Self::Identify {
                    cns: low,
                    nsid: sqe.nsid.get(),
                    csi,
                }
            }
            admin_opcode::GET_LOG => {
                let dwords = u64::from(cdw10 >> 16) | u64::from(cdw11 & 0xffff) << 16;
                let length = u32::try_from((dwords + 1) * 4).map_err(|_| Status::INVALID_FIELD)?;
                if sqe.sgl.length.get() < length {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                let offset = u64::from(sqe.dword(12)) | u64::from(sqe.dword(13)) << 32;
                // Figure 198: an offset in bytes is a multiple of four.
                if offset % 4 != 0 {
                    return Err(Status::INVALID_FIELD);
                }
                let (specific, retain) = (high & 0x7f, high & 0x80 != 0);
                Self::GetLog {
                    page: low,
                    specific,
                    offset,
                    length,
                    retain,
                }
            }
            admin_opcode::SET_FEATURES => Self::SetFeatures {
                feature: low,
                value: cdw11,
                save: cdw10 & SAVE != 0,
            },
            admin_opcode::GET_FEATURES => Self::GetFeatures {
                feature: low,
                select: high & 0b111,
            },
            admin_opcode::ASYNC_EVENT => Self::AsyncEvent,
            admin_opcode::KEEP_ALIVE => Self::KeepAlive,
            admin_opcode::ABORT => Self::Abort,
            opcode if opcode >= admin_opcode::VENDOR => Self::Vendor { opcode, cdw10 },
            _ => return Err(Status::INVALID_OPCODE),
        })
    }

    /// The entry that [`AdminCommand::parse`] reads back, without its SGL.
    pub fn to_sqe(self) -> Sqe {
        match self {
            Self::Identify { cns, nsid, csi } => Sqe::new(admin_opcode::IDENTIFY, nsid)
                .with(10, u32::from(cns))
                .with(11, u32::from(csi) << 24),
            Self::GetLog {
                page,
                specific,
                offset,
                length,
                retain,
            } => {
                let dwords = (length / 4).saturating_sub(1);
                let high = u32::from(specific & 0x7f) | u32::from(retain) << 7;
                let low =
                    |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
                Sqe::new(admin_opcode::GET_LOG, u32::MAX)
                    .with(10, u32::from(page) | high << 8 | (dwords & 0xffff) << 16)
                    .with(11, dwords >> 16)
                    .with(12, low(offset))
                    .with(13, low(offset >> 32))
            }
            Self::SetFeatures {
                feature,
                value,
                save,
            } => Sqe::new(admin_opcode::SET_FEATURES, 0)
                .with(10, u32::from(feature) | if save { SAVE } else { 0 })
                .with(11, value),
            Self::GetFeatures { feature, select } => Sqe::new(admin_opcode::GET_FEATURES, 0)
                .with(10, u32::from(feature) | u32::from(select & 0b111) << 8),
            Self::AsyncEvent => Sqe::new(admin_opcode::ASYNC_EVENT, 0),
            Self::KeepAlive => Sqe::new(admin_opcode::KEEP_ALIVE, 0),
            Self::Abort => Sqe::new(admin_opcode::ABORT, 0),
            Self::Vendor { opcode, cdw10 } => Sqe::new(opcode, 0).with(10, cdw10),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Sgl;
    use proptest::prelude::*;

    fn any_command() -> impl Strategy<Value = AdminCommand> {
        prop_oneof![
            (any::<u8>(), any::<u32>(), any::<u8>())
                .prop_map(|(cns, nsid, csi)| AdminCommand::Identify { cns, nsid, csi }),
            (
                any::<u8>(),
                0u8..0x80,
                any::<u32>(),
                1u32..1 << 20,
                any::<bool>()
            )
                .prop_map(|(page, specific, offset, dwords, retain)| {
                    AdminCommand::GetLog {
                        page,
                        specific,
                        offset: u64::from(offset) * 4,
                        length: dwords * 4,
                        retain,
                    }
                }),
            (any::<u8>(), any::<u32>(), any::<bool>()).prop_map(|(feature, value, save)| {
                AdminCommand::SetFeatures {
                    feature,
                    value,
                    save,
                }
            }),
            (any::<u8>(), 0u8..8)
                .prop_map(|(feature, select)| AdminCommand::GetFeatures { feature, select }),
            Just(AdminCommand::AsyncEvent),
            Just(AdminCommand::KeepAlive),
            Just(AdminCommand::Abort),
            (0xc0u8..=0xff, any::<u32>())
                .prop_map(|(opcode, cdw10)| AdminCommand::Vendor { opcode, cdw10 }),
        ]
    }

    proptest! {
        #[test]
        fn a_command_survives_its_entry(command in any_command()) {
            let mut sqe = command.to_sqe();
            sqe.sgl = Sgl::transport(1 << 22);
            prop_assert_eq!(AdminCommand::parse(&sqe), Ok(command));
        }
    }

    #[test]
    fn get_log_as_linux_sends_it_is_read_right() {
        // Page 0Ch, 4096 bytes: NUMDL 3FFh in the upper half of dword 10.
        let mut sqe = Sqe::new(0x02, u32::MAX).with(10, 0x03ff_000c);
        sqe.sgl = Sgl::transport(4096);
        let AdminCommand::GetLog {
            page,
            length,
            offset,
            ..
        } = AdminCommand::parse(&sqe).unwrap()
        else {
            panic!("not Get Log");
        };
        assert_eq!((page, length, offset), (0x0c, 4096, 0));
    }

    #[test]
    fn pcie_queue_commands_are_unknown_here() {
        for opcode in [
            0x00, 0x01, 0x04, 0x05, 0x0d, 0x10, 0x11, 0x15, 0x7c, 0x80, 0x81, 0x82,
        ] {
            assert_eq!(
                AdminCommand::parse(&Sqe::new(opcode, 0)),
                Err(Status::INVALID_OPCODE)
            );
        }
    }
}
