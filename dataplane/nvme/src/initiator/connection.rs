//! One connection of an initiator: commands in, PDUs out; PDUs in, completions out.

use crate::command::{Cqe, Sgl, Sqe};
use crate::digest::Digests;
use crate::inbox::{Collected, Inbox, Step};
use crate::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, Expect, Fault, Flags, H2cData, Head, IcReq, IcResp, PduType,
    R2t, TermReq, emit,
};
use crate::status::Status;
use crate::{MAX_TRANSFER, Outbox};
use bytes::buf::Limit;
use bytes::{Bytes, BytesMut};

/// Read at a time: many responses, or some blocks.
const CHUNK: usize = 64 << 10;
/// Bits of an identifier that name the slot; the upper four count its uses, so that a late or a
/// doubled answer is not taken for that of a newer command.
const SLOT_BITS: u32 = 12;
/// Most commands at a time.
const MAX_DEPTH: u16 = 1 << SLOT_BITS;

/// Data of a command.
#[derive(Debug)]
pub enum Payload {
    /// None.
    None,
    /// For the controller.
    ToController(Bytes),
    /// From the controller: the length is what is asked for; the contents are replaced.
    ToHost(BytesMut),
}

/// A completed command.
#[derive(Debug)]
pub struct Done<T> {
    /// What was given to [`Connection::submit`].
    pub token: T,
    /// Its completion.
    pub cqe: Cqe,
    /// The buffer, with the length it was given with. Its contents are the data only if the
    /// status is success.
    pub data: BytesMut,
}

#[derive(Debug)]
enum Transfer {
    None,
    Out {
        data: Bytes,
        sent: u32,
    },
    In {
        data: BytesMut,
        length: usize,
        promised: usize,
        spoiled: bool,
    },
}

#[derive(Debug)]
struct Slot<T> {
    token: T,
    transfer: Transfer,
}

/// The state machine. Feed it as the target's; `T` names commands to the caller.
#[derive(Debug)]
pub struct Connection<T> {
    inbox: Inbox,
    outbox: Outbox,
    expect: Expect,
    asked: Digests,
    maxh2cdata: u32,
    capsule: u32,
    slots: Vec<Option<Slot<T>>>,
    uses: Vec<u8>,
    free: Vec<u16>,
    receiving: Option<u16>,
    /// The data being received stand for a successful completion of this identifier.
    success_follows: Option<u16>,
    failed: bool,
}

/// What an initiator accepts (TCP section 3.6): ICResp first, and only once.
fn limit(kind: PduType, expect: &Expect) -> Option<u32> {
    match kind {
        PduType::IcResp => (!expect.ready).then_some(0),
        PduType::C2hTermReq => Some(crate::pdu::MAX_TERM_ECHO),
        PduType::CapsuleResp | PduType::R2t => expect.ready.then_some(0),
        PduType::C2hData => expect.ready.then_some(expect.data),
        _ => None,
    }
}

impl<T> Connection<T> {
    /// A connection that has asked for these digests (ICReq is in the outbox), for that many
    /// commands at a time, with up to `capsule` bytes of data in a capsule.
    pub fn new(digests: Digests, depth: u16, capsule: u32) -> Self {
        let mut outbox = Outbox::default();
        emit(
            &mut outbox,
            &IcReq::new(digests),
            Bytes::new(),
            Digests::default(),
        );
        let depth = depth.clamp(1, MAX_DEPTH);
        let expect = Expect {
            digests: Digests::default(),
            limit,
            capsule: 0,
            data: MAX_TRANSFER,
            ready: false,
        };
        Self {
            inbox: Inbox::new(CHUNK),
            outbox,
            expect,
            asked: digests,
            maxh2cdata: 0,
            capsule,
            slots: std::iter::repeat_with(|| None).take(depth.into()).collect(),
            uses: vec![0; depth.into()],
            free: (0..depth).rev().collect(),
            receiving: None,
            success_follows: None,
            failed: false,
        }
    }

    /// ICResp has come and was accepted.
    pub fn is_ready(&self) -> bool {
        self.expect.ready
    }

    /// Whether one more command may be submitted.
    pub fn has_room(&self) -> bool {
        !self.free.is_empty() && !self.failed
    }

    /// Commands not answered yet.
    pub fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Where the next bytes from the target go.
    pub fn buffer(&mut self) -> Limit<&mut BytesMut> {
        self.inbox.buffer()
    }

    /// So many bytes were put there.
    pub fn received(&mut self, count: usize) {
        self.inbox.received(count);
    }

    /// Bytes for the target.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Sends a command. Gives token and payload back if there is no room or the payload is larger
    /// than any command may move.
    pub fn submit(&mut self, mut sqe: Sqe, payload: Payload, token: T) -> Result<(), (T, Payload)> {
        let size = match &payload {
            Payload::None => 0,
            Payload::ToController(data) => data.len(),
            Payload::ToHost(buffer) => buffer.len(),
        };
        let length = u32::try_from(size)
            .ok()
            .filter(|length| *length <= MAX_TRANSFER);
        let (Some(length), true, Some(index)) = (length, self.has_room(), self.free.pop()) else {
            return Err((token, payload));
        };
        let id = self.identify(index);
        sqe.cid = id.into();
        sqe.sgl = Sgl::transport(length);
        let mut inline = Bytes::new();
        let transfer = match payload {
            Payload::None => Transfer::None,
            // What fits is always sent at once: the target never has to ask for it.
            Payload::ToController(data) if length <= self.capsule && length > 0 => {
                sqe.sgl = Sgl::in_capsule(length);
                inline = data;
                Transfer::None
            }
            Payload::ToController(data) => Transfer::Out { data, sent: 0 },
            Payload::ToHost(mut data) => {
                data.clear();
                Transfer::In {
                    data,
                    length: size,
                    promised: 0,
                    spoiled: false,
                }
            }
        };
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            *slot = Some(Slot { token, transfer });
        }
        let digests = self.expect.digests;
        emit(
            &mut self.outbox,
            &CapsuleCmd::new(sqe, inline.len(), digests),
            inline,
            digests,
        );
        Ok(())
    }

    fn identify(&mut self, index: u16) -> u16 {
        let uses = self.uses.get_mut(usize::from(index)).map_or(0, |uses| {
            *uses = uses.wrapping_add(1) & 0xf;
            *uses
        });
        index | u16::from(uses) << SLOT_BITS
    }

    /// Looks a received identifier up; `at` is where it stood.
    fn index(&self, id: u16, at: u32) -> Result<u16, Fault> {
        let (index, uses) = (id & (MAX_DEPTH - 1), id >> SLOT_BITS);
        let live = self
            .slots
            .get(usize::from(index))
            .is_some_and(Option::is_some);
        let same = self
            .uses
            .get(usize::from(index))
            .is_some_and(|used| u16::from(*used) == uses);
        if live && same {
            Ok(index)
        } else {
            Err(Fault::HeaderField(at))
        }
    }

    fn transfer(&mut self, index: u16) -> Result<&mut Transfer, Fault> {
        let slot = self
            .slots
            .get_mut(usize::from(index))
            .and_then(Option::as_mut);
        slot.map(|slot| &mut slot.transfer).ok_or(Fault::Sequence)
    }

    /// The next completion. After an error nothing comes any more: the association is lost, and
    /// [`Connection::abandon`] gives back what was not answered.
    pub fn next_done(&mut self) -> Result<Option<Done<T>>, Fault> {
        if self.failed {
            return Ok(None);
        }
        self.advance().inspect_err(|fault| {
            self.failed = true;
            self.outbox.clear();
            TermReq::emit(
                &mut self.outbox,
                PduType::H2cTermReq,
                *fault,
                self.inbox.about(),
            );
        })
    }

    fn advance(&mut self) -> Result<Option<Done<T>>, Fault> {
        loop {
            let done = match self.inbox.step(&self.expect)? {
                Step::Starved => return Ok(None),
                Step::Data(data) => self.data(data)?,
                Step::Head(head) => match head.kind {
                    PduType::IcResp => self.ic_resp()?,
                    PduType::CapsuleResp => self.response()?,
                    PduType::C2hData => self.c2h_data(&head)?,
                    PduType::R2t => self.r2t()?,
                    _ => {
                        let fes = self
                            .inbox
                            .header::<TermReq>()
                            .map_or(0, |pdu| pdu.fes.get());
                        return Err(Fault::Terminated(fes));
                    }
                },
            };
            if done.is_some() {
                return Ok(done);
            }
        }
    }

    fn ic_resp(&mut self) -> Result<Option<Done<T>>, Fault> {
        let pdu: IcResp = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        self.maxh2cdata = pdu.accept(self.asked)?;
        self.expect.digests = self.asked;
        self.expect.ready = true;
        Ok(None)
    }

    fn response(&mut self) -> Result<Option<Done<T>>, Fault> {
        const CID: u32 = 8 + 12;
        let cqe = self
            .inbox
            .header::<CapsuleResp>()
            .ok_or(Fault::HeaderField(0))?
            .cqe;
        let index = self.index(cqe.cid.get(), CID)?;
        if let Transfer::In {
            length, promised, ..
        } = self.transfer(index)?
            && cqe.status().is_success()
            && promised != length
        {
            return Err(Fault::DataRange);
        }
        // A write that succeeds before all its data were asked for was not written.
        if let Transfer::Out { data, sent } = self.transfer(index)?
            && cqe.status().is_success()
            && u64::from(*sent) != data.len() as u64
        {
            return Err(Fault::Sequence);
        }
        Ok(self.finish(index, cqe))
    }

    fn finish(&mut self, index: u16, mut cqe: Cqe) -> Option<Done<T>> {
        let slot = self.slots.get_mut(usize::from(index))?.take()?;
        self.free.push(index);
        let mut buffer = BytesMut::new();
        if let Transfer::In {
            mut data,
            length,
            spoiled,
            ..
        } = slot.transfer
        {
            data.resize(length, 0);
            buffer = data;
            if spoiled && cqe.status().is_success() {
                cqe.status = Status::TRANSIENT_TRANSPORT.to_field().into();
            }
        }
        Some(Done {
            token: slot.token,
            cqe,
            data: buffer,
        })
    }

    fn c2h_data(&mut self, head: &Head) -> Result<Option<Done<T>>, Fault> {
        let pdu: C2hData = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        let index = self.index(pdu.cccid.get(), 8)?;
        let last = head.flags.has(Flags::LAST);
        if head.flags.has(Flags::SUCCESS) && !last {
            return Err(Fault::HeaderField(1));
        }
        if u64::from(pdu.datal.get()) != head.data as u64 || head.data == 0 {
            return Err(Fault::HeaderField(16));
        }
        let digests = self.expect.digests;
        let Transfer::In {
            data,
            length,
            promised,
            ..
        } = self.transfer(index)?
        else {
            return Err(Fault::Sequence);
        };
        let end = promised.checked_add(head.data).filter(|end| end <= length);
        let in_order = u64::from(pdu.datao.get()) == *promised as u64;
        let (Some(end), true) = (end, in_order) else {
            return Err(Fault::DataRange);
        };
        *promised = end;
        let complete = end == *length;
        let into = std::mem::take(data);
        if head.flags.has(Flags::SUCCESS) && !complete {
            return Err(Fault::DataRange);
        }
        self.inbox.collect(into, head.data, digests);
        self.receiving = Some(index);
        self.success_follows = head.flags.has(Flags::SUCCESS).then_some(pdu.cccid.get());
        Ok(None)
    }

    fn data(&mut self, collected: Collected) -> Result<Option<Done<T>>, Fault> {
        let index = self.receiving.take().ok_or(Fault::Sequence)?;
        if let Transfer::In { data, spoiled, .. } = self.transfer(index)? {
            *data = collected.into;
            *spoiled |= !collected.intact;
        }
        let Some(id) = self.success_follows.take() else {
            return Ok(None);
        };
        Ok(self.finish(index, Cqe::new(id, Status::SUCCESS, 0, 0)))
    }

    fn r2t(&mut self) -> Result<Option<Done<T>>, Fault> {
        let pdu: R2t = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        let index = self.index(pdu.cccid.get(), 8)?;
        let Transfer::Out { data, sent } = self.transfer(index)? else {
            return Err(Fault::Sequence);
        };
        let (offset, length) = (pdu.r2to.get(), pdu.r2tl.get());
        let end = offset
            .checked_add(length)
            .filter(|end| u64::from(*end) <= data.len() as u64);
        let (Some(end), true, true) = (end, length > 0, offset == *sent) else {
            return Err(Fault::DataRange);
        };
        *sent = end;
        let data = data.clone();
        self.send(&pdu, &data, offset, end);
        Ok(None)
    }

    /// Answers an R2T, in PDUs of at most MAXH2CDATA.
    fn send(&mut self, r2t: &R2t, data: &Bytes, offset: u32, end: u32) {
        let digests = self.expect.digests;
        let mut at = offset;
        while at < end {
            let length = (end - at).min(self.maxh2cdata);
            let last = at + length == end;
            let (id, tag) = (r2t.cccid.get(), r2t.ttag.get());
            let pdu = H2cData::new(id, tag, at, length, last, digests);
            let part = data.slice(at as usize..(at + length) as usize);
            emit(&mut self.outbox, &pdu, part, digests);
            at += length;
        }
    }

    /// The association is lost: what was not answered, with its buffers.
    pub fn abandon(&mut self) -> Vec<(T, BytesMut)> {
        self.failed = true;
        self.outbox.clear();
        let mut partial = self.receiving.take().zip(self.inbox.abandon());
        let mut lost = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(Slot { token, transfer }) = slot.take() else {
                continue;
            };
            let mut buffer = BytesMut::new();
            if let Transfer::In { data, length, .. } = transfer {
                buffer = match partial.take_if(|(receiving, _)| usize::from(*receiving) == index) {
                    Some((_, partial)) => partial,
                    None => data,
                };
                buffer.resize(length, 0);
            }
            lost.push((token, buffer));
        }
        lost
    }
}
