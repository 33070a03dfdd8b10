//! Features (Base section 5.27.1): those that mean something here.

/// Arbitration.
pub const ARBITRATION: u8 = 0x01;
/// Power Management.
pub const POWER: u8 = 0x02;
/// Temperature Threshold.
pub const TEMPERATURE: u8 = 0x04;
/// Error Recovery.
pub const ERROR_RECOVERY: u8 = 0x05;
/// Volatile Write Cache.
pub const WRITE_CACHE: u8 = 0x06;
/// Number of Queues.
pub const QUEUES: u8 = 0x07;
/// Write Atomicity Normal.
pub const WRITE_ATOMICITY: u8 = 0x0a;
/// Asynchronous Event Configuration.
pub const ASYNC_EVENTS: u8 = 0x0b;
/// Keep Alive Timer.
pub const KEEP_ALIVE: u8 = 0x0f;

/// Bit of Namespace Attribute Notices in OAES and in the value of [`ASYNC_EVENTS`].
pub const NAMESPACE_NOTICE: u32 = 1 << 8;
/// Bit of ANA Change Notices.
pub const ANA_NOTICE: u32 = 1 << 11;
/// Bit of Discovery Log Page Change Notices.
pub const DISCOVERY_NOTICE: u32 = 1 << 31;
/// What an I/O controller tells.
pub const EVENTS: u32 = NAMESPACE_NOTICE | ANA_NOTICE;

/// Result of Set Features Number of Queues: as many as asked for, at most `limit`, both kinds
/// zero-based. `None` if the request is FFFFh, which is illegal (section 5.27.1.5).
pub fn grant_queues(asked: u32, limit: u16) -> Option<(u16, u32)> {
    let (submission, completion) = (asked & 0xffff, asked >> 16);
    if submission == 0xffff || completion == 0xffff {
        return None;
    }
    let granted = submission.min(completion).min(u32::from(limit.max(1)) - 1);
    let count = u16::try_from(granted + 1).ok()?;
    Some((count, granted | granted << 16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_are_granted_zero_based_in_both_halves() {
        assert_eq!(grant_queues(0x0003_0003, 16), Some((4, 0x0003_0003)));
        assert_eq!(grant_queues(0x003f_003f, 16), Some((16, 0x000f_000f)));
        assert_eq!(grant_queues(0, 16), Some((1, 0)));
        assert_eq!(grant_queues(0xffff_ffff, 16), None);
    }
}
