//! A target that lies in the middle of its work: the initiator leaves it, and takes nothing from it.

use crate::harness::{Target, memory, pattern};
use bytes::BytesMut;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use weft_block::{Disk, Write};
use weft_transport::{ConnectOptions, ReconnectingDisk};

/// PDU types (TCP section 3.6).
const IC_RESP: u8 = 0x01;
const C2H_TERM: u8 = 0x03;
const RESPONSE: u8 = 0x05;
const C2H_DATA: u8 = 0x07;
const R2T: u8 = 0x09;
/// Bits of FLAGS of C2HData.
const LAST: u8 = 4;
const SUCCESS: u8 = 8;

/// Bytes of each request: more than a capsule carries, so that a write is asked for by R2T.
const LENGTH: usize = 256 * 1024;
/// Between the two places that are used.
const APART: u64 = 1 << 20;

/// What is done to a PDU before the initiator gets it.
type Lie = fn(&mut Vec<u8>);

/// Takes connections for a target, and lies once when armed.
struct Liar {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
    armed: Arc<Mutex<Option<(u8, Lie)>>>,
}

impl Liar {
    async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let liar = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
            armed: Arc::default(),
        };
        let (connections, armed) = (liar.connections.clone(), liar.armed.clone());
        tokio::spawn(async move {
            while let Ok((host, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (mut from_host, to_host) = host.into_split();
                let target = TcpStream::connect(target).await.unwrap();
                let (from_target, mut to_target) = target.into_split();
                tokio::spawn(async move { copy(&mut from_host, &mut to_target).await });
                tokio::spawn(relay(from_target, to_host, armed.clone()));
            }
        });
        liar
    }

    /// The next PDU of this type is lied about.
    fn arm(&self, kind: u8, lie: Lie) {
        *self.armed.lock().unwrap() = Some((kind, lie));
    }

    fn has_lied(&self) -> bool {
        self.armed.lock().unwrap().is_none()
    }
}

async fn relay(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    armed: Arc<Mutex<Option<(u8, Lie)>>>,
) -> std::io::Result<()> {
    loop {
        let mut pdu = vec![0; 8];
        from.read_exact(&mut pdu).await?;
        let length = u32::from_le_bytes(pdu[4..8].try_into().unwrap()) as usize;
        pdu.resize(length, 0);
        from.read_exact(&mut pdu[8..]).await?;
        let lie = armed.lock().unwrap().take_if(|(kind, _)| *kind == pdu[0]);
        if let Some((_, lie)) = lie {
            lie(&mut pdu);
        }
        to.write_all(&pdu).await?;
    }
}

fn put(pdu: &mut [u8], at: usize, value: u32) {
    pdu[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

fn get(pdu: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(pdu[at..at + 4].try_into().unwrap())
}

/// A C2HData that is right in itself, of so many bytes of data.
fn data(about: &[u8], flags: u8, offset: u32, length: u32) -> Vec<u8> {
    let mut pdu = about[..24].to_vec();
    pdu[1] = flags;
    put(&mut pdu, 4, 24 + length);
    put(&mut pdu, 12, offset);
    put(&mut pdu, 16, length);
    pdu.resize(24 + length as usize, 0x66);
    pdu
}

/// A response capsule to the command that a C2HData is about.
fn response(about: &[u8]) -> Vec<u8> {
    let mut pdu = vec![RESPONSE, 0, 24, 0, 24, 0, 0, 0];
    pdu.resize(24, 0);
    pdu[20..22].copy_from_slice(&about[8..10]);
    pdu
}

/// Lies about the data of a read.
const ABOUT_DATA: &[(&str, Lie)] = &[
    ("a command that there is not", |pdu| pdu[8] ^= 0x55),
    ("an offset beyond what was asked for", |pdu| {
        put(pdu, 12, u32::MAX - 4095);
    }),
    ("an offset that leaves a gap", |pdu| put(pdu, 12, 4096)),
    ("more data than were asked for", |pdu| {
        *pdu = data(pdu, LAST | SUCCESS, 0, 2 * LENGTH as u32);
    }),
    ("a length that is not that of the PDU", |pdu| {
        let length = get(pdu, 16);
        put(pdu, 16, length - 4096);
    }),
    ("success in the middle", |pdu| {
        *pdu = data(pdu, LAST | SUCCESS, 0, 4096);
    }),
    ("success without last", |pdu| {
        *pdu = data(pdu, SUCCESS, 0, LENGTH as u32);
    }),
    ("the last one too early", |pdu| {
        *pdu = [data(pdu, LAST, 0, 4096), response(pdu)].concat();
    }),
    ("a response before the data", |pdu| *pdu = response(pdu)),
    ("a PDU of 4 GiB", |pdu| put(pdu, 4, u32::MAX)),
    ("a PDU of no length", |pdu| put(pdu, 4, 0)),
    ("a wrong header length", |pdu| pdu[2] = 128),
    ("data that begin in the header", |pdu| pdu[3] = 8),
    ("digests that were not agreed", |pdu| pdu[1] |= 3),
    ("an unknown type", |pdu| pdu[0] = 0x7F),
    ("a PDU that only a host sends", |pdu| pdu[0] = 0x04),
    ("a second ICResp", |pdu| {
        *pdu = vec![IC_RESP, 0, 128, 0, 128, 0, 0, 0];
        pdu.resize(128, 0);
    }),
    ("a termination request", |pdu| {
        *pdu = vec![C2H_TERM, 0, 24, 0, 24, 0, 0, 0, 2];
        pdu.resize(24, 0);
    }),
];

/// Lies about what a write is asked for.
const ABOUT_R2T: &[(&str, Lie)] = &[
    ("a command that there is not", |pdu| pdu[8] ^= 0x55),
    ("an offset beyond the data", |pdu| {
        put(pdu, 12, 2 * LENGTH as u32);
    }),
    ("an offset twice", |pdu| *pdu = pdu.repeat(2)),
    ("a storm", |pdu| *pdu = pdu.repeat(10_000)),
    ("more than there is", |pdu| put(pdu, 16, u32::MAX)),
    ("nothing", |pdu| put(pdu, 16, 0)),
    ("an answer before the data were sent", |pdu| {
        *pdu = response(pdu);
    }),
];

/// Lies about the answer to a write.
const ABOUT_RESPONSE: &[(&str, Lie)] = &[
    ("a command that there is not", |pdu| pdu[20] ^= 0x55),
    ("an answer twice", |pdu| *pdu = pdu.repeat(2)),
    ("data for a write", |pdu| {
        let mut about = pdu.clone();
        about[0] = C2H_DATA;
        about[3] = 24;
        about[8..10].copy_from_slice(&pdu[20..22]);
        *pdu = data(&about, LAST | SUCCESS, 0, 4096);
    }),
];

/// The request is done all the same, by the next association, and with the right bytes.
async fn survives(what: &str, kind: u8, lie: Lie) {
    let disk = memory();
    let (first, second) = (pattern(1, LENGTH), pattern(2, LENGTH));
    disk.write(0, first.clone(), Write::Cached).await.unwrap();
    let target = Target::start(disk.clone()).await;
    let liar = Liar::before(target.address).await;
    let options = ConnectOptions {
        address: liar.address,
        ..target.options()
    };
    let host = ReconnectingDisk::start(options, None);
    let mut state = host.state();
    drop(state.wait_for(|state| state.connected).await.unwrap());
    assert_eq!(liar.connections.load(Ordering::SeqCst), 2, "two queues");
    liar.arm(kind, lie);
    let requests = async {
        let mut into = BytesMut::zeroed(LENGTH);
        host.read(0, &mut into).await.unwrap();
        assert!(into == first, "{what}: wrong bytes were taken");
        host.write(APART, second.clone(), Write::Cached)
            .await
            .unwrap();
        // Whatever lay behind an answer that was right has been read when this one is.
        host.read(0, &mut into).await.unwrap();
        assert!(into == first, "{what}: wrong bytes were taken");
    };
    let done = timeout(Duration::from_secs(30), requests).await;
    assert!(done.is_ok(), "{what}: the request hangs");
    assert!(liar.has_lied(), "{what}: no such PDU came by");
    let mut there = BytesMut::zeroed(LENGTH);
    disk.read(APART, &mut there).await.unwrap();
    assert!(there == second, "{what}: other bytes were written");
    let connections = liar.connections.load(Ordering::SeqCst);
    assert!(connections > 2, "{what}: the liar is still believed");
    host.stop().await;
}

#[tokio::test]
async fn lies_about_data_end_the_association_and_no_byte_of_them_is_taken() {
    for (what, lie) in ABOUT_DATA {
        survives(what, C2H_DATA, *lie).await;
    }
}

#[tokio::test]
async fn lies_about_what_a_write_is_asked_for_end_the_association() {
    for (what, lie) in ABOUT_R2T {
        survives(what, R2T, *lie).await;
    }
}

#[tokio::test]
async fn lies_about_an_answer_end_the_association() {
    for (what, lie) in ABOUT_RESPONSE {
        survives(what, RESPONSE, *lie).await;
    }
}
