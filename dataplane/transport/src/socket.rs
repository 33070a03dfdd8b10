//! What both ends do with their sockets.

use rustix::net::sockopt;
use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;
use tokio::net::TcpStream;
use weft_nvme::Outbox;

/// Pieces sent with one system call.
const SLICES: usize = 64;
/// Silence after which the kernel asks whether the peer's kernel is still there. The kernel does
/// it alone: an idle process is not woken, and a peer whose power went is noticed all the same.
const PROBE_AFTER: Duration = Duration::from_secs(5);
/// Between two such questions.
const PROBE_EVERY: Duration = Duration::from_secs(2);
/// Questions without an answer after which the connection is lost.
const PROBES: u32 = 3;
/// The same for bytes that are under way: PROBE_AFTER + PROBES * PROBE_EVERY. Commands are sent
/// again on the next connection, so giving up early costs little and waiting costs the host time.
const UNACKNOWLEDGED_MS: u32 = 11_000;

/// Options of every connection.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, PROBE_AFTER)?;
    sockopt::set_tcp_keepintvl(stream, PROBE_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, PROBES)?;
    sockopt::set_tcp_user_timeout(stream, UNACKNOWLEDGED_MS)?;
    Ok(())
}

/// Sends what the socket takes.
pub(crate) fn send(stream: &TcpStream, outbox: &mut Outbox) -> io::Result<()> {
    while !outbox.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = outbox.slices(&mut slices);
        match stream.try_write_vectored(slices.get(..used).unwrap_or_default()) {
            Ok(sent) => outbox.advance(sent),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
