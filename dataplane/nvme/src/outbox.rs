//! Bytes to be sent, as few pieces as possible, for one vectored write.

use crate::buffers::Buffers;
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

#[derive(Debug)]
enum Piece {
    /// So many bytes of `small`.
    Small(usize),
    Payload(Bytes),
}

/// A queue of bytes: small pieces are copied together, payloads are kept as they are.
#[derive(Debug, Default)]
pub struct Outbox {
    pieces: VecDeque<Piece>,
    /// All small pieces, one after another.
    small: BytesMut,
    /// Bytes of the first piece that were sent, if it is a payload.
    sent: usize,
    len: usize,
    /// Memory of what was sent.
    pub(crate) buffers: Buffers,
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
        self.small.extend_from_slice(bytes);
        self.len += bytes.len();
        match self.pieces.back_mut() {
            Some(Piece::Small(length)) => *length += bytes.len(),
            _ => self.pieces.push_back(Piece::Small(bytes.len())),
        }
    }

    /// Appends without copy: for payloads.
    pub(crate) fn append(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.len += bytes.len();
            self.pieces.push_back(Piece::Payload(bytes));
        }
    }

    /// Drops what waits: the connection is lost.
    pub(crate) fn clear(&mut self) {
        self.pieces.clear();
        self.small.clear();
        (self.sent, self.len) = (0, 0);
    }

    /// Fills `slices` for a vectored write and says how many it used.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut small, mut sent, mut used) = (&*self.small, self.sent, 0);
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            let bytes = match piece {
                Piece::Small(length) => {
                    let (bytes, rest) = small.split_at_checked(*length).unwrap_or((small, &[]));
                    small = rest;
                    bytes
                }
                Piece::Payload(bytes) => bytes.get(sent..).unwrap_or_default(),
            };
            // Of a small piece nothing is left that was sent.
            sent = 0;
            *slice = IoSlice::new(bytes);
            used += 1;
        }
        used
    }

    /// That many bytes have been sent.
    pub fn advance(&mut self, mut count: usize) {
        self.len = self.len.saturating_sub(count);
        while let Some(front) = self.pieces.front_mut() {
            let left = match front {
                Piece::Small(length) => *length,
                Piece::Payload(bytes) => bytes.len() - self.sent,
            };
            let now = left.min(count);
            match front {
                Piece::Small(length) => {
                    *length -= now;
                    self.small.advance(now);
                }
                Piece::Payload(_) => self.sent += now,
            }
            if now < left {
                return;
            }
            count -= now;
            self.sent = 0;
            if let Some(Piece::Payload(bytes)) = self.pieces.pop_front() {
                self.buffers.give(bytes);
            }
        }
    }

    /// Everything that waits, in one piece: for tests and for tools.
    pub fn take_all(&mut self) -> Bytes {
        let mut all = BytesMut::with_capacity(self.len);
        while !self.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let used = self.slices(&mut slices);
            let taken = slices.iter().take(used).map(|slice| {
                all.extend_from_slice(slice);
                slice.len()
            });
            let taken = taken.sum();
            self.advance(taken);
        }
        all.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_the_order_they_went_in_however_they_are_sent() {
        for most in 1..=8 {
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
                let sent = all.len().min(most);
                seen.extend_from_slice(&all[..sent]);
                outbox.advance(sent);
                if seen.len() == most {
                    outbox.copy(b"!");
                }
            }
            assert_eq!(seen, b"abcdefgh!", "{most} at a time");
        }
    }
}
