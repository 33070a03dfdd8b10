//! Commands and their data.

use super::*;

#[test]
fn data_with_a_wrong_digest_are_never_handed_out_and_the_host_may_repeat() {
    let mut bytes = capsule(write(0xf123, 1, Sgl::in_capsule(4096)), &[7; 4096], BOTH);
    bytes[100] ^= 1;
    let mut connection = admitted(BOTH, LIMITS);
    assert!(feed(&mut connection, &bytes).unwrap().is_empty());
    assert_eq!(
        status_of(&mut connection, BOTH),
        (0xf123, Status::TRANSIENT_TRANSPORT)
    );

    let sqe = write(2, 3, Sgl::transport(12_288));
    assert!(
        feed(&mut connection, &capsule(sqe, &[], BOTH))
            .unwrap()
            .is_empty()
    );
    let r2t = connection.outbox().take_all();
    let ttag = R2t::read_from_prefix(&r2t).unwrap().0.ttag.get();
    let mut first = h2c(
        H2cData::new(2, ttag, 0, 8192, false, BOTH),
        &[1; 8192],
        BOTH,
    );
    let end = first.len() - 1;
    first[end] ^= 1;
    assert!(feed(&mut connection, &first).unwrap().is_empty());
    let second = h2c(
        H2cData::new(2, ttag, 8192, 4096, true, BOTH),
        &[1; 4096],
        BOTH,
    );
    assert!(feed(&mut connection, &second).unwrap().is_empty());
    assert_eq!(
        status_of(&mut connection, BOTH),
        (2, Status::TRANSIENT_TRANSPORT)
    );
    assert_eq!(connection.outstanding(), 0);
}

fn status_of(connection: &mut Connection, digests: Digests) -> (u16, Status) {
    let out = connection.outbox().take_all();
    let (response, rest) = CapsuleResp::read_from_prefix(&out).unwrap();
    assert_eq!(rest.len(), digests.header_len());
    (response.cqe.cid.get(), response.cqe.status())
}

#[test]
fn all_sixteen_bits_of_an_identifier_come_back() {
    let mut connection = admitted(NONE, LIMITS);
    let command = feed(&mut connection, &capsule(read(0xabcd, 1), &[], NONE))
        .unwrap()
        .remove(0);
    connection.complete(command.tag, Status::LBA_OUT_OF_RANGE, 0);
    assert_eq!(
        response(&mut connection),
        (0xabcd, Status::LBA_OUT_OF_RANGE)
    );
}

#[test]
fn success_takes_the_place_of_the_response_only_without_flow_control() {
    for flow_control in [true, false] {
        let mut connection = admitted(
            NONE,
            Limits {
                flow_control,
                ..LIMITS
            },
        );
        let command = feed(&mut connection, &capsule(read(5, 1), &[], NONE))
            .unwrap()
            .remove(0);
        connection.complete_with(command.tag, Bytes::from(vec![9; 4096]), 0);
        let out = connection.outbox().take_all();
        let (data, _) = C2hData::read_from_prefix(&out).unwrap();
        let (last, success) = (data.header.flags & 4 != 0, data.header.flags & 8 != 0);
        assert!(last, "LAST on the only PDU");
        assert_eq!(success, !flow_control);
        assert_eq!(out.len(), 24 + 4096 + if flow_control { 24 } else { 0 });
        assert_eq!(
            (data.datao.get(), data.datal.get(), data.header.pdo),
            (0, 4096, 24)
        );
    }
}

#[test]
fn short_data_are_filled_with_zeros_to_what_was_asked_for() {
    let mut connection = admitted(NONE, LIMITS);
    let command = feed(&mut connection, &capsule(read(5, 1), &[], NONE))
        .unwrap()
        .remove(0);
    connection.complete_with(command.tag, Bytes::from_static(b"abc"), 0);
    let out = connection.outbox().take_all();
    assert_eq!(&out[24..28], b"abc\0");
    assert_eq!(out.len(), 24 + 4096 + 24);
}

#[test]
fn a_command_without_data_has_no_room_for_any() {
    let mut connection = admitted(NONE, LIMITS);
    let mut sqe = IoCommand::Flush.to_sqe();
    (sqe.cid, sqe.sgl) = (5.into(), Sgl::transport(u32::MAX));
    let command = feed(&mut connection, &capsule(sqe, &[], NONE))
        .unwrap()
        .remove(0);
    connection.complete_with(command.tag, Bytes::from_static(b"abc"), 0);
    assert_eq!(response(&mut connection), (5, Status::SUCCESS));
}

#[test]
fn one_r2t_asks_for_all_data_of_a_write() {
    let mut connection = admitted(NONE, LIMITS);
    let sqe = write(3, 256, Sgl::transport(1 << 20));
    assert!(
        feed(&mut connection, &capsule(sqe, &[], NONE))
            .unwrap()
            .is_empty()
    );
    let r2t = R2t::read_from_bytes(&connection.outbox().take_all()).unwrap();
    assert_eq!(
        (r2t.cccid.get(), r2t.r2to.get(), r2t.r2tl.get()),
        (3, 0, 1 << 20)
    );
}

#[test]
fn a_transfer_above_mdts_is_an_invalid_field() {
    let mut connection = admitted(NONE, LIMITS);
    for sqe in [
        write(3, 257, Sgl::transport((1 << 20) + 4096)),
        read(3, 257),
    ] {
        assert!(
            feed(&mut connection, &capsule(sqe, &[], NONE))
                .unwrap()
                .is_empty()
        );
        assert_eq!(response(&mut connection), (3, Status::INVALID_FIELD));
    }
}

#[test]
fn descriptors_that_fabrics_does_not_know_are_refused() {
    let mut other = Sgl::transport(4096);
    other.kind = 0x00;
    let mut offset = Sgl::in_capsule(4096);
    offset.address = 64.into();
    let data = [1; 4096];
    for (sgl, data, status) in [
        (other, &[][..], Status::SGL_TYPE_INVALID),
        (Sgl::in_capsule(4096), &[][..], Status::SGL_TYPE_INVALID),
        (Sgl::transport(4096), &data[..], Status::SGL_TYPE_INVALID),
        (
            Sgl::in_capsule(8192),
            &data[..],
            Status::DATA_SGL_LENGTH_INVALID,
        ),
        (offset, &data[..], Status::SGL_OFFSET_INVALID),
    ] {
        let mut connection = admitted(NONE, LIMITS);
        assert!(
            feed(&mut connection, &capsule(write(1, 1, sgl), data, NONE))
                .unwrap()
                .is_empty()
        );
        assert_eq!(response(&mut connection), (1, status));
    }
}

/// Fault that a data PDU for a write of three blocks leads to.
fn fault_of(data: H2cData, length: usize) -> Fault {
    let mut connection = admitted(NONE, LIMITS);
    let sqe = write(1, 3, Sgl::transport(12_288));
    feed(&mut connection, &capsule(sqe, &[], NONE)).unwrap();
    let ttag = R2t::read_from_bytes(&connection.outbox().take_all())
        .unwrap()
        .ttag
        .get();
    assert_eq!(ttag, 1);
    feed(&mut connection, &h2c(data, &vec![0; length], NONE)).unwrap_err()
}

#[test]
fn data_that_were_not_asked_for_end_the_connection() {
    let data = |cid, ttag, datao, datal, last| H2cData::new(cid, ttag, datao, datal, last, NONE);
    assert_eq!(
        fault_of(data(2, 1, 0, 12_288, true), 12_288),
        Fault::HeaderField(8)
    );
    assert_eq!(
        fault_of(data(1, 0, 0, 12_288, true), 12_288),
        Fault::HeaderField(10)
    );
    assert_eq!(
        fault_of(data(1, 999, 0, 12_288, true), 12_288),
        Fault::HeaderField(10)
    );
    assert_eq!(
        fault_of(data(1, 1, 4096, 8192, true), 8192),
        Fault::DataRange
    );
    assert_eq!(
        fault_of(data(1, 1, 0, 16_384, true), 16_384),
        Fault::DataRange
    );
    assert_eq!(
        fault_of(data(1, 1, 0, 4096, true), 4096),
        Fault::HeaderField(1)
    );
    assert_eq!(
        fault_of(data(1, 1, 0, 12_288, false), 12_288),
        Fault::HeaderField(1)
    );
    let mut lies = data(1, 1, 0, 4096, false);
    lies.datal = 8192.into();
    assert_eq!(fault_of(lies, 4096), Fault::HeaderField(16));
}

#[test]
fn more_commands_than_entries_end_the_connection() {
    let mut connection = admitted(NONE, LIMITS);
    for cid in 0..8 {
        feed(&mut connection, &capsule(read(cid, 1), &[], NONE)).unwrap();
    }
    let more = capsule(read(8, 1), &[], NONE);
    assert_eq!(feed(&mut connection, &more).unwrap_err(), Fault::DataLimit);
}

#[test]
fn an_identifier_in_use_is_a_conflict_and_leaves_the_first_command_alone() {
    let mut connection = admitted(NONE, LIMITS);
    let command = feed(&mut connection, &capsule(read(4, 1), &[], NONE))
        .unwrap()
        .remove(0);
    assert!(
        feed(&mut connection, &capsule(read(4, 1), &[], NONE))
            .unwrap()
            .is_empty()
    );
    assert_eq!(response(&mut connection), (4, Status::COMMAND_ID_CONFLICT));
    connection.complete(command.tag, Status::SUCCESS, 0);
    assert_eq!(response(&mut connection), (4, Status::SUCCESS));
}

#[test]
fn commands_beyond_the_memory_wait_in_their_order() {
    let mut connection = admitted(
        NONE,
        Limits {
            memory: 16_384,
            ..LIMITS
        },
    );
    let mut bytes = capsule(read(1, 3), &[], NONE);
    bytes.extend(capsule(read(2, 3), &[], NONE));
    bytes.extend(capsule(write(3, 3, Sgl::transport(12_288)), &[], NONE));
    let commands = feed(&mut connection, &bytes).unwrap();
    assert_eq!(commands.len(), 1);
    assert!(connection.outbox().is_empty(), "no R2T without memory");
    connection.complete(commands[0].tag, Status::SUCCESS, 0);
    connection.outbox().take_all();
    let second = connection.next_command().unwrap().unwrap();
    assert_eq!(second.sqe.cid.get(), 2);
    assert!(connection.next_command().unwrap().is_none());
    connection.complete(second.tag, Status::SUCCESS, 0);
    connection.outbox().take_all();
    assert!(connection.next_command().unwrap().is_none());
    assert_eq!(connection.outbox().take_all()[0], 0x09, "now the R2T");
}

#[test]
fn queues_share_a_budget_and_each_always_moves_one_command() {
    let budget = Budget::new(12_288);
    let reads = |connection: &mut Connection| {
        let mut bytes = capsule(read(1, 3), &[], NONE);
        bytes.extend(capsule(read(2, 3), &[], NONE));
        feed(connection, &bytes).unwrap()
    };
    let mut queues = [(); 2].map(|()| {
        let mut queue = greeted(NONE);
        queue.share(budget.clone(), Budget::new(0));
        queue.admit(LIMITS);
        queue
    });
    let first = reads(&mut queues[0]);
    assert_eq!((first.len(), budget.left()), (1, 0));
    let second = reads(&mut queues[1]);
    assert_eq!(second.len(), 1, "one beyond the budget");
    queues[1].complete(second[0].tag, Status::SUCCESS, 0);
    assert_eq!(budget.left(), 0, "what was not taken is not given back");
    assert!(
        queues[1].next_command().unwrap().is_some(),
        "it never waits for another queue"
    );
    queues[0].complete(first[0].tag, Status::SUCCESS, 0);
    assert_eq!(budget.left(), 12_288);
    assert!(queues[0].next_command().unwrap().is_some());
    let [left, _] = queues;
    drop(left);
    assert_eq!(budget.left(), 12_288, "a lost connection gives back");
}

#[test]
fn connect_without_flow_control_is_told_by_the_head_pointer() {
    for (flow_control, head) in [(true, 0), (false, 0xffff)] {
        let mut connection = greeted(NONE);
        let sqe = write(1, 1, Sgl::in_capsule(1024));
        let command = feed(&mut connection, &capsule(sqe, &[0; 1024], NONE))
            .unwrap()
            .remove(0);
        connection.admit(Limits {
            flow_control,
            ..LIMITS
        });
        connection.complete_connect(command.tag, 0x1234);
        let out = connection.outbox().take_all();
        let cqe = CapsuleResp::read_from_bytes(&out).unwrap().cqe;
        assert_eq!((cqe.result.get(), cqe.sqhd.get()), (0x1234, head));
    }
}

#[test]
fn answers_that_wait_leave_together_and_their_memory_is_used_again() {
    let spare = Budget::new(1 << 20);
    let mut connection = greeted(NONE);
    connection.share(Budget::new(1 << 20), spare.clone());
    connection.admit(LIMITS);
    let mut answer = |fill: u8| {
        let bytes: Vec<u8> = (1..=4)
            .flat_map(|cid| capsule(read(cid, 1), &[], NONE))
            .collect();
        let commands = feed(&mut connection, &bytes).unwrap();
        let mut places = Vec::new();
        for command in &commands {
            let mut room = connection.room(command);
            assert_eq!(room.len(), 4096);
            room.fill(fill);
            places.push(room.as_ptr());
            connection.complete_with(command.tag, room.freeze(), 0);
        }
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        // Four payloads, and what lies before, between and behind them.
        assert_eq!(connection.outbox().slices(&mut slices), 9);
        let out = connection.outbox().take_all();
        let payloads = out.chunks(24 + 4096 + 24).map(|part| &part[24..24 + 4096]);
        assert!(payloads.flatten().all(|byte| *byte == fill));
        places.sort_unstable();
        places
    };
    assert_eq!(answer(0xa5), answer(0x5a));
    assert!(spare.left() < 1 << 20);
    drop(connection);
    assert_eq!(spare.left(), 1 << 20, "a lost connection gives back");
}
