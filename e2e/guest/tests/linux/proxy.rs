//! A wire between two ends of NVMe/TCP that knows where a PDU ends: it spoils one, or is cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// FLAGS of every PDU with digests (TCP section 3.1.1).
const HDGST: u8 = 1;
const DDGST: u8 = 2;
/// PDU type of a command, and the opcode of Write: no host of a fabric sends an admin command
/// with this opcode.
const CAPSULE: u8 = 0x04;
const WRITE: u8 = 0x01;

/// What of a PDU is spoiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its header, whose digest is then wrong.
    Header,
    /// Its data, whose digest is then wrong.
    Data,
}

/// The next PDU of this type that has the digest of this part is spoiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spoil {
    pub kind: u8,
    pub part: Part,
}

#[derive(Default)]
struct State {
    spoil: Mutex<Option<Spoil>>,
    live: Mutex<Vec<TcpStream>>,
    writes: AtomicU64,
}

/// Threads that end with their connections.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// A wire to a target, on every address of this thread's network.
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        // A thread begins in the network of the one that starts it.
        std::thread::spawn(move || {
            for host in listener.incoming().flatten() {
                // A target that is not there is what it is without a wire, too.
                if let Ok(target) = TcpStream::connect(target) {
                    shared.join(&host, &target);
                }
            }
        });
        Self { address, state }
    }

    /// Cuts every connection of now.
    pub fn cut(&self) {
        for stream in lock(&self.state.live).drain(..) {
            // It may be gone already.
            let _gone = stream.shutdown(Shutdown::Both);
        }
    }

    /// Spoils one PDU.
    pub fn spoil(&self, spoil: Spoil) {
        *lock(&self.state.spoil) = Some(spoil);
    }

    /// Whether it came by.
    pub fn has_spoiled(&self) -> bool {
        lock(&self.state.spoil).is_none()
    }

    /// Write commands that the host has sent so far.
    pub fn writes(&self) -> u64 {
        self.state.writes.load(Ordering::SeqCst)
    }
}

impl State {
    fn join(self: &Arc<Self>, host: &TcpStream, target: &TcpStream) {
        let ends = [(host, target), (target, host)];
        for (from, to) in ends {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else {
                return;
            };
            if let Ok(kept) = from.try_clone() {
                lock(&self.live).push(kept);
            }
            let _delay_is_only_slower = to.set_nodelay(true);
            let state = self.clone();
            std::thread::spawn(move || {
                // Either end may end it at any time: then both are ended.
                let _ended = state.relay(&from, &to);
                for stream in [from, to] {
                    let _gone = stream.shutdown(Shutdown::Both);
                }
            });
        }
    }

    fn relay(&self, mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
        loop {
            let mut pdu = vec![0; 8];
            from.read_exact(&mut pdu)?;
            let length = u32::from_le_bytes([pdu[4], pdu[5], pdu[6], pdu[7]]);
            pdu.resize((length as usize).max(8), 0);
            from.read_exact(&mut pdu[8..])?;
            if pdu[0] == CAPSULE && pdu.get(8) == Some(&WRITE) {
                self.writes.fetch_add(1, Ordering::SeqCst);
            }
            self.pass(&mut pdu);
            to.write_all(&pdu)?;
        }
    }

    fn pass(&self, pdu: &mut [u8]) {
        let mut armed = lock(&self.spoil);
        let Some(Spoil { kind, part }) = *armed else {
            return;
        };
        let flag = match part {
            Part::Header => HDGST,
            Part::Data => DDGST,
        };
        if pdu[0] != kind || pdu[1] & flag == 0 {
            return;
        }
        let at = match part {
            // The last byte of the header proper.
            Part::Header => usize::from(pdu[2]) - 1,
            Part::Data => pdu.len() - 5,
        };
        pdu[at] ^= 0x10;
        *armed = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
