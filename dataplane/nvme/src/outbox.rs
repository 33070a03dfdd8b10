//! Bytes to be sent, as few pieces as possible, for one vectored write.

use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Room for headers; grows when an answer to many commands needs more.
const HEADERS: usize = 512;

/// A queue of bytes: small pieces are copied together, payloads are kept as they are.
#[derive(Debug, Default)]
pub struct Outbox {
    sealed: VecDeque<Bytes>,
    open: BytesMut,
    len: usize,
}

impl Outbox {
    /// Bytes waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends by copy: for headers and digests.
    pub(crate) fn copy(&mut self, bytes: &[u8]) {
        if self.open.capacity() < self.open.len() + bytes.len() {
            self.open.reserve(HEADERS.max(bytes.len()));
        }
        self.open.extend_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Appends without copy: for payloads.
    pub(crate) fn append(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.seal();
        self.len += bytes.len();
        self.sealed.push_back(bytes);
    }

    /// Drops what waits: the connection is lost.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    fn seal(&mut self) {
        if !self.open.is_empty() {
            self.sealed.push_back(self.open.split().freeze());
        }
    }

    /// Fills `slices` for a vectored write and says how many it used.
    pub fn slices<'a>(&'a mut self, slices: &mut [IoSlice<'a>]) -> usize {
        self.seal();
        let mut used = 0;
        for (slice, bytes) in slices.iter_mut().zip(&self.sealed) {
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// That many bytes have been sent.
    pub fn advance(&mut self, mut sent: usize) {
        self.len = self.len.saturating_sub(sent);
        while let Some(front) = self.sealed.front_mut() {
            if sent < front.len() {
                front.advance(sent);
                return;
            }
            sent -= front.len();
            self.sealed.pop_front();
        }
    }

    /// Everything that waits, in one piece: for tests and for tools.
    pub fn take_all(&mut self) -> Bytes {
        self.seal();
        self.len = 0;
        let mut all = BytesMut::new();
        for piece in self.sealed.drain(..) {
            all.extend_from_slice(&piece);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_the_order_they_went_in_however_they_are_sent() {
        let mut outbox = Outbox::default();
        outbox.copy(b"ab");
        outbox.append(Bytes::from_static(b"cdef"));
        outbox.copy(b"g");
        outbox.copy(b"h");
        let mut seen = Vec::new();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let used = outbox.slices(&mut slices);
            let all: Vec<u8> = slices.iter().take(used).flat_map(|s| s.to_vec()).collect();
            let sent = all.len().min(3);
            seen.extend_from_slice(&all[..sent]);
            outbox.advance(sent);
        }
        assert_eq!(seen, b"abcdefgh");
    }
}
