//! Entry points for the fuzz targets in `e2e/fuzz`: what of a drive decodes bytes that it has not
//! just made itself, from the medium or from a host. Each takes any bytes and panics where
//! something does not hold.

use crate::fence::Fence;
use crate::store::fuzz::{SLICE, VOLUME, drive, superblock as small, wait};
use crate::superblock::{Copies, SMALLEST, Superblock};
use crate::vendor::SliceVendor;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use uuid::Uuid;
use weft_block::{AlignedBuf, BLOCK};
use weft_spec::drive::{
    Answer, Checkpoint, Config, DocumentMark, InSync, MemberState, OutOfSync, Question,
    RecordAnswer, RecordSwap, RegionsEqual, SliceInspection, SliceRecord, Space, VENDOR_ANSWER,
    VENDOR_ASK, VENDOR_CHECKPOINT, VENDOR_GET_RECORD, VENDOR_INSPECT, VENDOR_PUT_GENERATION,
    VENDOR_PUT_RECORD, VENDOR_REGIONS_EQUAL, VENDOR_SPACE,
};
use weft_spec::ids::{Boot, DocumentGeneration, FencePair, SliceUid, Term};
use weft_transport::target::Vendor;

pub use crate::store::fuzz::{log, page, record};

/// One input that shows a target what is right: target, name, bytes.
pub type Seed = (&'static str, &'static str, Vec<u8>);

/// Sizes of media.
const SIZES: [u64; 3] = [SMALLEST, 1 << 40, u64::MAX - u64::MAX % BLOCK];
/// Of the engine whose commands are fuzzed.
const PAIR: FencePair = FencePair {
    term: Term(5),
    boot: Boot(1),
};

/// A superblock after a first byte: bit 0 says that it gets mark, format and checksum. One that is
/// taken lies within its medium, and is written as it was read.
pub fn superblock(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else {
        return;
    };
    let mut block = AlignedBuf::zeroed(BLOCK as usize);
    let most = rest.len().min(block.len());
    block[..most].copy_from_slice(&rest[..most]);
    if flags & 1 != 0 {
        Superblock::seal(&mut block);
    }
    for size in SIZES {
        let Copies::Good(found) = Superblock::decode(&block, size) else {
            continue;
        };
        let geometry = found.geometry;
        let data = geometry.chunks.checked_mul(crate::superblock::CHUNK);
        let end = data.and_then(|data| data.checked_add(geometry.data_start));
        assert!(end.is_some_and(|end| end <= size), "{geometry:?}");
        assert!(found.log.offset < geometry.log_size);
        assert!(found.metadata_length <= geometry.metadata_size);
        let again = Superblock::decode(&found.encode(), size);
        assert_eq!(again, Copies::Good(found));
    }
}

/// Vendor specific admin commands of an admitted engine, one after the other: opcode, length in
/// two bytes, and the payload of that length if the opcode sends one. What is answered is whole
/// and fits; a record that was taken is the one that is there.
pub fn vendor(mut data: &[u8]) {
    let (store, slice) = drive();
    let (association, ended) = Arc::new(Fence::default()).admit(PAIR, Arc::new(|| ()));
    let peer = ([192, 0, 2, 7], 40000).into();
    let vendor = SliceVendor::new(store, slice, Some(association), peer);
    while let Some(([opcode, low, high], rest)) = data.split_first_chunk::<3>() {
        let length = u16::from_le_bytes([*low, *high]);
        // NVMe Base 2.0 section 5, bits 1:0 of an opcode: 01b from the host, 10b to it.
        if opcode & 3 == 1 {
            let (payload, after) = rest.split_at(usize::from(length).min(rest.len()));
            data = after;
            put(&vendor, *opcode, payload);
        } else {
            data = rest;
            get(&vendor, *opcode, length.into());
        }
    }
    drop(ended);
}

fn put(vendor: &SliceVendor, opcode: u8, payload: &[u8]) {
    let done = wait(vendor.put(opcode, 0, Bytes::copy_from_slice(payload)));
    if opcode != VENDOR_PUT_RECORD || done.is_err() {
        return;
    }
    let text = payload.split(|byte| *byte == 0).next().unwrap_or_default();
    let swap: RecordSwap = serde_json::from_slice(text).expect("it was taken");
    let answer = wait(vendor.get(VENDOR_GET_RECORD, 0, u32::MAX));
    let answer = answer.expect("the record");
    let answer: RecordAnswer = serde_json::from_slice(&answer).expect("a record");
    assert_eq!(answer.record, Some(swap.record));
}

fn get(vendor: &SliceVendor, opcode: u8, length: u32) {
    let Ok(answer) = wait(vendor.get(opcode, 0, length)) else {
        return;
    };
    assert!(answer.len() <= length as usize);
    let whole = match opcode {
        VENDOR_INSPECT => serde_json::from_slice::<SliceInspection>(&answer).is_ok(),
        VENDOR_GET_RECORD => serde_json::from_slice::<RecordAnswer>(&answer).is_ok(),
        VENDOR_ANSWER => serde_json::from_slice::<Answer>(&answer).is_ok(),
        VENDOR_SPACE => serde_json::from_slice::<Space>(&answer).is_ok(),
        _ => panic!("opcode {opcode:#x} is none"),
    };
    assert!(whole, "{opcode:#x}: {answer:?}");
}

/// Seeds of all of these, written by what writes such bytes: the drive, or an engine.
pub fn seeds() -> Vec<Seed> {
    let mut seeds = crate::store::fuzz::seeds();
    for (name, flags) in [("new", 0), ("sealed", 1)] {
        let mut seed = small().encode().to_vec();
        seed.insert(0, flags);
        seeds.push(("drive-superblock", name, seed));
    }
    let mut first = vec![1];
    first.extend(json(&member(1)));
    seeds.push(("drive-record", "record", first));
    let asked = |question: Question| [sent(VENDOR_ASK, &question), asked_for(VENDOR_ANSWER)];
    let swap = |expected: Option<u64>, config| RecordSwap {
        expected: expected.map(member),
        record: member(config),
    };
    let records = [
        sent(VENDOR_PUT_RECORD, &swap(None, 1)),
        sent(VENDOR_PUT_RECORD, &swap(Some(1), 2)),
        sent(VENDOR_PUT_RECORD, &swap(Some(1), 3)),
        asked_for(VENDOR_GET_RECORD),
    ];
    let generation = DocumentGeneration(7);
    let told = [
        sent(VENDOR_PUT_GENERATION, &DocumentMark { generation }),
        sent(VENDOR_CHECKPOINT, &Checkpoint { number: 12 }),
        sent(
            VENDOR_REGIONS_EQUAL,
            &RegionsEqual {
                regions: vec![0, 1],
            },
        ),
        asked_for(VENDOR_INSPECT),
        asked_for(VENDOR_SPACE),
    ];
    let changes = asked(Question::ChangesSince {
        config: Config(0),
        from: 0,
    });
    let hash = asked(Question::Hash {
        offset: 4096,
        length: 8192,
    });
    let hot = asked(Question::HotSet { from: 0 });
    seeds.extend([
        ("drive-vendor", "records", records.concat()),
        ("drive-vendor", "told", told.concat()),
        ("drive-vendor", "changes", changes.concat()),
        ("drive-vendor", "hash", hash.concat()),
        ("drive-vendor", "hot", hot.concat()),
    ]);
    seeds
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

fn sent<T: Serialize>(opcode: u8, body: &T) -> Vec<u8> {
    let body = json(body);
    let length = (body.len() as u16).to_le_bytes();
    [&[opcode], &length[..], &body].concat()
}

fn asked_for(opcode: u8) -> Vec<u8> {
    let length = 4096u16.to_le_bytes();
    [&[opcode], &length[..]].concat()
}

/// A record that the engine of [`PAIR`] may put.
fn member(config: u64) -> SliceRecord {
    SliceRecord {
        volume: VOLUME,
        lineage: Uuid::from_u128(0x11),
        fence: PAIR,
        config: Config(config),
        in_sync: vec![InSync {
            slice: SLICE,
            incarnation: Uuid::from_u128(0x1c),
        }],
        out_of_sync: vec![OutOfSync {
            slice: SliceUid(Uuid::from_u128(0x52)),
            since: Config(config),
        }],
        voters: vec![SLICE],
        old_voters: vec![],
        loss: None,
        state: MemberState::Current,
    }
}
