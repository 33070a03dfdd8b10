//! Log pages (Base section 5.16.1).

mod ana;
mod discovery;
mod effects;
mod plain;

pub use ana::{AnaState, ana, ana_length, parse_ana};
pub use discovery::{
    DiscoveryRecord, discovery, discovery_generation, discovery_length, parse_discovery,
};

use crate::NSID;

use crate::status::Status;

/// Error Information.
pub const ERROR: u8 = 0x01;
/// SMART / Health Information.
pub const HEALTH: u8 = 0x02;
/// Firmware Slot Information.
pub const FIRMWARE: u8 = 0x03;
/// Changed Namespace List.
pub const CHANGED_NAMESPACES: u8 = 0x04;
/// Commands Supported and Effects.
pub const EFFECTS: u8 = 0x05;
/// Asymmetric Namespace Access.
pub const ANA: u8 = 0x0c;
/// Discovery (Fabrics section 5.3): of discovery controllers alone.
pub const DISCOVERY: u8 = 0x70;

/// What pages tell that changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Facts {
    /// State of the one group.
    pub ana: AnaState,
    /// How often that has changed.
    pub ana_changes: u64,
    /// The namespace changed since this controller last told.
    pub namespace_changed: bool,
}

/// The whole of a page.
pub fn page(page: u8, specific: u8, facts: Facts) -> Result<Vec<u8>, Status> {
    Ok(match page {
        ERROR => plain::error(),
        HEALTH => plain::health(),
        FIRMWARE => plain::firmware(),
        CHANGED_NAMESPACES => plain::changed_namespaces(facts.namespace_changed.then_some(NSID)),
        EFFECTS => effects::effects(),
        // LSP bit 0: groups without their namespaces (figure 222).
        ANA => ana(facts.ana, facts.ana_changes, specific & 1 != 0),
        _ => return Err(Status::INVALID_LOG_PAGE),
    })
}

/// The part of a page that was asked for, zeros beyond its end; an offset beyond it is refused
/// (section 5.16).
pub fn part(page: &[u8], offset: u64, length: u32) -> Result<Vec<u8>, Status> {
    let from = usize::try_from(offset)
        .ok()
        .and_then(|offset| page.get(offset..));
    let mut part = from.ok_or(Status::INVALID_FIELD)?.to_vec();
    part.resize(
        usize::try_from(length).map_err(|_| Status::INVALID_FIELD)?,
        0,
    );
    Ok(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_out_and_padded() {
        assert_eq!(part(&[1, 2, 3, 4, 5, 6, 7, 8], 4, 4), Ok(vec![5, 6, 7, 8]));
        assert_eq!(part(&[1, 2, 3, 4], 0, 8), Ok(vec![1, 2, 3, 4, 0, 0, 0, 0]));
        assert_eq!(part(&[1, 2, 3, 4], 8, 4), Err(Status::INVALID_FIELD));
    }

    const FACTS: Facts = Facts {
        ana: AnaState::Optimized,
        ana_changes: 0,
        namespace_changed: true,
    };

    #[test]
    fn a_changed_namespace_is_listed() {
        let list = page(CHANGED_NAMESPACES, 0, FACTS).unwrap();
        assert_eq!(list[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn pages_have_the_sizes_that_hosts_read() {
        for (id, size) in [
            (ERROR, 64),
            (HEALTH, 512),
            (FIRMWARE, 512),
            (CHANGED_NAMESPACES, 4096),
            (EFFECTS, 4096),
        ] {
            assert_eq!(page(id, 0, FACTS).unwrap().len(), size);
        }
        assert_eq!(page(0x70, 0, FACTS), Err(Status::INVALID_LOG_PAGE));
    }
}
