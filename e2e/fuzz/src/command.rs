//! Submission queue entries, and the data that commands carry.

use weft_nvme::command::fabrics::{ConnectData, FabricsCommand};
use weft_nvme::command::{AdminCommand, IoCommand, Sqe, encode_ranges, parse_ranges};
use zerocopy::FromBytes;

/// A typed command goes back into an entry that says the same.
pub(crate) fn entry(data: &[u8]) {
    let Ok((sqe, _)) = Sqe::read_from_prefix(data) else {
        return;
    };
    // The connection fills the SGL in, not the command.
    let again = |typed: Sqe| Sqe {
        sgl: sqe.sgl,
        ..typed
    };
    let _direction = sqe.direction();
    let _kind = sqe.sgl.parse();
    if let Ok(command) = IoCommand::parse(&sqe) {
        assert_eq!(IoCommand::parse(&again(command.to_sqe())), Ok(command));
    }
    if let Ok(command) = AdminCommand::parse(&sqe) {
        assert_eq!(AdminCommand::parse(&again(command.to_sqe())), Ok(command));
    }
    if let Ok(command) = FabricsCommand::parse(&sqe) {
        assert_eq!(FabricsCommand::parse(&again(command.to_sqe())), Ok(command));
    }
}

/// Connect data and ranges.
pub(crate) fn data(data: &[u8]) {
    if let Ok(connect) = ConnectData::parse(data) {
        assert_eq!(ConnectData::parse(&connect.to_bytes()), Ok(connect));
    }
    let Some((count, rest)) = data.split_first() else {
        return;
    };
    let count = usize::from(*count) + 1;
    if let Ok(ranges) = parse_ranges(rest, count) {
        assert!(ranges.len() <= count);
        // Empty ones were left out.
        let again = parse_ranges(&encode_ranges(&ranges), ranges.len());
        assert_eq!(again, Ok(ranges));
    }
}
