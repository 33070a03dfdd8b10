//! Log pages (Base section 5.16.1).

mod ana;
mod effects;
mod plain;

pub use ana::{AnaState, ana};

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

/// The whole of a page.
pub fn page(page: u8, specific: u8) -> Result<Vec<u8>, Status> {
    Ok(match page {
        ERROR => plain::error(),
        HEALTH => plain::health(),
        FIRMWARE => plain::firmware(),
        CHANGED_NAMESPACES => plain::changed_namespaces(),
        EFFECTS => effects::effects(),
        // LSP bit 0: groups without their namespaces (figure 222).
        ANA => ana(AnaState::Optimized, 0, specific & 1 != 0),
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

    #[test]
    fn pages_have_the_sizes_that_hosts_read() {
        for (id, size) in [
            (ERROR, 64),
            (HEALTH, 512),
            (FIRMWARE, 512),
            (CHANGED_NAMESPACES, 4096),
            (EFFECTS, 4096),
        ] {
            assert_eq!(page(id, 0).unwrap().len(), size);
        }
        assert_eq!(page(0x70, 0), Err(Status::INVALID_LOG_PAGE));
    }
}
