//! PDU streams, in pieces of any size, against both ends of a connection.

use bytes::{BufMut, Bytes, BytesMut};
use std::collections::HashSet;
use weft_nvme::command::{BlockRange, IoCommand};
use weft_nvme::digest::Digests;
use weft_nvme::initiator::{self, Payload};
use weft_nvme::status::Status;
use weft_nvme::target::{self, Limits};
use weft_nvme::{BLOCK, MAX_TRANSFER, Outbox};

/// Commands that an admitted queue may have.
const DEPTH: u16 = 8;
/// Bytes of data that it may hold.
const MEMORY: usize = 64 << 10;
/// What one PDU may add to the outbox before it is drained: two answers with the most data.
const OUTBOX: usize = 2 * (MAX_TRANSFER as usize + 256);

/// Takes up to `most` bytes of `data` as a read from a socket would.
fn feed(buffer: &mut impl BufMut, data: &mut &[u8], most: usize) -> usize {
    let count = buffer.remaining_mut().min(most).min(data.len());
    let (now, rest) = data.split_at(count);
    buffer.put_slice(now);
    *data = rest;
    count
}

fn drain(outbox: &mut Outbox) {
    assert!(outbox.len() <= OUTBOX, "{} bytes to be sent", outbox.len());
    outbox.advance(outbox.len());
    assert!(outbox.is_empty());
}

/// A hostile host. Byte 0 says how much is read at a time and how commands are answered.
pub(crate) fn target(data: &[u8]) {
    let Some((&how, mut data)) = data.split_first() else {
        return;
    };
    let piece = 1 + usize::from(how >> 2) * 37;
    let mut connection = target::Connection::new();
    let mut admitted = false;
    let mut held = Vec::new();
    while !data.is_empty() {
        let count = feed(&mut connection.buffer(), &mut data, piece);
        assert!(count > 0, "no room for what the host sends");
        connection.received(count);
        loop {
            let command = match connection.next_command() {
                Ok(Some(command)) => command,
                Ok(None) => break,
                Err(_) => {
                    drain(connection.outbox());
                    assert!(matches!(connection.next_command(), Ok(None)));
                    return;
                }
            };
            assert!(command.data.len() <= MAX_TRANSFER as usize);
            if !admitted {
                admitted = true;
                connection.admit(Limits {
                    depth: DEPTH,
                    memory: MEMORY,
                    flow_control: how & 1 == 0,
                });
                connection.complete_connect(command.tag, 1);
                continue;
            }
            match command.sqe.cid.get() % 3 {
                0 => connection.complete(command.tag, Status::SUCCESS, 0),
                1 => connection.complete_with(command.tag, Bytes::from_static(b"answer"), 0),
                _ => held.push(command.tag),
            }
        }
        assert!(connection.outstanding() <= usize::from(DEPTH));
        if how & 2 == 0 {
            for tag in held.drain(..) {
                connection.complete(tag, Status::INTERNAL, 0);
            }
        }
        drain(connection.outbox());
    }
}

/// A hostile target. Byte 0 says how much is read at a time and which digests are asked for.
pub(crate) fn initiator(data: &[u8]) {
    let Some((&how, mut data)) = data.split_first() else {
        return;
    };
    let piece = 1 + usize::from(how >> 2) * 37;
    let digests = Digests {
        header: how & 1 != 0,
        data: how & 2 != 0,
    };
    let mut connection = initiator::Connection::new(digests, DEPTH, 4096);
    let mut waiting = HashSet::new();
    let mut next = 0_u32;
    while !data.is_empty() {
        let count = feed(&mut connection.buffer(), &mut data, piece);
        assert!(count > 0, "no room for what the target sends");
        connection.received(count);
        loop {
            match connection.next_done() {
                Ok(Some(done)) => assert!(waiting.remove(&done.token), "answered twice"),
                Ok(None) => break,
                Err(_) => {
                    for (token, _) in connection.abandon() {
                        assert!(waiting.remove(&token), "given back, though answered");
                    }
                    assert!(waiting.is_empty(), "commands lost: {waiting:?}");
                    return;
                }
            }
        }
        while connection.is_ready() && connection.has_room() {
            let (sqe, payload) = submission(next);
            connection
                .submit(sqe, payload, next)
                .expect("there was room");
            waiting.insert(next);
            next += 1;
        }
        assert_eq!(connection.outstanding(), waiting.len());
        drain(connection.outbox());
    }
}

fn submission(number: u32) -> (weft_nvme::command::Sqe, Payload) {
    let blocks = u64::from(number % 4) + 1;
    let range = BlockRange {
        start: number.into(),
        count: blocks,
    };
    let length = usize::try_from(blocks * BLOCK).expect("a few blocks");
    if number.is_multiple_of(2) {
        let buffer = BytesMut::zeroed(length);
        (IoCommand::Read { range }.to_sqe(), Payload::ToHost(buffer))
    } else {
        let data = Bytes::from(vec![0x5a; length]);
        let command = IoCommand::Write { range, fua: false };
        (command.to_sqe(), Payload::ToController(data))
    }
}
