//! Frames: what is refused by a PDU's header, and with which fatal error status.

use super::*;

#[test]
fn icresp_has_no_alignment_and_the_digests_that_were_asked_for() {
    for digests in [
        NONE,
        BOTH,
        Digests {
            header: true,
            data: false,
        },
    ] {
        let mut connection = Connection::new();
        feed(&mut connection, IcReq::new(digests).as_bytes()).unwrap();
        let out = connection.outbox().take_all();
        assert_eq!(out.len(), 128);
        assert_eq!(out[..8], [0x01, 0, 128, 0, 128, 0, 0, 0]);
        assert_eq!(out[8..10], [0, 0], "PFV");
        assert_eq!(out[10], 0, "CPDA");
        assert_eq!(
            out[11],
            u8::from(digests.header) | u8::from(digests.data) << 1
        );
        let max = IcResp::read_from_bytes(&out).unwrap().maxh2cdata.get();
        assert!(max >= 4096 && max % 4 == 0);
        assert_eq!(connection.digests(), digests);
    }
}

#[test]
fn what_is_wrong_with_icreq_is_told() {
    let right = IcReq::new(NONE).as_bytes().to_vec();
    // Offset, value there, FES, FEI.
    let wrong = [
        (0, 0x0a, 0x01, 0),
        (0, 0x04, 0x02, 0),
        (0, 0x01, 0x02, 0),
        (1, 0x01, 0x01, 1),
        (2, 24, 0x01, 2),
        (4, 100, 0x01, 4),
        (4, 129, 0x01, 4),
        (7, 0xff, 0x01, 4),
        (8, 1, 0x06, 8),
        (10, 3, 0x06, 10),
        (11, 0x04, 0x01, 11),
    ];
    for (at, value, fes, fei) in wrong {
        let mut bytes = right.clone();
        bytes[at] = value;
        let mut connection = Connection::new();
        assert!(
            feed(&mut connection, &bytes).is_err(),
            "byte {at} = {value}"
        );
        let (told_fes, told_fei, echo) = told(&mut connection);
        assert_eq!((told_fes, told_fei), (fes, fei), "byte {at} = {value}");
        assert_eq!(echo[..8], bytes[..8]);
        assert!(connection.next_command().unwrap().is_none());
    }
}

#[test]
fn a_pdu_of_4_gib_is_refused_by_its_first_eight_bytes() {
    for (kind, hlen) in [(0x04, 72), (0x06, 24), (0x02, 24)] {
        let mut connection = admitted(NONE, LIMITS);
        let header = [kind, 0, hlen, hlen, 0xff, 0xff, 0xff, 0xff];
        let before = connection.buffer().get_ref().capacity();
        assert_eq!(
            feed(&mut connection, &header).unwrap_err(),
            Fault::HeaderField(4)
        );
        assert_eq!(connection.buffer().get_ref().capacity(), before);
    }
}

#[test]
fn before_connect_a_capsule_carries_connect_data_and_no_more() {
    let mut connection = greeted(NONE);
    let bytes = capsule(write(1, 1, Sgl::in_capsule(4096)), &[0; 4096], NONE);
    assert_eq!(
        feed(&mut connection, &bytes).unwrap_err(),
        Fault::HeaderField(4)
    );
    let mut connection = greeted(NONE);
    feed(
        &mut connection,
        &capsule(write(1, 1, Sgl::transport(4096)), &[], NONE),
    )
    .unwrap();
    assert_eq!(
        response(&mut connection),
        (1, Status::INVALID_FIELD),
        "no R2T for strangers"
    );
}

#[test]
fn a_second_icreq_and_pdus_of_a_target_are_out_of_sequence() {
    for bytes in [
        IcReq::new(NONE).as_bytes().to_vec(),
        R2t::new(1, 1, 0, 4096, NONE).as_bytes().to_vec(),
        IcResp::new(NONE, 4096).as_bytes().to_vec(),
    ] {
        let mut connection = admitted(NONE, LIMITS);
        assert_eq!(feed(&mut connection, &bytes).unwrap_err(), Fault::Sequence);
        assert_eq!(told(&mut connection).0, 0x02);
    }
}

#[test]
fn frames_that_contradict_themselves_name_the_field() {
    let data = [7; 4096];
    let right = capsule(write(1, 1, Sgl::in_capsule(4096)), &data, NONE);
    for (at, value, fei) in [
        (1, 0x02, 1),
        (1, 0x04, 1),
        (2, 73, 2),
        (3, 71, 3),
        (3, 80, 3),
        (5, 0x40, 4),
    ] {
        let mut bytes = right.clone();
        bytes[at] = value;
        let mut connection = admitted(NONE, LIMITS);
        assert!(
            feed(&mut connection, &bytes).is_err(),
            "byte {at} = {value}"
        );
        assert_eq!(told(&mut connection).1, fei, "byte {at} = {value}");
    }
}

#[test]
fn a_wrong_header_digest_ends_the_connection_and_is_told() {
    let mut bytes = capsule(read(1, 1), &[], BOTH);
    bytes[72] ^= 1;
    let received = u32::from_le_bytes(bytes[72..76].try_into().unwrap());
    let mut connection = admitted(BOTH, LIMITS);
    assert_eq!(
        feed(&mut connection, &bytes).unwrap_err(),
        Fault::HeaderDigest(received)
    );
    let (fes, fei, echo) = told(&mut connection);
    assert_eq!((fes, fei, echo.len()), (0x03, received, 72));
}

#[test]
fn a_termination_request_is_not_answered() {
    let mut bytes = vec![0x02, 0, 24, 0, 32, 0, 0, 0, 0x05, 0];
    bytes.resize(32, 0);
    let mut connection = admitted(NONE, LIMITS);
    assert_eq!(
        feed(&mut connection, &bytes).unwrap_err(),
        Fault::Terminated(5)
    );
    assert!(connection.outbox().is_empty());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_hold_much(
        digests in (any::<bool>(), any::<bool>()),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        kinds in prop::collection::vec((0u8..10, any::<u8>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..20),
    ) {
        let digests = Digests { header: digests.0, data: digests.1 };
        let mut connection = admitted(digests, LIMITS);
        for (kind, flags, hlen, pdo, plen) in kinds {
            let mut header = vec![kind, flags & 0xf, if hlen % 2 == 0 { 24 } else { 72 }, pdo];
            header.extend(plen.to_le_bytes());
            if feed(&mut connection, &header).is_err() { break }
            if feed(&mut connection, &bytes).is_err() { break }
        }
        prop_assert!(connection.buffer().get_ref().capacity() <= 128 << 10);
        prop_assert!(connection.outstanding() <= 8);
    }
}
