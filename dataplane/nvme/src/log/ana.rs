//! Asymmetric Namespace Access log (Base section 5.16.1.13, figures 220 and 221).

use crate::NSID;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes, Unaligned};

/// State of the one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnaState {
    /// 01h.
    Optimized = 0x01,
    /// 03h.
    Inaccessible = 0x03,
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    chgcnt: U64,
    groups: U16,
    reserved: [u8; 6],
}

#[derive(IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Group {
    id: U32,
    namespaces: U32,
    chgcnt: U64,
    state: u8,
    reserved: [u8; 15],
}

/// One group with the one namespace, changed so many times.
pub fn ana(state: AnaState, changes: u64, groups_only: bool) -> Vec<u8> {
    let header = Header {
        chgcnt: U64::new(changes),
        groups: U16::new(1),
        reserved: [0; 6],
    };
    let group = Group {
        id: U32::new(1),
        namespaces: U32::new(u32::from(!groups_only)),
        chgcnt: U64::new(changes),
        state: state as u8,
        reserved: [0; 15],
    };
    let mut log = header.as_bytes().to_vec();
    log.extend_from_slice(group.as_bytes());
    if !groups_only {
        log.extend_from_slice(&NSID.to_le_bytes());
    }
    log
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_1_is_optimized_and_lists_the_namespace() {
        let log = ana(AnaState::Optimized, 5, false);
        assert_eq!(log.len(), 16 + 32 + 4);
        assert_eq!(log[..16], [5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(log[16..24], [1, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(log[32], 1);
        assert_eq!(log[48..], [1, 0, 0, 0]);
    }

    #[test]
    fn groups_alone_list_no_namespace() {
        let log = ana(AnaState::Inaccessible, 0, true);
        assert_eq!((log.len(), log[20], log[32]), (48, 0, 3));
    }
}
