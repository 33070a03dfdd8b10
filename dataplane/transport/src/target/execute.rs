//! Commands on the admitted disk.

use super::association::{Association, Served};
use super::{Vendor, VendorError};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use weft_block::{DiskError, ErrorKind, Stamp, Write};
use weft_nvme::command::fabrics::{self, FabricsCommand};
use weft_nvme::command::{self, Direction, IoCommand, Sqe, io_opcode, parse_ranges};
use weft_nvme::log::{self, AnaState};
use weft_nvme::status::Status;
use weft_nvme::target::{Command, Reply, Tag};
use weft_nvme::{BLOCK, IN_CAPSULE};

/// What a command came to.
pub(super) enum Answer {
    /// Completed, refused or failed.
    Plain(Tag, Status, u64),
    /// Completed with data.
    Data(Tag, Bytes),
    /// A write completed; its data are not needed any more.
    Written(Tag, Bytes),
    /// Nothing is answered until there is an event.
    Held(Tag),
}

/// Most data of a vendor specific command that a [`Vendor`] takes.
const VENDOR_DATA: usize = 8192;

/// Disconnect (Fabrics section 3.4): the last command of an I/O queue.
pub(super) fn is_disconnect(command: &Command) -> bool {
    command.sqe.opcode == fabrics::OPCODE
        && FabricsCommand::parse(&command.sqe) == Ok(FabricsCommand::Disconnect)
}

/// Whether a command of an I/O queue needs memory for what it reads.
pub(super) fn reads(command: &Command) -> bool {
    command.sqe.opcode == io_opcode::READ
}

/// Runs a command of an I/O queue; `room` is for what a Read reads.
pub(super) async fn io(association: Arc<Association>, command: Command, room: BytesMut) -> Answer {
    let Command { tag, sqe, data } = command;
    if !association.is_ready() {
        return Answer::Plain(tag, Status::COMMAND_SEQUENCE, 0);
    }
    if sqe.opcode == fabrics::OPCODE {
        return Answer::Plain(tag, Status::INVALID_OPCODE, 0);
    }
    // Data in a capsule lie among other capsules: their memory is not a buffer of their own.
    let kept = (data.len() > IN_CAPSULE as usize).then(|| data.clone());
    match run_io(&association, &sqe, data, room).await {
        Ok(None) => match kept {
            Some(data) => Answer::Written(tag, data),
            None => Answer::Plain(tag, Status::SUCCESS, 0),
        },
        Ok(Some(data)) => Answer::Data(tag, data),
        Err(status) => Answer::Plain(tag, status, 0),
    }
}

async fn run_io(
    association: &Association,
    sqe: &Sqe,
    data: Bytes,
    room: BytesMut,
) -> Result<Option<Bytes>, Status> {
    let export = association.export().ok_or(Status::INVALID_OPCODE)?;
    if export.events.ana() != AnaState::Optimized {
        return Err(Status::ANA_INACCESSIBLE);
    }
    let disk = export.disk.as_ref();
    let command = IoCommand::parse(sqe)?;
    let writes = !matches!(command, IoCommand::Flush | IoCommand::Read { .. });
    if writes && export.read_only {
        return Err(Status::WRITE_PROTECTED);
    }
    let blocks = disk.size() / BLOCK;
    let stamp = stamp(sqe);
    match command {
        IoCommand::Flush => disk.flush_stamped(stamp).await.map_err(|e| status(&e))?,
        IoCommand::Read { range } => {
            let (offset, length) = range.within(blocks)?;
            let length = usize::try_from(length).map_err(|_| Status::INVALID_FIELD)?;
            let mut buffer = room;
            if buffer.len() != length {
                return Err(Status::DATA_SGL_LENGTH_INVALID);
            }
            disk.read(offset, &mut buffer)
                .await
                .map_err(|e| status(&e))?;
            return Ok(Some(buffer.freeze()));
        }
        IoCommand::Write { range, fua } => {
            let (offset, length) = range.within(blocks)?;
            if data.len() as u64 != length {
                return Err(Status::DATA_SGL_LENGTH_INVALID);
            }
            let mode = if fua { Write::Durable } else { Write::Cached };
            disk.write_stamped(offset, data, mode, stamp)
                .await
                .map_err(|e| status(&e))?;
        }
        IoCommand::WriteZeroes { range, fua, .. } => {
            let (offset, length) = range.within(blocks)?;
            disk.write_zeroes_stamped(offset, length, stamp)
                .await
                .map_err(|e| status(&e))?;
            if fua {
                disk.flush().await.map_err(|e| status(&e))?;
            }
        }
        IoCommand::DatasetManagement { ranges, deallocate } => {
            let ranges = parse_ranges(&data, ranges)?;
            for range in &ranges {
                range.within(blocks)?;
            }
            // Other attributes are hints: nothing to do.
            for range in ranges.iter().filter(|_| deallocate) {
                let (offset, length) = range.within(blocks)?;
                disk.discard_stamped(offset, length, stamp)
                    .await
                    .map_err(|e| status(&e))?;
            }
        }
    }
    Ok(None)
}

/// What an engine says of the command. A host of another kind may have hints there, which no disk
/// that it reaches looks at.
fn stamp(sqe: &Sqe) -> Stamp {
    let command::Stamp {
        config,
        number,
        checkpoint,
    } = command::Stamp::of(sqe);
    Stamp {
        config,
        number,
        checkpoint,
    }
}

/// Runs a command of the admin queue.
pub(super) async fn admin(association: Arc<Association>, command: Command) -> Answer {
    let Command { tag, sqe, data } = command;
    let now = association.now();
    let reply = association.answer(&sqe, now);
    match reply {
        Reply::Done(result) => Answer::Plain(tag, Status::SUCCESS, result),
        Reply::Data(data) => Answer::Data(tag, data),
        Reply::Refused(status, result) => Answer::Plain(tag, status, result),
        Reply::Held => Answer::Held(tag),
        Reply::DiscoveryLog { offset, length } => match discover(&association, offset, length) {
            Ok(page) => Answer::Data(tag, page),
            Err(status) => Answer::Plain(tag, status, 0),
        },
        Reply::Vendor {
            opcode,
            cdw10,
            length,
        } => {
            let vendor = association
                .export()
                .and_then(|export| export.vendor.as_deref());
            let Some(vendor) = vendor else {
                return Answer::Plain(tag, Status::INVALID_OPCODE, 0);
            };
            match run_vendor(vendor, &sqe, opcode, cdw10, length, data).await {
                Ok(Some(data)) => Answer::Data(tag, data),
                Ok(None) => Answer::Plain(tag, Status::SUCCESS, 0),
                Err(VendorError::InvalidOpcode) => Answer::Plain(tag, Status::INVALID_OPCODE, 0),
                Err(VendorError::InvalidField) => Answer::Plain(tag, Status::INVALID_FIELD, 0),
                Err(VendorError::Fenced) => Answer::Plain(tag, Status::RESERVATION_CONFLICT, 0),
                Err(VendorError::SwapLost) => Answer::Plain(tag, Status::SWAP_LOST, 0),
                Err(VendorError::Internal) => Answer::Plain(tag, Status::INTERNAL, 0),
            }
        }
    }
}

/// The part of the discovery log that was asked for, as it is for this host.
fn discover(association: &Association, offset: u64, length: u32) -> Result<Bytes, Status> {
    let Served::Discovery(discovery, local) = &association.served else {
        return Err(Status::INVALID_LOG_PAGE);
    };
    // Read before the records: a change in between makes the host read once more.
    let generation = *discovery.generation().borrow();
    let records = discovery.records(association.host(), *local);
    log::part(&log::discovery(generation, &records), offset, length).map(Bytes::from)
}

async fn run_vendor(
    vendor: &dyn Vendor,
    sqe: &Sqe,
    opcode: u8,
    cdw10: u32,
    length: u32,
    data: Bytes,
) -> Result<Option<Bytes>, VendorError> {
    match sqe.direction() {
        Direction::ToHost => vendor.get(opcode, cdw10, length).await.map(Some),
        Direction::ToController if data.len() > VENDOR_DATA => Err(VendorError::InvalidField),
        Direction::ToController => vendor.put(opcode, cdw10, data).await.map(|()| None),
        Direction::None | Direction::Both => Err(VendorError::InvalidOpcode),
    }
}

/// The status that a failed disk request ends with (`nvme-tcp.md` section 1.5).
fn status(error: &DiskError) -> Status {
    match error.kind() {
        ErrorKind::OutOfRange => Status::LBA_OUT_OF_RANGE,
        ErrorKind::MediaRead => Status::UNRECOVERED_READ,
        ErrorKind::MediaWrite => Status::WRITE_FAULT,
        ErrorKind::Lost => Status::WRITES_LOST,
        ErrorKind::NoSpace => Status::CAPACITY_EXCEEDED,
        ErrorKind::Fenced => Status::RESERVATION_CONFLICT,
        ErrorKind::ReadOnly => Status::WRITE_PROTECTED,
        ErrorKind::WrongConfig => Status::WRONG_CONFIG,
        ErrorKind::Gone => Status::ANA_INACCESSIBLE,
        ErrorKind::Unsupported => Status::INVALID_OPCODE,
        _ => Status::INTERNAL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_told_of_a_loss_does_not_ask_again_and_one_whose_medium_failed_may() {
        let of = |kind| status(&DiskError::new(kind, "a flush"));
        let (lost, failed) = (of(ErrorKind::Lost), of(ErrorKind::MediaWrite));
        assert_eq!((lost.code(), lost.dnr()), (0x280, true));
        assert_eq!((failed.code(), failed.dnr()), (0x280, false));
    }
}
