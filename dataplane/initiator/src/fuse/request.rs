//! A message of the kernel as a typed request. Nothing here does I/O.

use super::abi::{self, opcode};
use rustix::io::Errno;
use zerocopy::FromBytes;

/// One request of the kernel.
#[derive(Debug)]
pub struct Request<'a> {
    /// Names the request in the answer.
    pub unique: u64,
    /// Inode it is about.
    pub node: u64,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What the kernel asks. What is not here is answered with `ENOSYS`, which for most operations
/// tells the kernel not to ask again.
#[derive(Debug, PartialEq, Eq)]
#[expect(
    missing_docs,
    reason = "fields are the arguments of the system call of that name"
)]
pub enum Operation<'a> {
    /// A name in the directory.
    Lookup { name: &'a [u8] },
    /// FORGET and BATCH_FORGET: no answer is expected, and inodes here are for ever.
    Forget,
    /// Attributes.
    GetAttr,
    /// Change of attributes; a truncation is one.
    SetAttr,
    /// Opens a file.
    Open { flags: u32 },
    /// Reads.
    Read { handle: u64, offset: u64, size: u32 },
    /// Writes.
    Write {
        offset: u64,
        flags: u32,
        data: &'a [u8],
    },
    /// A descriptor is closed.
    Flush,
    /// Makes written bytes durable.
    Fsync,
    /// The last reference to an open file is gone.
    Release { handle: u64 },
    /// Opens the directory.
    OpenDir,
    /// Lists the directory.
    ReadDir { offset: u64, size: u32 },
    /// Closes the directory.
    ReleaseDir,
    /// `statfs`.
    Statfs,
    /// `access`; the kernel checks modes itself (`default_permissions`).
    Access,
    /// `fallocate`.
    Fallocate { offset: u64, length: u64, mode: u32 },
    /// The caller of another request has a signal waiting.
    Interrupt { unique: u64 },
    /// The file system goes away.
    Destroy,
    /// A file made, removed or named otherwise: never.
    ChangeDirectory,
    /// Anything else.
    Other(u32),
}

/// A message that cannot be a request.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Shorter than a header, or than its header says.
    #[error("message of {0} bytes is not a whole FUSE request")]
    Message(usize),
    /// A known operation with too few argument bytes.
    #[error("arguments of FUSE opcode {opcode} are too short")]
    Arguments {
        /// To answer it with an error.
        unique: u64,
        /// Which operation.
        opcode: u32,
    },
}

impl<'a> Request<'a> {
    /// Takes one message apart.
    pub fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let (header, body) = abi::InHeader::read_from_prefix(message)
            .map_err(|_| Malformed::Message(message.len()))?;
        if header.len as usize != message.len() {
            return Err(Malformed::Message(message.len()));
        }
        let operation = operation(header.opcode, body).ok_or(Malformed::Arguments {
            unique: header.unique,
            opcode: header.opcode,
        })?;
        Ok(Self {
            unique: header.unique,
            node: header.nodeid,
            operation,
        })
    }
}

fn operation(code: u32, body: &[u8]) -> Option<Operation<'_>> {
    Some(match code {
        opcode::LOOKUP => Operation::Lookup {
            name: body.strip_suffix(&[0])?,
        },
        opcode::FORGET | opcode::BATCH_FORGET => Operation::Forget,
        opcode::GETATTR => Operation::GetAttr,
        opcode::SETATTR => Operation::SetAttr,
        opcode::OPEN => Operation::Open {
            flags: arguments::<abi::OpenIn>(body)?.0.flags,
        },
        opcode::READ => {
            let read = arguments::<abi::ReadIn>(body)?.0;
            Operation::Read {
                handle: read.fh,
                offset: read.offset,
                size: read.size,
            }
        }
        opcode::WRITE => {
            let (write, data) = arguments::<abi::WriteIn>(body)?;
            let data = data.get(..write.size as usize)?;
            Operation::Write {
                offset: write.offset,
                flags: write.flags,
                data,
            }
        }
        opcode::FLUSH => Operation::Flush,
        opcode::FSYNC => Operation::Fsync,
        opcode::RELEASE => Operation::Release {
            handle: arguments::<abi::ReleaseIn>(body)?.0.fh,
        },
        opcode::OPENDIR => Operation::OpenDir,
        opcode::READDIR => {
            let read = arguments::<abi::ReadIn>(body)?.0;
            Operation::ReadDir {
                offset: read.offset,
                size: read.size,
            }
        }
        opcode::RELEASEDIR => Operation::ReleaseDir,
        opcode::STATFS => Operation::Statfs,
        opcode::ACCESS => Operation::Access,
        opcode::FALLOCATE => {
            let range = arguments::<abi::FallocateIn>(body)?.0;
            Operation::Fallocate {
                offset: range.offset,
                length: range.length,
                mode: range.mode,
            }
        }
        opcode::INTERRUPT => Operation::Interrupt {
            unique: arguments::<abi::InterruptIn>(body)?.0.unique,
        },
        opcode::DESTROY => Operation::Destroy,
        change if opcode::DIRECTORY_CHANGES.contains(&change) => Operation::ChangeDirectory,
        other => Operation::Other(other),
    })
}

fn arguments<T: FromBytes>(body: &[u8]) -> Option<(T, &[u8])> {
    T::read_from_prefix(body).ok()
}

impl Malformed {
    /// How to answer it, if it can be answered.
    pub fn answer(&self) -> Option<(u64, Errno)> {
        match self {
            Self::Message(_) => None,
            Self::Arguments { unique, .. } => Some((*unique, Errno::INVAL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn message(opcode: u32, body: &[u8]) -> Vec<u8> {
        let header = abi::InHeader {
            len: (abi::IN_HEADER + body.len()) as u32,
            opcode,
            unique: 9,
            nodeid: 2,
            ..Default::default()
        };
        [header.as_bytes(), body].concat()
    }

    #[test]
    fn a_write_carries_exactly_the_bytes_it_announces() {
        let write = abi::WriteIn {
            offset: 8192,
            size: 3,
            ..Default::default()
        };
        let whole = message(opcode::WRITE, &[write.as_bytes(), b"abcd"].concat());
        let request = Request::parse(&whole).unwrap();
        assert_eq!(
            request.operation,
            Operation::Write {
                offset: 8192,
                flags: 0,
                data: b"abc"
            }
        );
        let cut = message(opcode::WRITE, &[write.as_bytes(), b"ab"].concat());
        let error = Request::parse(&cut).unwrap_err();
        assert_eq!(error.answer(), Some((9, Errno::INVAL)));
    }

    #[test]
    fn a_name_ends_in_one_zero_byte() {
        let whole = message(opcode::LOOKUP, b"volume\0");
        let request = Request::parse(&whole).unwrap();
        assert_eq!(request.operation, Operation::Lookup { name: b"volume" });
        assert!(Request::parse(&message(opcode::LOOKUP, b"volume")).is_err());
    }

    #[test]
    fn every_truncation_of_every_operation_is_refused_or_parsed_but_never_panics() {
        for code in 0..60 {
            let whole = message(code, &[0u8; 64]);
            for length in 0..whole.len() {
                let mut cut = whole[..length].to_vec();
                assert!(
                    Request::parse(&cut).is_err(),
                    "header says more than there is"
                );
                if length >= abi::IN_HEADER {
                    cut[..4].copy_from_slice(&(length as u32).to_ne_bytes());
                    let _ = Request::parse(&cut);
                }
            }
        }
    }
}
