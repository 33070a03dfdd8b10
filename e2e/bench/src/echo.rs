//! Bare TCP, the limits: an exchange of the sizes that a command and its answer have, and a
//! stream.

use crate::cores::Ran;
use crate::figures::Sample;
use anyhow::bail;
use rustix::process::Pid;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Bytes of a command capsule, CH and SQE (NVMe/TCP section 3.6.2.1).
pub const CAPSULE: u32 = 72;
/// Bytes before the data in C2HData (section 3.6.2.3).
pub const DATA_HEADER: u32 = 24;
/// Bytes of a response capsule, CH and CQE (section 3.6.2.2).
pub const RESPONSE: u32 = 24;
/// Bytes of the stream's reads and writes.
pub const PIECE: u32 = 128 << 10;

/// What a connection is for.
#[derive(Clone, Copy, Debug)]
pub enum Session {
    /// So many bytes, answered by so many.
    Exchange {
        /// From the client.
        request: u32,
        /// From the server.
        answer: u32,
        /// Both sides ask the socket again and again and never sleep.
        polling: bool,
    },
    /// The server sends.
    FromServer,
    /// The client sends.
    ToServer,
}

impl Session {
    fn to_bytes(self) -> [u8; 12] {
        let (kind, a, b) = match self {
            Self::Exchange {
                request,
                answer,
                polling,
            } => (u32::from(polling), request, answer),
            Self::FromServer => (2, 0, 0),
            Self::ToServer => (3, 0, 0),
        };
        let mut bytes = [0; 12];
        for (to, from) in bytes.chunks_exact_mut(4).zip([kind, a, b]) {
            to.copy_from_slice(&from.to_le_bytes());
        }
        bytes
    }

    fn of_bytes(bytes: [u8; 12]) -> Option<Self> {
        let [k0, k1, k2, k3, a0, a1, a2, a3, b0, b1, b2, b3] = bytes;
        let request = u32::from_le_bytes([a0, a1, a2, a3]);
        let answer = u32::from_le_bytes([b0, b1, b2, b3]);
        match u32::from_le_bytes([k0, k1, k2, k3]) {
            kind @ (0 | 1) => Some(Self::Exchange {
                request,
                answer,
                polling: kind == 1,
            }),
            2 => Some(Self::FromServer),
            3 => Some(Self::ToServer),
            _ => None,
        }
    }
}

/// Serves one connection after another until killed; prints its address first.
pub fn serve() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    for stream in listener.incoming() {
        // The client ends a session by closing it.
        let _ended = session(stream?);
    }
    Ok(())
}

fn session(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let mut piece = vec![0; PIECE as usize];
    match Session::of_bytes(head) {
        Some(Session::Exchange {
            request,
            answer,
            polling,
        }) => {
            stream.set_nonblocking(polling)?;
            let mut request = vec![0; request as usize];
            let answer = vec![0; answer as usize];
            loop {
                get(&mut stream, &mut request)?;
                put(&mut stream, &answer)?;
            }
        }
        Some(Session::FromServer) => loop {
            stream.write_all(&piece)?;
        },
        Some(Session::ToServer) => loop {
            stream.read_exact(&mut piece)?;
        },
        None => Ok(()),
    }
}

/// Reads all of it; on a socket that does not block, by asking again and again.
fn get(stream: &mut TcpStream, into: &mut [u8]) -> std::io::Result<()> {
    let mut done = 0;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn put(stream: &mut TcpStream, from: &[u8]) -> std::io::Result<()> {
    let mut done = 0;
    while let Some(rest) = from.get(done..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(count) => done += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Measures one session with the server.
pub fn measure(
    address: SocketAddr,
    server: Pid,
    session: Session,
    time: Duration,
) -> anyhow::Result<Sample> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.write_all(&session.to_bytes())?;
    let (mut out, mut back) = match session {
        Session::Exchange {
            request,
            answer,
            polling,
        } => {
            stream.set_nonblocking(polling)?;
            (vec![0; request as usize], vec![0; answer as usize])
        }
        Session::FromServer => (vec![], vec![0; PIECE as usize]),
        Session::ToServer => (vec![0; PIECE as usize], vec![]),
    };
    let before = Ran::now(server);
    let began = Instant::now();
    let (mut latencies, mut last) = (vec![], began);
    while last - began < time {
        put(&mut stream, &out)?;
        get(&mut stream, &mut back)?;
        let now = Instant::now();
        latencies.push(now - last);
        last = now;
    }
    if latencies.is_empty() {
        bail!("nothing was exchanged");
    }
    // Kept alive to here, so that no buffer is dropped from the loop.
    out.clear();
    Ok(Sample::of(latencies, last - began, before.since()))
}
