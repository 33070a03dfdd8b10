//! Identify Namespace, NVM command set (NVM figure 97).

use super::Shape;
use crate::BLOCK_SHIFT;
use uuid::Uuid;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

/// NMIC bit 0: may be attached to several controllers at a time.
const SHARED: u8 = 1;
/// NSATTR bit 0: write protected.
const WRITE_PROTECTED: u8 = 1;
/// LBADS in bits 23:16 of an LBA format.
const LBADS: u32 = BLOCK_SHIFT << 16;

/// 4096 bytes. Only fields with a meaning here have a name of their own.
///
/// DLFEAT stays 0: that a discarded block reads as zeros is not promised. NSFEAT and the atomic
/// units stay 0: a block of 4 KiB is what stays untorn, and it is the logical block.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size in blocks.
    pub nsze: U64,
    /// Capacity in blocks: 0 would mean that it is not attached.
    pub ncap: U64,
    /// Utilization in blocks.
    pub nuse: U64,
    nsfeat: u8,
    /// Number of LBA formats, zero-based.
    pub nlbaf: u8,
    /// The LBA format in use.
    pub flbas: u8,
    reserved_27: [u8; 3],
    /// Sharing.
    pub nmic: u8,
    reserved_31: [u8; 61],
    /// ANA group.
    pub anagrpid: U32,
    reserved_96: [u8; 3],
    /// Attributes.
    pub nsattr: u8,
    nvmsetid: U16,
    endgid: U16,
    /// NGUID.
    pub nguid: [u8; 16],
    /// EUI64: none.
    pub eui64: [u8; 8],
    /// LBA formats.
    pub lbaf: [U32; 16],
    reserved_192: [u8; 3904],
}

impl IdentifyNamespace {
    /// What ours says.
    pub fn new(shape: &Shape) -> Self {
        let blocks = U64::new(shape.blocks);
        let mut lbaf = [U32::ZERO; 16];
        lbaf[0] = U32::new(LBADS);
        Self {
            nsze: blocks,
            ncap: blocks,
            nuse: blocks,
            nmic: SHARED,
            anagrpid: U32::new(1),
            nsattr: if shape.read_only { WRITE_PROTECTED } else { 0 },
            nguid: shape.uuid.into_bytes(),
            lbaf,
            ..Self::new_zeroed()
        }
    }

    /// Bytes of a logical block in use, if it has no metadata.
    pub fn block(&self) -> Option<u64> {
        let format = self.lbaf.get(usize::from(self.flbas & 0xf))?.get();
        let [low, high, shift, _] = format.to_le_bytes();
        (low == 0 && high == 0)
            .then(|| 1u64.checked_shl(u32::from(shift)))
            .flatten()
    }

    /// NGUID as a UUID.
    pub fn uuid(&self) -> Uuid {
        Uuid::from_bytes(self.nguid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(read_only: bool) -> Vec<u8> {
        let shape = Shape {
            kind: crate::identify::ControllerType::Io,
            subsystem: "nqn.x".into(),
            serial: "1".into(),
            controller: 1,
            uuid: Uuid::from_u128(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10),
            blocks: 0x0001_0203,
            read_only,
            queue_size: 128,
        };
        IdentifyNamespace::new(&shape).as_bytes().to_vec()
    }

    #[test]
    fn size_capacity_and_utilization_are_the_blocks() {
        assert_eq!(bytes(false).len(), 4096);
        for at in [0, 8, 16] {
            assert_eq!(bytes(false)[at..at + 8], 0x0001_0203u64.to_le_bytes());
        }
    }

    #[test]
    fn the_one_format_has_4096_bytes_and_no_metadata() {
        assert_eq!((bytes(false)[25], bytes(false)[26]), (0, 0));
        assert_eq!(bytes(false)[128..132], [0, 0, 12, 0]);
        assert_eq!(
            IdentifyNamespace::read_from_bytes(&bytes(false))
                .unwrap()
                .block(),
            Some(4096)
        );
    }

    #[test]
    fn it_is_shared_and_in_ana_group_1() {
        assert_eq!(bytes(false)[30], 1);
        assert_eq!(bytes(false)[92..96], [1, 0, 0, 0]);
    }

    #[test]
    fn read_only_is_told() {
        assert_eq!((bytes(false)[99], bytes(true)[99]), (0, 1));
    }

    #[test]
    fn the_nguid_is_the_uuid_in_its_byte_order() {
        assert_eq!(bytes(false)[104..106], [1, 2]);
        assert_eq!(bytes(false)[119], 0x10);
        assert_eq!(bytes(false)[120..128], [0; 8], "no EUI64");
    }

    #[test]
    fn zeroes_after_deallocation_are_not_promised() {
        assert_eq!(bytes(false)[33], 0);
    }
}
