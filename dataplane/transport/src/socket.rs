//! What both ends do with their sockets.

use crate::polling::Busy;
use crate::spin;
use bytes::BufMut;
use rustix::net::sockopt;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::task::yield_now;
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

/// What a socket did.
pub(crate) enum Moved {
    /// So many bytes came; 0 at the end of the stream.
    Received(usize),
    /// It takes bytes again.
    Sendable,
}

/// Waits until something has come into `into`, if that is asked for, or, if `sends`, the socket
/// takes bytes.
pub(crate) async fn moved(
    stream: &mut TcpStream,
    busy: &mut Busy,
    mut into: Option<impl BufMut>,
    sends: bool,
) -> io::Result<Moved> {
    poll_fn(|cx| {
        if let Some(into) = &mut into
            && let Poll::Ready(count) = poll_receive(stream, |stream| stream, busy, into, cx)
        {
            return Poll::Ready(count.map(Moved::Received));
        }
        if sends && let Poll::Ready(ready) = stream.poll_write_ready(cx) {
            return Poll::Ready(ready.map(|()| Moved::Sendable));
        }
        Poll::Pending
    })
    .await
}

/// Takes what has come; 0 at the end of the stream. A read that fills less than there is room for
/// has emptied the socket: the next thing to do is to wait, and no system call is made only to hear
/// that nothing is there. A busy process asks instead of waiting, and lets all others run in between.
pub(crate) fn poll_receive<R: AsyncRead + Unpin>(
    reader: &mut R,
    socket: impl Fn(&R) -> &TcpStream,
    busy: &mut Busy,
    into: &mut impl BufMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let tries = busy.ask();
    for _ in 0..tries.unwrap_or(0) {
        match spin::receive(socket(reader), into) {
            Ok(None) => {}
            Ok(Some(count)) => return Poll::Ready(Ok(count)),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    match tries {
        None => pin!(reader.read_buf(into)).poll(cx),
        Some(0) => {
            // Those whom the last bytes were for run before this comes again, spawned or not.
            let _again = pin!(yield_now()).poll(cx);
            Poll::Pending
        }
        Some(_) => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }
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
