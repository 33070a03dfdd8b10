//! What an engine says of a change in the dwords that NVM commands leave to it
//! (`docs/protocol.md`, I/O of a slice).
//!
//! | dwords | of Write, Write Zeroes, Dataset Management, Flush |
//! | --- | --- |
//! | 2, 3 | config |
//! | 13 | number less checkpoint; FFFFFFFFh: no checkpoint |
//! | 14, 15 | number |
//!
//! They carry tags of protection information and hints otherwise (NVM section 3.2.6), of which a
//! slice has none.

use super::Sqe;
use zerocopy::little_endian::U32;

/// The distance that says: no checkpoint.
const NONE: u32 = u32::MAX;

/// See the module. All zero: nothing is said.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stamp {
    /// Number of an in-sync set.
    pub config: u64,
    /// Of the change, within one (term, boot).
    pub number: u64,
    /// Every change up to this number is equal everywhere and flushed. Never above `number`.
    pub checkpoint: u64,
}

impl Stamp {
    /// Of a command.
    pub fn of(sqe: &Sqe) -> Self {
        let number = join(sqe.dword(14), sqe.dword(15));
        let checkpoint = match sqe.dword(13) {
            NONE => 0,
            distance => number.saturating_sub(u64::from(distance)),
        };
        Self {
            config: join(sqe.cdw2[0].get(), sqe.cdw2[1].get()),
            number,
            checkpoint,
        }
    }

    /// Puts it on a command. A checkpoint too far behind the number, or before it, is not said:
    /// that is always allowed.
    #[must_use]
    pub fn on(self, mut sqe: Sqe) -> Sqe {
        let distance = self.number.checked_sub(self.checkpoint);
        let distance = distance.filter(|_| self.checkpoint != 0);
        let distance = match distance.map(u32::try_from) {
            Some(Ok(distance)) => distance,
            Some(Err(_)) => NONE,
            None if self.number == 0 => 0,
            None => NONE,
        };
        let [low, high] = split(self.config);
        sqe.cdw2 = [U32::new(low), U32::new(high)];
        let [low, high] = split(self.number);
        sqe.with(13, distance).with(14, low).with(15, high)
    }
}

fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn split(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    [
        u32::from_le_bytes([a, b, c, d]),
        u32::from_le_bytes([e, f, g, h]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{BlockRange, IoCommand};
    use proptest::prelude::*;

    fn write() -> Sqe {
        let range = BlockRange { start: 5, count: 2 };
        IoCommand::Write { range, fua: true }.to_sqe()
    }

    proptest! {
        #[test]
        fn a_stamp_survives_its_command_and_changes_nothing_else(
            config: u64, number: u64, behind in 0u64..u64::from(u32::MAX),
        ) {
            let checkpoint = number.saturating_sub(behind);
            let stamp = Stamp { config, number, checkpoint };
            let sqe = stamp.on(write());
            prop_assert_eq!(Stamp::of(&sqe), stamp);
            prop_assert_eq!([10, 11, 12].map(|n| sqe.dword(n)), [10, 11, 12].map(|n| write().dword(n)));
        }

        #[test]
        fn no_dwords_make_a_checkpoint_that_was_not_said(config: u64, number: u64, checkpoint: u64) {
            let read = Stamp::of(&Stamp { config, number, checkpoint }.on(write()));
            prop_assert!(read.checkpoint == 0 || read.checkpoint == checkpoint);
            prop_assert!(read.checkpoint <= read.number);
        }
    }

    #[test]
    fn a_command_that_says_nothing_is_as_any_host_sends_it() {
        assert_eq!(Stamp::default().on(write()), write());
        assert_eq!(Stamp::of(&write()), Stamp::default());
    }
}
