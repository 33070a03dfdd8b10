//! Bytes received, taken apart into PDUs: the receive half that both ends share.

use crate::digest::{Digests, crc32c};
use crate::pdu::{CommonHeader, Expect, Fault, Head, MAX_HEADER, PduType, check_frame};
use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use zerocopy::FromBytes;

/// Payload that is still missing is read from the socket straight into its buffer from this size
/// on; below, a system call of its own would cost more than the copy.
const DIRECT: usize = 4096;

/// What came.
#[derive(Debug)]
pub(crate) enum Step {
    /// Nothing more without more bytes.
    Starved,
    /// A PDU. If it has data that are not inline, [`Inbox::collect`] must be called next.
    Head(Head),
    /// The data of the last PDU are complete.
    Data(Collected),
}

/// Data of one PDU, appended to the buffer given to [`Inbox::collect`].
#[derive(Debug)]
pub(crate) struct Collected {
    pub into: BytesMut,
    /// The digest was right, or there is none.
    pub intact: bool,
}

#[derive(Debug)]
struct Payload {
    into: BytesMut,
    start: usize,
    missing: usize,
    digest: bool,
}

#[derive(Debug)]
pub(crate) struct Inbox {
    bytes: BytesMut,
    chunk: usize,
    payload: Option<Payload>,
    direct: bool,
    /// Header of the PDU that is looked at, for the termination request.
    about: ([u8; MAX_HEADER], usize),
}

impl Inbox {
    pub fn new(chunk: usize) -> Self {
        Self {
            bytes: BytesMut::new(),
            chunk,
            payload: None,
            direct: false,
            about: ([0; MAX_HEADER], 0),
        }
    }

    /// How much is read at a time from now on.
    pub fn set_chunk(&mut self, chunk: usize) {
        self.chunk = chunk;
    }

    /// Where the next bytes from the socket go.
    pub fn buffer(&mut self) -> Limit<&mut BytesMut> {
        if let Some(payload) = &mut self.payload
            && payload.missing >= DIRECT
            && self.bytes.is_empty()
        {
            self.direct = true;
            return (&mut payload.into).limit(payload.missing);
        }
        self.direct = false;
        if self.bytes.capacity() - self.bytes.len() < self.chunk / 4 {
            self.bytes.reserve(self.chunk);
        }
        let room = self.bytes.capacity() - self.bytes.len();
        (&mut self.bytes).limit(room)
    }

    /// So many bytes were put into [`Inbox::buffer`].
    pub fn received(&mut self, count: usize) {
        if self.direct
            && let Some(payload) = &mut self.payload
        {
            payload.missing = payload.missing.saturating_sub(count);
        }
    }

    /// The PDU just reported carries data: they are appended to `into`.
    pub fn collect(&mut self, into: BytesMut, count: usize, digests: Digests) {
        let start = into.len();
        self.payload = Some(Payload {
            into,
            start,
            missing: count,
            digest: digests.data,
        });
    }

    /// Header bytes of the PDU last looked at.
    pub fn about(&self) -> &[u8] {
        self.about.0.get(..self.about.1).unwrap_or_default()
    }

    /// That header as a PDU of this type.
    pub fn header<T: FromBytes>(&self) -> Option<T> {
        T::read_from_prefix(self.about()).ok().map(|(pdu, _)| pdu)
    }

    /// The buffer of an unfinished payload: the connection is lost.
    pub fn abandon(&mut self) -> Option<BytesMut> {
        self.payload.take().map(|payload| payload.into)
    }

    pub fn step(&mut self, expect: &Expect) -> Result<Step, Fault> {
        if self.payload.is_some() {
            return Ok(self.fill().map_or(Step::Starved, Step::Data));
        }
        let Ok((common, _)) = CommonHeader::ref_from_prefix(&self.bytes) else {
            return Ok(Step::Starved);
        };
        let common = *common;
        let frame = check_frame(&common, expect).inspect_err(|_| self.remember(8))?;
        // Capsules and the small rest are taken whole: they are at most a few KiB.
        let streamed = matches!(frame.kind, PduType::H2cData | PduType::C2hData);
        let whole = frame.start()
            + if streamed {
                0
            } else {
                frame.data + frame.trailer()
            };
        if self.bytes.len() < whole {
            self.bytes.reserve(whole - self.bytes.len());
            return Ok(Step::Starved);
        }
        self.remember(frame.hlen);
        self.bytes.advance(self.about.1);
        if frame.header_digest {
            let received = self.bytes.get_u32_le();
            if received != crc32c(self.about()) {
                return Err(Fault::HeaderDigest(received));
            }
        }
        let inline =
            (!streamed && frame.data > 0).then(|| self.take(frame.data, frame.data_digest));
        let (kind, flags, data) = (frame.kind, frame.flags, frame.data);
        Ok(Step::Head(Head {
            kind,
            flags,
            data,
            inline,
        }))
    }

    fn remember(&mut self, count: usize) {
        let count = count.min(MAX_HEADER).min(self.bytes.len());
        if let (Some(to), Some(from)) = (self.about.0.get_mut(..count), self.bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        self.about.1 = count;
    }

    /// The caller has checked that data and trailer are there.
    fn take(&mut self, data: usize, digest: bool) -> (Bytes, bool) {
        let data = self.bytes.split_to(data).freeze();
        let intact = !digest || self.bytes.get_u32_le() == crc32c(&data);
        (data, intact)
    }

    fn fill(&mut self) -> Option<Collected> {
        let payload = self.payload.as_mut()?;
        let count = payload.missing.min(self.bytes.len());
        if let Some(part) = self.bytes.get(..count) {
            payload.into.extend_from_slice(part);
        }
        self.bytes.advance(count);
        payload.missing -= count;
        if payload.missing > 0 || (payload.digest && self.bytes.len() < 4) {
            return None;
        }
        let payload = self.payload.take()?;
        let intact = !payload.digest
            || payload.into.get(payload.start..).map(crc32c) == Some(self.bytes.get_u32_le());
        Some(Collected {
            into: payload.into,
            intact,
        })
    }
}
