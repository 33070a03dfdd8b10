//! Asking one socket directly, without the runtime, while it is spun for ([`crate::polling`]).
#![expect(
    unsafe_code,
    reason = "the kernel fills memory that was never written, which is what a receive buffer is for"
)]

use bytes::BufMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use std::io;
use tokio::net::TcpStream;

/// What the socket has now: `None` if that is nothing, 0 at the end of the stream. The runtime does
/// not know of what is taken here. It may wake a reader for it later, who then finds nothing.
pub(crate) fn receive(stream: &TcpStream, into: &mut impl BufMut) -> io::Result<Option<usize>> {
    // SAFETY: `recv` writes initialized bytes only, and reads none.
    let space = unsafe { into.chunk_mut().as_uninit_slice_mut() };
    match recv(stream, space, RecvFlags::DONTWAIT) {
        Ok((_, count)) => {
            // SAFETY: without MSG_TRUNC that many bytes of the space were written.
            unsafe { into.advance_mut(count) };
            Ok(Some(count))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
