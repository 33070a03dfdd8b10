//! Asymmetric Namespace Access log (Base section 5.16.1.13, figures 220 and 221).

use crate::NSID;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// State of the one group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AnaState {
    /// 01h.
    Optimized = 0x01,
    /// 03h.
    Inaccessible = 0x03,
}

#[derive(FromBytes, KnownLayout, IntoBytes, Immutable, Unaligned)]
#[repr(C)]
struct Header {
    chgcnt: U64,
    groups: U16,
    reserved: [u8; 6],
}

#[derive(FromBytes, KnownLayout, IntoBytes, Immutable, Unaligned)]
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

/// State of this group by a log that any target made: one that serves I/O (optimized or not, 01h and
/// 02h) counts as optimized, every other as inaccessible. `None` if the group is not in the log.
pub fn parse_ana(log: &[u8], group: u32) -> Option<AnaState> {
    let (header, mut rest) = Header::ref_from_prefix(log).ok()?;
    for _ in 0..header.groups.get() {
        let (found, behind) = Group::ref_from_prefix(rest).ok()?;
        if found.id.get() == group {
            let serves = matches!(found.state & 0xf, 0x01 | 0x02);
            return Some(if serves {
                AnaState::Optimized
            } else {
                AnaState::Inaccessible
            });
        }
        let list = usize::try_from(found.namespaces.get())
            .ok()?
            .checked_mul(4)?;
        rest = behind.get(list..)?;
    }
    None
}

/// Bytes that such a log has at most (Base section 5.16.1.13).
pub fn ana_length(groups: u32, namespaces: u32) -> u64 {
    let (groups, namespaces) = (u64::from(groups), u64::from(namespaces));
    (size_of::<Header>() as u64) + groups * (size_of::<Group>() as u64) + namespaces * 4
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
    fn a_group_is_found_behind_others_and_not_beyond_the_end() {
        let mut log = ana(AnaState::Inaccessible, 5, false);
        assert_eq!(parse_ana(&log, 1), Some(AnaState::Inaccessible));
        assert_eq!(parse_ana(&log, 2), None);
        log[8] = 2;
        assert_eq!(parse_ana(&log, 2), None, "the second is missing");
        let mut second = ana(AnaState::Optimized, 5, false).split_off(16);
        (second[0], second[16]) = (2, 0x02);
        log.extend(second);
        assert_eq!(parse_ana(&log, 2), Some(AnaState::Optimized));
        log[20] = 0xff;
        assert_eq!(parse_ana(&log, 2), None, "a list beyond the end");
        assert_eq!(ana_length(1, 1), 52);
    }

    #[test]
    fn groups_alone_list_no_namespace() {
        let log = ana(AnaState::Inaccessible, 0, true);
        assert_eq!((log.len(), log[20], log[32]), (48, 0, 3));
    }
}
