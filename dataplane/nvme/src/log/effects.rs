//! Commands Supported and Effects log (Base section 5.16.1.6, figures 212 to 214).

use crate::command::{admin_opcode, io_opcode};

/// CSUPP.
const SUPPORTED: u8 = 1;
/// LBCC: changes the contents of blocks.
const CHANGES_BLOCKS: u8 = 1 << 1;
/// Where the entries of I/O commands begin.
const IO: usize = 1024;

/// What is served, and what it does.
pub(super) fn effects() -> Vec<u8> {
    let mut log = vec![0; 4096];
    let mut set = |base: usize, opcode: u8, effects: u8| {
        if let Some(entry) = log.get_mut(base + usize::from(opcode) * 4) {
            *entry = effects;
        }
    };
    for opcode in [
        admin_opcode::GET_LOG,
        admin_opcode::IDENTIFY,
        admin_opcode::ABORT,
        admin_opcode::SET_FEATURES,
        admin_opcode::GET_FEATURES,
        admin_opcode::ASYNC_EVENT,
        admin_opcode::KEEP_ALIVE,
    ] {
        set(0, opcode, SUPPORTED);
    }
    for opcode in [io_opcode::FLUSH, io_opcode::READ] {
        set(IO, opcode, SUPPORTED);
    }
    for opcode in [
        io_opcode::WRITE,
        io_opcode::WRITE_ZEROES,
        io_opcode::DATASET_MANAGEMENT,
    ] {
        set(IO, opcode, SUPPORTED | CHANGES_BLOCKS);
    }
    log
}

#[cfg(test)]
mod tests {
    #[test]
    fn writes_change_blocks_and_compare_is_not_supported() {
        let log = super::effects();
        assert_eq!(log[1024 + 4], 0b11, "Write");
        assert_eq!(log[1024 + 8], 0b01, "Read");
        assert_eq!(log[1024 + 5 * 4], 0, "Compare");
        assert_eq!(log[6 * 4], 1, "Identify");
    }
}
