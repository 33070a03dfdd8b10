//! Identify Controller (Base figure 275).

use super::{ControllerType, Shape};
use crate::text::{nul_padded, read_nul_padded, space_padded};
use crate::{IN_CAPSULE, MDTS, NSID, feature, property};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// MN.
const MODEL: &str = "Weft";
/// FR: the format of what is exported, not the version of the program, since all controllers of
/// one subsystem must say the same while two versions serve it in turn.
const FIRMWARE: &str = "1";
/// CMIC bits 1 and 3: the subsystem may have several controllers, and reports ANA. Linux takes
/// path errors as a reason to wait only with both.
const CMIC: u8 = 0b1010;
/// KAS: granularity of the keep-alive, in 100 ms. 0 makes hosts leave.
const KAS: u16 = 10;
/// ANACAP bits 0 and 2: the states that are reported, optimized and inaccessible.
const ANACAP: u8 = 0b0101;
/// ANATT: seconds that a transition takes at most.
const ANATT: u8 = 10;
/// LPA bits 1 and 2: the effects log exists, and logs can be read in parts.
const LPA: u8 = 0b110;
/// ONCS bits 2 and 3: Dataset Management and Write Zeroes.
const ONCS: u16 = 0b1100;
/// SGLS: supported without alignment (01b), and as offset in the capsule (bit 20).
const SGLS: u32 = 0x0010_0001;
/// SQES and CQES: 2^6 and 2^4 bytes, minimum and maximum.
const SQES: u8 = 0x66;
const CQES: u8 = 0x44;
/// A submission queue entry, in units of 16 bytes.
const ENTRY: u32 = 4;

/// 4096 bytes. Only fields with a meaning here have a name of their own.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor: none.
    pub vid: U16,
    ssvid: U16,
    /// Serial number.
    pub sn: [u8; 20],
    /// Model number.
    pub mn: [u8; 40],
    /// Firmware revision.
    pub fr: [u8; 8],
    rab: u8,
    ieee: [u8; 3],
    /// Multi-path capabilities.
    pub cmic: u8,
    /// Maximum data transfer size.
    pub mdts: u8,
    /// Controller identifier.
    pub cntlid: U16,
    /// Version.
    pub ver: U32,
    rtd3r: U32,
    rtd3e: U32,
    /// Optional asynchronous events.
    pub oaes: U32,
    /// Controller attributes.
    pub ctratt: U32,
    reserved_100: [u8; 11],
    /// Controller type.
    pub cntrltype: u8,
    reserved_112: [u8; 144],
    /// Optional admin commands.
    pub oacs: U16,
    /// Abort command limit, zero-based.
    pub acl: u8,
    /// Asynchronous event request limit, zero-based.
    pub aerl: u8,
    /// Firmware updates.
    pub frmw: u8,
    /// Log page attributes.
    pub lpa: u8,
    /// Error log page entries, zero-based.
    pub elpe: u8,
    npss: u8,
    avscc: u8,
    apsta: u8,
    wctemp: U16,
    cctemp: U16,
    reserved_270: [u8; 50],
    /// Keep-alive granularity.
    pub kas: U16,
    reserved_322: [u8; 20],
    /// ANA transition time.
    pub anatt: u8,
    /// ANA capabilities.
    pub anacap: u8,
    /// Greatest ANA group identifier.
    pub anagrpmax: U32,
    /// Number of ANA group identifiers.
    pub nanagrpid: U32,
    reserved_352: [u8; 160],
    /// Submission queue entry sizes.
    pub sqes: u8,
    /// Completion queue entry sizes.
    pub cqes: u8,
    /// Most outstanding commands of a queue.
    pub maxcmd: U16,
    /// Number of namespaces.
    pub nn: U32,
    /// Optional NVM commands.
    pub oncs: U16,
    fuses: U16,
    fna: u8,
    /// Volatile write cache.
    pub vwc: u8,
    awun: U16,
    awupf: U16,
    reserved_530: [u8; 6],
    /// SGL support.
    pub sgls: U32,
    /// Maximum number of allowed namespaces.
    pub mnan: U32,
    reserved_544: [u8; 224],
    /// Subsystem NQN.
    pub subnqn: [u8; 256],
    reserved_1024: [u8; 768],
    /// I/O queue command capsule size, in 16 bytes.
    pub ioccsz: U32,
    /// I/O queue response capsule size, in 16 bytes.
    pub iorcsz: U32,
    /// In-capsule data offset.
    pub icdoff: U16,
    /// Fabrics controller attributes.
    pub fcatt: u8,
    /// Most SGL descriptors.
    pub msdbd: u8,
    /// Optional Fabrics commands: bit 0 Disconnect.
    pub ofcs: U16,
    reserved_1806: [u8; 2290],
}

impl IdentifyController {
    /// What ours says.
    pub fn new(shape: &Shape) -> Self {
        match shape.kind {
            ControllerType::Io => Self::io(shape),
            ControllerType::Discovery => Self::discovery(shape),
        }
    }

    /// Fabrics section 5.4: no namespaces, no I/O queues, and so nothing about them.
    fn discovery(shape: &Shape) -> Self {
        Self {
            mn: space_padded(MODEL),
            sn: space_padded(&shape.serial),
            fr: space_padded(FIRMWARE),
            mdts: MDTS,
            cntlid: U16::new(shape.controller),
            ver: U32::new(property::VERSION),
            oaes: U32::new(feature::DISCOVERY_NOTICE),
            cntrltype: ControllerType::Discovery as u8,
            aerl: 3,
            // Bit 2: the log can be read in parts.
            lpa: 0b100,
            kas: U16::new(KAS),
            maxcmd: U16::new(shape.queue_size),
            sgls: U32::new(SGLS),
            subnqn: nul_padded(&shape.subsystem),
            ..Self::new_zeroed()
        }
    }

    fn io(shape: &Shape) -> Self {
        Self {
            sn: space_padded(&shape.serial),
            mn: space_padded(MODEL),
            fr: space_padded(FIRMWARE),
            cmic: CMIC,
            mdts: MDTS,
            cntlid: U16::new(shape.controller),
            ver: U32::new(property::VERSION),
            oaes: U32::new(feature::EVENTS),
            cntrltype: ControllerType::Io as u8,
            acl: 3,
            aerl: 3,
            // Figure 275: slot 1 alone, read-only.
            frmw: 0b11,
            lpa: LPA,
            kas: U16::new(KAS),
            anatt: ANATT,
            anacap: ANACAP,
            anagrpmax: U32::new(1),
            nanagrpid: U32::new(1),
            sqes: SQES,
            cqes: CQES,
            maxcmd: U16::new(shape.queue_size),
            nn: U32::new(NSID),
            oncs: U16::new(ONCS),
            // A cache is present, and Flush with all namespaces named is supported (bits 2:1 11b).
            vwc: 0b111,
            sgls: U32::new(SGLS),
            mnan: U32::new(NSID),
            subnqn: nul_padded(&shape.subsystem),
            ioccsz: U32::new(ENTRY + IN_CAPSULE / 16),
            iorcsz: U32::new(1),
            msdbd: 1,
            ofcs: U16::new(1),
            ..Self::new_zeroed()
        }
    }

    /// SUBNQN, if it is a name.
    pub fn subsystem(&self) -> Option<&str> {
        read_nul_padded(&self.subnqn).filter(|name| !name.is_empty())
    }

    /// Most bytes that one command may move; 0 in MDTS means no limit.
    pub fn max_transfer(&self) -> Option<u64> {
        (self.mdts != 0).then(|| {
            4096u64
                .checked_shl(u32::from(self.mdts))
                .unwrap_or(u64::MAX)
        })
    }

    /// Data that a capsule of an I/O queue may carry.
    pub fn in_capsule(&self) -> u32 {
        self.ioccsz.get().saturating_sub(ENTRY).saturating_mul(16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn bytes() -> Vec<u8> {
        let shape = Shape {
            kind: ControllerType::Io,
            subsystem: "nqn.2026-11.storage.weft:volume:1".into(),
            serial: "0123456789abcdef0123".into(),
            controller: 0x1231,
            uuid: Uuid::from_u128(7),
            blocks: 256,
            read_only: false,
            queue_size: 128,
        };
        IdentifyController::new(&shape).as_bytes().to_vec()
    }

    fn word(at: usize) -> u16 {
        u16::from_le_bytes(bytes()[at..at + 2].try_into().unwrap())
    }

    fn dword(at: usize) -> u32 {
        u32::from_le_bytes(bytes()[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn it_is_4096_bytes() {
        assert_eq!(bytes().len(), 4096);
    }

    #[test]
    fn the_controller_identifier_is_that_of_connect() {
        assert_eq!(word(78), 0x1231);
    }

    #[test]
    fn several_controllers_and_ana_are_announced() {
        assert_eq!(bytes()[76], 0x0a);
    }

    #[test]
    fn the_subsystem_name_is_nul_padded() {
        assert_eq!(&bytes()[768..802], b"nqn.2026-11.storage.weft:volume:1\0");
        assert!(bytes()[802..1024].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn serial_model_and_firmware_are_space_padded() {
        assert_eq!(&bytes()[4..24], b"0123456789abcdef0123");
        assert_eq!(&bytes()[24..64], format!("{:<40}", "Weft").as_bytes());
        assert_eq!(&bytes()[64..72], b"1       ");
    }

    #[test]
    fn transfers_are_bounded_to_1_mib() {
        assert_eq!(bytes()[77], 8);
    }

    #[test]
    fn the_keep_alive_has_a_granularity() {
        assert!((1..=10).contains(&word(320)));
    }

    #[test]
    fn neither_traffic_based_keep_alive_nor_endurance_groups_are_announced() {
        assert_eq!(dword(96), 0);
    }

    #[test]
    fn namespace_and_ana_events_are_announced() {
        assert_eq!(dword(92), 0x0900);
    }

    #[test]
    fn limits_of_abort_and_events_are_four() {
        assert_eq!(bytes()[258..260], [3, 3]);
    }

    #[test]
    fn the_effects_log_is_announced() {
        assert_eq!(bytes()[261] & 0b10, 0b10);
    }

    #[test]
    fn entry_sizes_are_64_and_16_bytes() {
        assert_eq!(bytes()[512..514], [0x66, 0x44]);
    }

    #[test]
    fn outstanding_commands_fill_a_queue() {
        assert_eq!(word(514), 128);
    }

    #[test]
    fn the_number_of_namespaces_and_the_allowed_number_agree() {
        assert_eq!((dword(516), dword(540)), (1, 1));
    }

    #[test]
    fn dataset_management_and_write_zeroes_are_announced_and_no_timestamp() {
        assert_eq!(word(520), 0x0c);
    }

    #[test]
    fn a_write_cache_is_announced() {
        assert_eq!(bytes()[525] & 1, 1);
    }

    #[test]
    fn sgls_are_supported_with_an_offset_in_the_capsule() {
        assert_ne!(dword(536) & 0b11, 0);
        assert_ne!(dword(536) & 1 << 20, 0);
    }

    #[test]
    fn capsules_carry_8_kib_from_offset_0() {
        assert_eq!((dword(1792), dword(1796), word(1800)), (516, 1, 0));
        assert_eq!(
            IdentifyController::read_from_bytes(&bytes())
                .unwrap()
                .in_capsule(),
            8192
        );
    }

    #[test]
    fn it_is_an_io_controller() {
        assert_eq!(bytes()[111], 1);
    }

    #[test]
    fn the_ana_log_fits_in_a_transfer_and_its_group_is_allowed() {
        let (groups, greatest) = (dword(348), dword(344));
        assert!(16 + groups * 32 + dword(540) * 4 <= 4096 << 8);
        assert!(groups >= 1 && greatest >= 1);
        assert_eq!(bytes()[342], 10, "ANATT");
        assert_eq!(bytes()[343] & 1, 1, "optimized is reported");
    }

    #[test]
    fn nothing_optional_that_is_not_served_is_announced() {
        assert_eq!(word(256), 0, "OACS");
        assert_eq!(bytes()[128..134], [0; 6], "CRDT");
        assert_eq!(word(522), 0, "FUSES");
        assert_eq!(word(528), 0, "AWUPF");
        assert_eq!(bytes()[1806], 0, "DCTYPE");
    }

    #[test]
    fn one_descriptor_and_disconnect_are_supported() {
        assert_eq!((bytes()[1803], word(1804)), (1, 1));
    }
}
