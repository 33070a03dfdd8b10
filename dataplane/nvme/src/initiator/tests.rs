//! The initiator's connection: against the target's, and against one that lies.

use super::{Connection, Done, Payload};
use crate::command::{BlockRange, Cqe, IoCommand, Sqe};
use crate::digest::Digests;
use crate::pdu::{C2hData, CapsuleCmd, CapsuleResp, Fault, Flags, IcResp, R2t};
use crate::status::Status;
use crate::target;
use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const NONE: Digests = Digests {
    header: false,
    data: false,
};

fn feed(connection: &mut Connection<u32>, mut bytes: &[u8]) -> Result<Vec<Done<u32>>, Fault> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let mut buffer = connection.buffer();
        let count = buffer.remaining_mut().min(bytes.len());
        buffer.put_slice(&bytes[..count]);
        connection.received(count);
        bytes = &bytes[count..];
        while let Some(done) = connection.next_done()? {
            all.push(done);
        }
    }
    Ok(all)
}

/// A connection after ICResp, with nothing to send.
fn ready() -> Connection<u32> {
    let mut connection = Connection::new(NONE, 4, 8192);
    feed(&mut connection, IcResp::new(NONE, 8192).as_bytes()).unwrap();
    connection.outbox().take_all();
    connection
}

fn read_sqe(blocks: u64) -> Sqe {
    let range = BlockRange {
        start: 0,
        count: blocks,
    };
    IoCommand::Read { range }.to_sqe()
}

/// Submits a read of one block; its identifier.
fn reading(connection: &mut Connection<u32>) -> u16 {
    let buffer = BytesMut::zeroed(4096);
    connection
        .submit(read_sqe(1), Payload::ToHost(buffer), 7)
        .unwrap();
    sent_id(connection)
}

/// Submits a write of three blocks, which do not fit in a capsule; its identifier.
fn writing(connection: &mut Connection<u32>) -> u16 {
    let data = Bytes::from(vec![5; 12_288]);
    connection
        .submit(Sqe::new(1, 1), Payload::ToController(data), 8)
        .unwrap();
    sent_id(connection)
}

fn sent_id(connection: &mut Connection<u32>) -> u16 {
    let out = connection.outbox().take_all();
    CapsuleCmd::read_from_prefix(&out).unwrap().0.sqe.cid.get()
}

fn response(id: u16, status: Status) -> Vec<u8> {
    CapsuleResp::new(Cqe::new(id, status, 0, 0), NONE)
        .as_bytes()
        .to_vec()
}

fn data(id: u16, offset: u32, length: u32, flags: Flags) -> Vec<u8> {
    let mut bytes = C2hData::part(id, offset, length, flags, NONE)
        .as_bytes()
        .to_vec();
    bytes.resize(24 + length as usize, 0xaa);
    bytes
}

#[test]
fn icresp_must_agree_to_what_was_asked() {
    let right = IcResp::new(NONE, 8192).as_bytes().to_vec();
    for (at, value) in [
        (8, 1),
        (10, 1),
        (11, 1),
        (11, 2),
        (13, 0),
        (12, 1),
        (0, 5),
        (2, 24),
        (4, 200),
    ] {
        let mut bytes = right.clone();
        bytes[at] = value;
        let mut connection = Connection::<u32>::new(NONE, 4, 8192);
        assert!(
            feed(&mut connection, &bytes).is_err(),
            "byte {at} = {value}"
        );
    }
}

#[test]
fn a_read_completes_by_response_or_by_success() {
    for success in [false, true] {
        let mut connection = ready();
        let id = reading(&mut connection);
        let flags = if success {
            Flags::LAST | Flags::SUCCESS
        } else {
            Flags::LAST
        };
        let mut bytes = data(id, 0, 4096, flags);
        if !success {
            bytes.extend(response(id, Status::SUCCESS));
        }
        let done = feed(&mut connection, &bytes).unwrap().remove(0);
        assert_eq!((done.token, done.cqe.status()), (7, Status::SUCCESS));
        assert_eq!(done.data, vec![0xaa; 4096]);
        assert_eq!(connection.outstanding(), 0);
    }
}

#[test]
fn a_failed_command_gives_its_buffer_back() {
    let mut connection = ready();
    let id = reading(&mut connection);
    let done = feed(&mut connection, &response(id, Status::UNRECOVERED_READ))
        .unwrap()
        .remove(0);
    assert_eq!(
        (done.cqe.status(), done.data.len()),
        (Status::UNRECOVERED_READ, 4096)
    );
}

#[test]
fn an_identifier_that_is_not_in_use_ends_the_association() {
    let mut connection = ready();
    let id = reading(&mut connection);
    for wrong in [id ^ 1, id ^ 0x1000, 0xffff] {
        let mut connection = ready();
        reading(&mut connection);
        assert!(feed(&mut connection, &response(wrong, Status::SUCCESS)).is_err());
    }
    feed(&mut connection, &response(id, Status::INTERNAL)).unwrap();
    let again = reading(&mut connection);
    assert_ne!(id, again, "the slot's next command has another identifier");
    assert!(
        feed(&mut connection, &response(id, Status::INTERNAL)).is_err(),
        "an answer twice"
    );
}

#[test]
fn data_that_were_not_asked_for_end_the_association() {
    let wrong: [fn(u16) -> Vec<u8>; 6] = [
        |id| data(id, 0, 8192, Flags::LAST),
        |id| data(id, 2048, 2048, Flags::LAST),
        |id| data(id, 0, 2048, Flags::LAST | Flags::SUCCESS),
        |id| data(id, 0, 4096, Flags::SUCCESS),
        |id| data(id, 0, 0, Flags::LAST),
        |id| {
            [
                data(id, 0, 4096, Flags::NONE),
                data(id, 4096, 1, Flags::LAST),
            ]
            .concat()
        },
    ];
    for bytes in wrong {
        let mut connection = ready();
        let id = reading(&mut connection);
        assert!(feed(&mut connection, &bytes(id)).is_err());
    }
    let mut connection = ready();
    let id = writing(&mut connection);
    assert!(
        feed(&mut connection, &data(id, 0, 4096, Flags::LAST)).is_err(),
        "data for a write"
    );
}

#[test]
fn a_read_that_succeeds_with_too_few_bytes_ends_the_association() {
    let mut connection = ready();
    let id = reading(&mut connection);
    let bytes = [
        data(id, 0, 2048, Flags::LAST),
        response(id, Status::SUCCESS),
    ]
    .concat();
    assert_eq!(feed(&mut connection, &bytes).unwrap_err(), Fault::DataRange);
}

#[test]
fn a_write_that_succeeds_before_its_data_were_taken_ends_the_association() {
    let mut connection = ready();
    let id = writing(&mut connection);
    assert_eq!(
        feed(&mut connection, &response(id, Status::SUCCESS)).unwrap_err(),
        Fault::Sequence
    );
}

#[test]
fn requests_for_data_are_checked() {
    let request = |id, offset, length| R2t::new(id, 9, offset, length, NONE).as_bytes().to_vec();
    for (offset, length) in [(0, 0), (4096, 4096), (0, 12_289), (u32::MAX, 2)] {
        let mut connection = ready();
        let id = writing(&mut connection);
        assert!(feed(&mut connection, &request(id, offset, length)).is_err());
    }
    let mut connection = ready();
    let id = writing(&mut connection);
    feed(&mut connection, &request(id, 0, 12_288)).unwrap();
    // MAXH2CDATA is 8192 here: two PDUs, the second with LAST.
    let out = connection.outbox().take_all();
    assert_eq!(out.len(), 2 * 24 + 12_288);
    assert_eq!(
        (out[0], out[1], out[24 + 8192], out[24 + 8192 + 1]),
        (6, 0, 6, 4)
    );
    assert!(
        feed(&mut connection, &request(id, 0, 4096)).is_err(),
        "asked twice"
    );
    let mut connection = ready();
    let id = reading(&mut connection);
    assert!(
        feed(&mut connection, &request(id, 0, 4096)).is_err(),
        "for a read"
    );
}

#[test]
fn what_fits_goes_in_the_capsule() {
    let mut connection = ready();
    let payload = Payload::ToController(Bytes::from(vec![1; 8192]));
    connection.submit(Sqe::new(1, 1), payload, 1).unwrap();
    let out = connection.outbox().take_all();
    assert_eq!((out.len(), out[3]), (72 + 8192, 72));
    assert_eq!(out[8 + 39], 0x01, "SGL in the capsule");
    let payload = Payload::ToController(Bytes::from(vec![1; 8193]));
    connection.submit(Sqe::new(1, 1), payload, 1).unwrap();
    let out = connection.outbox().take_all();
    assert_eq!((out.len(), out[3], out[8 + 39]), (72, 0, 0x5a));
}

#[test]
fn a_lost_association_gives_every_command_back_with_its_buffer() {
    let mut connection = ready();
    let id = reading(&mut connection);
    writing(&mut connection);
    feed(&mut connection, &data(id, 0, 4096, Flags::LAST)[..1000]).unwrap();
    let mut lost = connection.abandon();
    lost.sort_by_key(|(token, _)| *token);
    assert_eq!(
        lost.iter()
            .map(|(token, data)| (*token, data.len()))
            .collect::<Vec<_>>(),
        [(7, 4096), (8, 0)]
    );
}

#[test]
fn no_more_commands_than_slots() {
    let mut connection = ready();
    for token in 0..4 {
        connection
            .submit(Sqe::new(0, 1), Payload::None, token)
            .unwrap();
    }
    assert!(!connection.has_room());
    assert!(connection.submit(Sqe::new(0, 1), Payload::None, 4).is_err());
}

/// Moves bytes between the two ends, in pieces of these sizes, and executes on `medium`.
fn exchange(
    host: &mut Connection<u32>,
    target: &mut target::Connection,
    medium: &mut [u8],
    sizes: &mut impl Iterator<Item = usize>,
) -> Vec<Done<u32>> {
    let mut all = Vec::new();
    loop {
        let (to_target, to_host) = (host.outbox().take_all(), target.outbox().take_all());
        if to_target.is_empty() && to_host.is_empty() {
            return all;
        }
        let mut rest = &to_target[..];
        while !rest.is_empty() {
            let mut buffer = target.buffer();
            let count = sizes
                .next()
                .unwrap()
                .min(rest.len())
                .min(buffer.remaining_mut());
            buffer.put_slice(&rest[..count]);
            target.received(count);
            rest = &rest[count..];
            while let Some(command) = target.next_command().unwrap() {
                execute(target, command, medium);
            }
        }
        let mut rest = &to_host[..];
        while !rest.is_empty() {
            let mut buffer = host.buffer();
            let count = sizes
                .next()
                .unwrap()
                .min(rest.len())
                .min(buffer.remaining_mut());
            buffer.put_slice(&rest[..count]);
            host.received(count);
            rest = &rest[count..];
            while let Some(done) = host.next_done().unwrap() {
                all.push(done);
            }
        }
        while let Some(command) = target.next_command().unwrap() {
            execute(target, command, medium);
        }
    }
}

fn execute(target: &mut target::Connection, command: target::Command, medium: &mut [u8]) {
    let at = |range: BlockRange| {
        let (offset, length) = range.within(1 << 20).unwrap();
        offset as usize..(offset + length) as usize
    };
    match IoCommand::parse(&command.sqe).unwrap() {
        IoCommand::Read { range } => {
            let data = Bytes::copy_from_slice(&medium[at(range)]);
            target.complete_with(command.tag, data, 0);
        }
        IoCommand::Write { range, .. } => {
            medium[at(range)].copy_from_slice(&command.data);
            target.complete(command.tag, Status::SUCCESS, 0);
        }
        _ => target.complete(command.tag, Status::SUCCESS, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn what_is_written_is_read_however_the_bytes_are_cut(
        digests in (any::<bool>(), any::<bool>()),
        flow_control: bool,
        memory in 4096usize..200_000,
        sizes in prop::collection::vec(1usize..70_000, 1..12),
        writes in prop::collection::vec((0u64..64, 1u64..40, any::<u8>()), 1..12),
    ) {
        let digests = Digests { header: digests.0, data: digests.1 };
        let mut sizes = sizes.into_iter().cycle();
        let mut medium = vec![0; 128 * 4096];
        let mut host = Connection::new(digests, 16, 8192);
        let mut target = target::Connection::new();
        exchange(&mut host, &mut target, &mut medium, &mut sizes);
        prop_assert!(host.is_ready() && target.is_ready());
        target.admit(target::Limits { depth: 16, memory, flow_control });
        let mut model = medium.clone();
        for (token, (start, count, fill)) in (0u32..).zip(&writes) {
            let range = BlockRange { start: *start, count: *count };
            let bytes = vec![*fill; (count * 4096) as usize];
            model[(start * 4096) as usize..][..bytes.len()].copy_from_slice(&bytes);
            let sqe = IoCommand::Write { range, fua: false }.to_sqe();
            host.submit(sqe, Payload::ToController(bytes.into()), token).unwrap();
            let done = exchange(&mut host, &mut target, &mut medium, &mut sizes);
            prop_assert_eq!(done.len(), 1);
        }
        prop_assert!(model == medium);
        // All reads at a time.
        for (token, (start, count, _)) in (0u32..).zip(&writes) {
            let range = BlockRange { start: *start, count: *count };
            let buffer = BytesMut::zeroed((count * 4096) as usize);
            host.submit(IoCommand::Read { range }.to_sqe(), Payload::ToHost(buffer), token).unwrap();
        }
        let done = exchange(&mut host, &mut target, &mut medium, &mut sizes);
        prop_assert_eq!(done.len(), writes.len());
        for done in done {
            let (start, count, _) = writes[done.token as usize];
            prop_assert!(done.cqe.status().is_success());
            prop_assert!(done.data == model[(start * 4096) as usize..][..(count * 4096) as usize]);
        }
        prop_assert_eq!((host.outstanding(), target.outstanding()), (0, 0));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), kind in 1u8..10) {
        let mut connection = ready();
        reading(&mut connection);
        writing(&mut connection);
        let mut head = vec![kind, 4, 24, 24];
        head.extend(bytes);
        let _ = feed(&mut connection, &head);
        prop_assert_eq!(connection.abandon().len(), connection.outstanding());
    }
}
