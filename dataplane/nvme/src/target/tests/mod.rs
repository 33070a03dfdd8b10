//! The target's connection, fed with bytes: right ones, and ones that no host should send.

mod admin;
mod frames;
mod transfers;

use super::{Budget, Command, Connection, Limits};
use crate::command::{BlockRange, IoCommand, Sgl, Sqe};
use crate::digest::{Digests, crc32c};
use crate::pdu::{C2hData, CapsuleCmd, CapsuleResp, Fault, H2cData, IcReq, IcResp, R2t, TermReq};
use crate::status::Status;
use bytes::{BufMut, Bytes};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const LIMITS: Limits = Limits {
    depth: 8,
    memory: 1 << 20,
    flow_control: true,
};
const NONE: Digests = Digests {
    header: false,
    data: false,
};
const BOTH: Digests = Digests {
    header: true,
    data: true,
};

fn feed(connection: &mut Connection, mut bytes: &[u8]) -> Result<Vec<Command>, Fault> {
    let mut commands = Vec::new();
    while !bytes.is_empty() {
        let mut buffer = connection.buffer();
        let count = buffer.remaining_mut().min(bytes.len());
        buffer.put_slice(&bytes[..count]);
        connection.received(count);
        bytes = &bytes[count..];
        while let Some(command) = connection.next_command()? {
            commands.push(command);
        }
    }
    Ok(commands)
}

fn greeted(digests: Digests) -> Connection {
    let mut connection = Connection::new();
    feed(&mut connection, IcReq::new(digests).as_bytes()).unwrap();
    connection.outbox().take_all();
    connection
}

fn admitted(digests: Digests, limits: Limits) -> Connection {
    let mut connection = greeted(digests);
    connection.admit(limits);
    connection
}

/// A PDU as bytes, digests appended.
fn pdu(header: &impl AsRef<[u8]>, data: &[u8], digests: Digests) -> Vec<u8> {
    let mut bytes = header.as_ref().to_vec();
    if digests.header {
        bytes.extend(crc32c(header.as_ref()).to_le_bytes());
    }
    bytes.extend(data);
    if digests.data && !data.is_empty() {
        bytes.extend(crc32c(data).to_le_bytes());
    }
    bytes
}

fn write(cid: u16, blocks: u64, sgl: Sgl) -> Sqe {
    let range = BlockRange {
        start: 0,
        count: blocks,
    };
    let mut sqe = IoCommand::Write { range, fua: false }.to_sqe();
    (sqe.cid, sqe.sgl) = (cid.into(), sgl);
    sqe
}

fn read(cid: u16, blocks: u64) -> Sqe {
    let range = BlockRange {
        start: 0,
        count: blocks,
    };
    let mut sqe = IoCommand::Read { range }.to_sqe();
    let length = u32::try_from(blocks * 4096).unwrap();
    (sqe.cid, sqe.sgl) = (cid.into(), Sgl::transport(length));
    sqe
}

fn capsule(sqe: Sqe, data: &[u8], digests: Digests) -> Vec<u8> {
    pdu(
        &CapsuleCmd::new(sqe, data.len(), digests).as_bytes(),
        data,
        digests,
    )
}

fn h2c(pdu_: H2cData, data: &[u8], digests: Digests) -> Vec<u8> {
    pdu(&pdu_.as_bytes(), data, digests)
}

/// The termination request that a fault led to.
fn told(connection: &mut Connection) -> (u16, u32, Bytes) {
    let out = connection.outbox().take_all();
    let (term, _) = TermReq::read_from_prefix(&out).unwrap();
    assert_eq!((out[0], out[1], out[2], out[3]), (0x03, 0, 24, 0));
    assert_eq!(term.header.plen.get() as usize, out.len());
    (term.fes.get(), term.information(), out.slice(24..))
}

fn response(connection: &mut Connection) -> (u16, Status) {
    let out = connection.outbox().take_all();
    let cqe = CapsuleResp::read_from_bytes(&out).unwrap().cqe;
    (cqe.cid.get(), cqe.status())
}
