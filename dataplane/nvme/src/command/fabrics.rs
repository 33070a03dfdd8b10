//! Fabrics commands (Fabrics section 3; Base 2.0 section 6): Connect, Disconnect, properties.

use super::{Direction, Sgl, Sqe};
use crate::command::sqe::FABRICS;
use crate::status::Status;
use crate::text::{nul_padded, read_nul_padded};
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes, Unaligned};

/// OPC of all of them.
pub const OPCODE: u8 = FABRICS;
/// FCTYPE Property Set.
pub const PROPERTY_SET: u8 = 0x00;
/// FCTYPE Connect.
pub const CONNECT: u8 = 0x01;
/// FCTYPE Property Get.
pub const PROPERTY_GET: u8 = 0x04;
/// FCTYPE Disconnect.
pub const DISCONNECT: u8 = 0x08;
/// Bytes of Connect data.
pub const CONNECT_DATA: u32 = 1024;
/// CNTLID of a Connect that leaves the choice to the controller.
pub const DYNAMIC_CONTROLLER: u16 = 0xffff;
/// CATTR bit 2: no SQ flow control.
const DISABLE_SQ_FLOW: u8 = 1 << 2;
/// Bit 16 of a refused Connect's dword 0 (IATTR): the parameter is in the data.
const IN_DATA: u32 = 1 << 16;

/// A Fabrics command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FabricsCommand {
    /// Connect (Fabrics section 3.3).
    Connect(Connect),
    /// Property Get (section 3.5).
    PropertyGet {
        /// Offset of the property.
        offset: u32,
        /// Eight bytes instead of four.
        wide: bool,
    },
    /// Property Set (section 3.6).
    PropertySet {
        /// Offset of the property.
        offset: u32,
        /// Eight bytes instead of four.
        wide: bool,
        /// New value.
        value: u64,
    },
    /// Disconnect (section 3.4): ends this I/O queue.
    Disconnect,
}

/// Connect's own fields (Fabrics figure 19).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connect {
    /// 0 for the admin queue.
    pub queue: u16,
    /// Entries, zero-based.
    pub sqsize: u16,
    /// The host wants no SQ flow control.
    pub no_flow_control: bool,
    /// Keep Alive Timeout in milliseconds.
    pub kato: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawConnect {
    opcode: u8,
    flags: u8,
    cid: U16,
    fctype: u8,
    reserved: [u8; 19],
    sgl: Sgl,
    recfmt: U16,
    qid: U16,
    sqsize: U16,
    cattr: u8,
    reserved2: u8,
    kato: U32,
    reserved3: [u8; 12],
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawProperty {
    opcode: u8,
    flags: u8,
    cid: U16,
    fctype: u8,
    reserved: [u8; 35],
    attrib: u8,
    reserved2: [u8; 3],
    offset: U32,
    value: U64,
    reserved3: [u8; 8],
}

impl FabricsCommand {
    /// Parses an entry with opcode 7Fh.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        sqe.check_flags()?;
        match sqe.fabrics_type() {
            CONNECT => Connect::parse(sqe).map(Self::Connect),
            PROPERTY_GET | PROPERTY_SET => {
                let raw: RawProperty = zerocopy::transmute!(*sqe);
                // Figure 28: attrib bits 2:0 say the size, 0 for four bytes, 1 for eight.
                let wide = match raw.attrib {
                    0 => false,
                    1 => true,
                    _ => return Err(Status::INVALID_FIELD),
                };
                let offset = raw.offset.get();
                if sqe.fabrics_type() == PROPERTY_GET {
                    return Ok(Self::PropertyGet { offset, wide });
                }
                Ok(Self::PropertySet {
                    offset,
                    wide,
                    value: raw.value.get(),
                })
            }
            DISCONNECT => match sqe.dword(10) & 0xffff {
                0 => Ok(Self::Disconnect),
                _ => Err(Status::CONNECT_INCOMPATIBLE_FORMAT),
            },
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// The entry that [`FabricsCommand::parse`] reads back.
    pub fn to_sqe(self) -> Sqe {
        let property = |fctype, offset, wide, value| {
            zerocopy::transmute!(RawProperty {
                opcode: FABRICS,
                flags: 0x40,
                cid: U16::ZERO,
                fctype,
                reserved: [0; 35],
                attrib: u8::from(wide),
                reserved2: [0; 3],
                offset: U32::new(offset),
                value: U64::new(value),
                reserved3: [0; 8],
            })
        };
        match self {
            Self::Connect(connect) => connect.to_sqe(),
            Self::PropertyGet { offset, wide } => property(PROPERTY_GET, offset, wide, 0),
            Self::PropertySet {
                offset,
                wide,
                value,
            } => property(PROPERTY_SET, offset, wide, value),
            Self::Disconnect => Sqe::new(FABRICS, u32::from(DISCONNECT)),
        }
    }
}

impl Connect {
    fn parse(sqe: &Sqe) -> Result<Self, Status> {
        let raw: RawConnect = zerocopy::transmute!(*sqe);
        if raw.recfmt.get() != 0 {
            return Err(Status::CONNECT_INCOMPATIBLE_FORMAT);
        }
        if sqe.direction() != Direction::ToController || raw.sgl.length.get() != CONNECT_DATA {
            return Err(Status::DATA_SGL_LENGTH_INVALID);
        }
        Ok(Self {
            queue: raw.qid.get(),
            sqsize: raw.sqsize.get(),
            no_flow_control: raw.cattr & DISABLE_SQ_FLOW != 0,
            kato: raw.kato.get(),
        })
    }

    fn to_sqe(self) -> Sqe {
        zerocopy::transmute!(RawConnect {
            opcode: FABRICS,
            flags: 0x40,
            cid: U16::ZERO,
            fctype: CONNECT,
            reserved: [0; 19],
            sgl: Sgl::none(),
            recfmt: U16::ZERO,
            qid: U16::new(self.queue),
            sqsize: U16::new(self.sqsize),
            cattr: if self.no_flow_control {
                DISABLE_SQ_FLOW
            } else {
                0
            },
            reserved2: 0,
            kato: U32::new(self.kato),
            reserved3: [0; 12],
        })
    }
}

/// What a refused Connect points at (Fabrics figure 22): dword 0 of its completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadParameter {
    /// QID, byte 42 of the command.
    Queue,
    /// SQSIZE, byte 44 of the command.
    SqSize,
    /// HOSTID, byte 0 of the data.
    HostId,
    /// CNTLID, byte 16 of the data.
    Controller,
    /// SUBNQN, byte 256 of the data.
    Subsystem,
    /// HOSTNQN, byte 512 of the data.
    Host,
}

impl BadParameter {
    /// Dword 0.
    pub fn result(self) -> u64 {
        u64::from(match self {
            Self::Queue => 42,
            Self::SqSize => 44,
            Self::HostId => IN_DATA,
            Self::Controller => IN_DATA | 16,
            Self::Subsystem => IN_DATA | 256,
            Self::Host => IN_DATA | 512,
        })
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawConnectData {
    hostid: [u8; 16],
    cntlid: U16,
    reserved: [u8; 238],
    subnqn: [u8; 256],
    hostnqn: [u8; 256],
    reserved2: [u8; 256],
}

/// Data of Connect (Fabrics figure 20).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectData {
    /// HOSTID.
    pub host_id: Uuid,
    /// CNTLID: [`DYNAMIC_CONTROLLER`], or for an I/O queue the one that the admin queue got.
    pub controller: u16,
    /// SUBNQN.
    pub subsystem: String,
    /// HOSTNQN.
    pub host: String,
}

impl ConnectData {
    /// Longest NQN (Base section 4.5).
    const MAX_NQN: usize = 223;

    /// Parses 1024 bytes.
    pub fn parse(data: &[u8]) -> Result<Self, BadParameter> {
        let raw = RawConnectData::try_ref_from_bytes(data).map_err(|_| BadParameter::HostId)?;
        let name = |field, wrong| {
            read_nul_padded(field)
                .filter(|name| !name.is_empty() && name.len() <= Self::MAX_NQN)
                .map(str::to_owned)
                .ok_or(wrong)
        };
        Ok(Self {
            host_id: Uuid::from_bytes(raw.hostid),
            controller: raw.cntlid.get(),
            subsystem: name(&raw.subnqn, BadParameter::Subsystem)?,
            host: name(&raw.hostnqn, BadParameter::Host)?,
        })
    }

    /// 1024 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let raw = RawConnectData {
            hostid: self.host_id.into_bytes(),
            cntlid: U16::new(self.controller),
            reserved: [0; 238],
            subnqn: nul_padded(&self.subsystem),
            hostnqn: nul_padded(&self.host),
            reserved2: [0; 256],
        };
        raw.as_bytes().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn connect() -> impl Strategy<Value = Connect> {
        (any::<u16>(), any::<u16>(), any::<bool>(), any::<u32>()).prop_map(
            |(queue, sqsize, no_flow_control, kato)| Connect {
                queue,
                sqsize,
                no_flow_control,
                kato,
            },
        )
    }

    proptest! {
        #[test]
        fn connect_survives_its_entry(connect in connect()) {
            let mut sqe = FabricsCommand::Connect(connect).to_sqe();
            sqe.sgl = Sgl::in_capsule(CONNECT_DATA);
            prop_assert_eq!(FabricsCommand::parse(&sqe), Ok(FabricsCommand::Connect(connect)));
        }

        #[test]
        fn properties_survive_their_entries(offset: u32, wide: bool, value: u64) {
            for command in [
                FabricsCommand::PropertyGet { offset, wide },
                FabricsCommand::PropertySet { offset, wide, value },
            ] {
                prop_assert_eq!(FabricsCommand::parse(&command.to_sqe()), Ok(command));
            }
        }

        #[test]
        fn connect_data_survive(id: u128, controller: u16, subsystem in "[a-z:.0-9]{1,223}", host in "[a-z:.0-9]{1,223}") {
            let data = ConnectData { host_id: Uuid::from_u128(id), controller, subsystem, host };
            prop_assert_eq!(ConnectData::parse(&data.to_bytes()), Ok(data));
        }
    }

    #[test]
    fn connect_data_lie_where_figure_20_says() {
        let data = ConnectData {
            host_id: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            controller: 0xffff,
            subsystem: "nqn.s".into(),
            host: "nqn.h".into(),
        };
        let bytes = data.to_bytes();
        assert_eq!((bytes.len(), bytes[0], bytes[15]), (1024, 1, 16));
        assert_eq!(bytes[16..18], [0xff, 0xff]);
        assert_eq!(&bytes[256..262], b"nqn.s\0");
        assert_eq!(&bytes[512..518], b"nqn.h\0");
    }

    #[test]
    fn a_name_without_an_end_points_at_its_field() {
        let mut bytes = vec![b'x'; 1024];
        assert_eq!(ConnectData::parse(&bytes), Err(BadParameter::Subsystem));
        bytes[300] = 0;
        assert_eq!(ConnectData::parse(&bytes), Err(BadParameter::Host));
        assert_eq!(BadParameter::Subsystem.result(), 0x1_0100);
    }
}
