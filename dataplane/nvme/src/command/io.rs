//! I/O commands (NVM section 3).

use super::{Direction, Sqe};
use crate::status::Status;
use crate::{BLOCK, NSID};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Opcodes (NVM figure 22).
pub mod io_opcode {
    /// Flush (Base section 7.1).
    pub const FLUSH: u8 = 0x00;
    /// Write (NVM section 3.2.6).
    pub const WRITE: u8 = 0x01;
    /// Read (NVM section 3.2.4).
    pub const READ: u8 = 0x02;
    /// Write Zeroes (NVM section 3.2.8).
    pub const WRITE_ZEROES: u8 = 0x08;
    /// Dataset Management (NVM section 3.2.3).
    pub const DATASET_MANAGEMENT: u8 = 0x09;
}

/// Force Unit Access: dword 12 bit 30.
const FUA: u32 = 1 << 30;
/// Deallocate, of Write Zeroes: dword 12 bit 25.
const DEAC: u32 = 1 << 25;
/// Reserved in dword 12 of Read and Write: bits 25:24 and 19:16 (NVM figures 49 and 63; storage
/// tag checks need protection information, which no namespace here has).
const RW_RESERVED: u32 = 0x030f_0000;
/// Reserved in dword 12 of Write Zeroes: bits 24:16.
const ZEROES_RESERVED: u32 = 0x01ff_0000;
/// Attribute Deallocate: dword 11 bit 2 of Dataset Management.
const AD: u32 = 1 << 2;
/// Ranges of one Dataset Management command: NR is 8 bits, zero-based.
const MAX_RANGES: usize = 256;

/// A run of logical blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRange {
    /// SLBA.
    pub start: u64,
    /// Blocks.
    pub count: u64,
}

impl BlockRange {
    /// In bytes, offset and length, if it lies in a namespace of so many blocks.
    pub fn within(self, blocks: u64) -> Result<(u64, u64), Status> {
        let end = self
            .start
            .checked_add(self.count)
            .ok_or(Status::LBA_OUT_OF_RANGE)?;
        if end > blocks {
            return Err(Status::LBA_OUT_OF_RANGE);
        }
        let offset = self
            .start
            .checked_mul(BLOCK)
            .ok_or(Status::LBA_OUT_OF_RANGE)?;
        let length = self
            .count
            .checked_mul(BLOCK)
            .ok_or(Status::LBA_OUT_OF_RANGE)?;
        Ok((offset, length))
    }
}

/// An I/O command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IoCommand {
    /// Makes what was acknowledged durable.
    Flush,
    /// Writes; `fua` makes it durable before it is acknowledged.
    Write {
        /// Where.
        range: BlockRange,
        /// Force Unit Access.
        fua: bool,
    },
    /// Reads.
    Read {
        /// Where.
        range: BlockRange,
    },
    /// Makes the range read as zeros.
    WriteZeroes {
        /// Where.
        range: BlockRange,
        /// The host would have the blocks freed.
        deallocate: bool,
        /// Force Unit Access.
        fua: bool,
    },
    /// Hints about ranges, which are its data ([`parse_ranges`]).
    DatasetManagement {
        /// How many ranges.
        ranges: usize,
        /// They are not needed any more. Without it the hints ask for nothing.
        deallocate: bool,
    },
}

impl IoCommand {
    /// Parses and checks all that can be checked without data.
    pub fn parse(sqe: &Sqe) -> Result<Self, Status> {
        sqe.check_flags()?;
        let nsid = sqe.nsid.get();
        let all = nsid == u32::MAX && sqe.opcode == io_opcode::FLUSH;
        let known = matches!(
            sqe.opcode,
            io_opcode::FLUSH
                | io_opcode::WRITE
                | io_opcode::READ
                | io_opcode::WRITE_ZEROES
                | io_opcode::DATASET_MANAGEMENT
        );
        if !known {
            return Err(Status::INVALID_OPCODE);
        }
        if nsid != NSID && !all {
            return Err(Status::INVALID_NAMESPACE);
        }
        let control = sqe.dword(12);
        let range = BlockRange {
            start: u64::from(sqe.dword(10)) | u64::from(sqe.dword(11)) << 32,
            count: u64::from(control & 0xffff) + 1,
        };
        let fua = control & FUA != 0;
        let length = u64::from(sqe.sgl.length.get());
        match sqe.opcode {
            io_opcode::FLUSH => Ok(Self::Flush),
            io_opcode::WRITE | io_opcode::READ => {
                refuse(control & RW_RESERVED != 0)?;
                if range.count * BLOCK != length {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                if sqe.direction() == Direction::ToHost {
                    return Ok(Self::Read { range });
                }
                Ok(Self::Write { range, fua })
            }
            io_opcode::WRITE_ZEROES => {
                refuse(control & ZEROES_RESERVED != 0)?;
                Ok(Self::WriteZeroes {
                    range,
                    deallocate: control & DEAC != 0,
                    fua,
                })
            }
            _ => {
                refuse(sqe.dword(10) & !0xff != 0 || sqe.dword(11) & !0b111 != 0)?;
                let ranges = usize::from(sqe.cdw[0].to_bytes()[0]) + 1;
                if (ranges * size_of::<RawRange>()) as u64 > length {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                Ok(Self::DatasetManagement {
                    ranges,
                    deallocate: sqe.dword(11) & AD != 0,
                })
            }
        }
    }

    /// The entry that [`IoCommand::parse`] reads back.
    pub fn to_sqe(self) -> Sqe {
        let ranged = |opcode, range: BlockRange, control: u32| {
            let low = u32::try_from(range.start & u64::from(u32::MAX)).unwrap_or_default();
            let high = u32::try_from(range.start >> 32).unwrap_or_default();
            let count = u32::try_from(range.count.saturating_sub(1)).unwrap_or_default() & 0xffff;
            Sqe::new(opcode, NSID)
                .with(10, low)
                .with(11, high)
                .with(12, count | control)
        };
        let flag = |on: bool, bit: u32| if on { bit } else { 0 };
        match self {
            Self::Flush => Sqe::new(io_opcode::FLUSH, NSID),
            Self::Write { range, fua } => ranged(io_opcode::WRITE, range, flag(fua, FUA)),
            Self::Read { range } => ranged(io_opcode::READ, range, 0),
            Self::WriteZeroes {
                range,
                deallocate,
                fua,
            } => {
                let control = flag(deallocate, DEAC) | flag(fua, FUA);
                ranged(io_opcode::WRITE_ZEROES, range, control)
            }
            Self::DatasetManagement { ranges, deallocate } => {
                let count = u32::try_from(ranges.clamp(1, MAX_RANGES) - 1).unwrap_or_default();
                Sqe::new(io_opcode::DATASET_MANAGEMENT, NSID)
                    .with(10, count)
                    .with(11, flag(deallocate, AD))
            }
        }
    }
}

fn refuse(reserved: bool) -> Result<(), Status> {
    if reserved {
        Err(Status::INVALID_FIELD)
    } else {
        Ok(())
    }
}

/// One range of Dataset Management (NVM figure 40).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawRange {
    /// Hints about access: no meaning here.
    context: U32,
    blocks: U32,
    start: U64,
}

/// The ranges of a Dataset Management command, empty ones left out.
pub fn parse_ranges(data: &[u8], ranges: usize) -> Result<Vec<BlockRange>, Status> {
    let raw = <[RawRange]>::ref_from_prefix_with_elems(data, ranges.min(MAX_RANGES))
        .map_err(|_| Status::DATA_SGL_LENGTH_INVALID)?
        .0;
    let ranges = raw.iter().map(|range| BlockRange {
        start: range.start.get(),
        count: u64::from(range.blocks.get()),
    });
    Ok(ranges.filter(|range| range.count > 0).collect())
}

/// Data of a Dataset Management command; counts above 32 bits are cut by the caller.
pub fn encode_ranges(ranges: &[BlockRange]) -> Vec<u8> {
    let raw = ranges.iter().map(|range| RawRange {
        context: U32::ZERO,
        blocks: U32::new(u32::try_from(range.count).unwrap_or(u32::MAX)),
        start: U64::new(range.start),
    });
    raw.flat_map(|range| range.as_bytes().to_vec()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Sgl;
    use proptest::prelude::*;

    fn any_command() -> impl Strategy<Value = IoCommand> {
        let range =
            (any::<u64>(), 1u64..=65_536).prop_map(|(start, count)| BlockRange { start, count });
        prop_oneof![
            Just(IoCommand::Flush),
            (range.clone(), any::<bool>()).prop_map(|(range, fua)| IoCommand::Write { range, fua }),
            range.clone().prop_map(|range| IoCommand::Read { range }),
            (range, any::<bool>(), any::<bool>()).prop_map(|(range, deallocate, fua)| {
                IoCommand::WriteZeroes {
                    range,
                    deallocate,
                    fua,
                }
            }),
            (1usize..=256, any::<bool>()).prop_map(|(ranges, deallocate)| {
                IoCommand::DatasetManagement { ranges, deallocate }
            }),
        ]
    }

    fn with_data(command: IoCommand) -> Sqe {
        let mut sqe = command.to_sqe();
        let length = match command {
            IoCommand::Write { range, .. } | IoCommand::Read { range } => range.count * BLOCK,
            IoCommand::DatasetManagement { ranges, .. } => ranges as u64 * 16,
            _ => 0,
        };
        sqe.sgl = Sgl::transport(u32::try_from(length).unwrap());
        sqe
    }

    proptest! {
        #[test]
        fn a_command_survives_its_entry(command in any_command()) {
            let sqe = with_data(command);
            let again = Sqe::read_from_bytes(sqe.as_bytes()).unwrap();
            prop_assert_eq!(IoCommand::parse(&again), Ok(command));
        }

        #[test]
        fn any_64_bytes_are_parsed_or_refused(bytes in prop::array::uniform32(any::<u8>()), more in prop::array::uniform32(any::<u8>())) {
            let all: Vec<u8> = bytes.into_iter().chain(more).collect();
            let _ = IoCommand::parse(&Sqe::read_from_bytes(&all).unwrap());
        }
    }

    #[test]
    fn a_length_that_does_not_match_the_blocks_is_refused() {
        let range = BlockRange { start: 0, count: 2 };
        let mut sqe = with_data(IoCommand::Read { range });
        sqe.sgl = Sgl::transport(4096);
        assert_eq!(IoCommand::parse(&sqe), Err(Status::DATA_SGL_LENGTH_INVALID));
    }

    #[test]
    fn fused_commands_prp_and_reserved_bits_are_refused() {
        let range = BlockRange { start: 0, count: 1 };
        let good = with_data(IoCommand::Write { range, fua: false });
        for flags in [0x41, 0x42, 0x44, 0x00, 0x80, 0xc0] {
            assert_eq!(
                IoCommand::parse(&Sqe { flags, ..good }),
                Err(Status::INVALID_FIELD)
            );
        }
        let reserved = good.with(12, good.dword(12) | 1 << 16);
        assert_eq!(IoCommand::parse(&reserved), Err(Status::INVALID_FIELD));
    }

    #[test]
    fn compare_and_foreign_namespaces_are_refused() {
        assert_eq!(
            IoCommand::parse(&Sqe::new(0x05, 1)),
            Err(Status::INVALID_OPCODE)
        );
        assert_eq!(
            IoCommand::parse(&Sqe::new(0x00, 2)),
            Err(Status::INVALID_NAMESPACE)
        );
        assert_eq!(
            IoCommand::parse(&Sqe::new(0x00, u32::MAX)),
            Ok(IoCommand::Flush)
        );
    }

    #[test]
    fn a_range_beyond_the_end_or_around_the_number_line_is_out_of_range() {
        assert_eq!(
            BlockRange { start: 6, count: 2 }.within(8),
            Ok((24_576, 8192))
        );
        for range in [
            BlockRange { start: 7, count: 2 },
            BlockRange {
                start: u64::MAX,
                count: 2,
            },
        ] {
            assert_eq!(range.within(8), Err(Status::LBA_OUT_OF_RANGE));
        }
    }

    #[test]
    fn ranges_survive_and_empty_ones_are_left_out() {
        let ranges = [
            BlockRange { start: 3, count: 4 },
            BlockRange { start: 9, count: 0 },
        ];
        assert_eq!(
            parse_ranges(&encode_ranges(&ranges), 2),
            Ok(vec![ranges[0]])
        );
        assert_eq!(
            parse_ranges(&[0; 16], 2),
            Err(Status::DATA_SGL_LENGTH_INVALID)
        );
    }
}
