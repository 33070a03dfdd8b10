//! One connection of a target: PDUs in, commands out; answers in, PDUs out.

use super::budget::Budget;
use super::slots::{Slot, Slots, Stage};
use crate::command::{Cqe, Direction, SglKind, Sqe};
use crate::digest::Digests;
use crate::inbox::{Collected, Inbox, Step};
use crate::pdu::{
    C2hData, CapsuleCmd, CapsuleResp, Expect, Fault, Flags, H2cData, Head, IcReq, IcResp, PduType,
    R2t, TermReq, emit,
};
use crate::status::Status;
use crate::{IN_CAPSULE, MAX_TRANSFER, Outbox};
use bytes::buf::Limit;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Most data in one H2CData PDU: large enough that headers cost nothing.
const MAXH2CDATA: u32 = 256 << 10;
/// Read at a time before Connect.
const CHUNK_UNKNOWN: usize = 4 << 10;
/// Read at a time afterwards: some capsules with 4 KiB each.
const CHUNK_KNOWN: usize = 32 << 10;

/// What a connection may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Commands not answered yet.
    pub depth: u16,
    /// Bytes of their data, apart from data in capsules.
    pub memory: usize,
    /// The queue has SQ flow control: then each command needs a response capsule.
    pub flow_control: bool,
}

/// Names a command until it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag(u16);

/// A command whose data, if it has any for the controller, are complete.
#[derive(Debug)]
pub struct Command {
    /// Names it in the answer.
    pub tag: Tag,
    /// The entry.
    pub sqe: Sqe,
    /// What the host sent with it.
    pub data: Bytes,
}

/// A PDU whose data are being received.
#[derive(Clone, Copy, Debug)]
struct Transfer {
    tag: u16,
}

/// The state machine. Feed it through [`Connection::buffer`] and [`Connection::received`], ask
/// [`Connection::next_command`] until it has none, and send what [`Connection::outbox`] holds.
#[derive(Debug)]
pub struct Connection {
    inbox: Inbox,
    outbox: Outbox,
    expect: Expect,
    limits: Limits,
    budget: Budget,
    slots: Slots,
    waiting: VecDeque<u16>,
    transfer: Option<Transfer>,
    memory: usize,
    sqhd: u16,
    failed: bool,
}

/// What a target accepts (TCP section 3.6): nothing but ICReq first, and then no second one.
fn limit(kind: PduType, expect: &Expect) -> Option<u32> {
    match kind {
        PduType::IcReq => (!expect.ready).then_some(0),
        PduType::H2cTermReq => Some(crate::pdu::MAX_TERM_ECHO),
        PduType::CapsuleCmd => expect.ready.then_some(expect.capsule),
        PduType::H2cData => expect.ready.then_some(expect.data),
        _ => None,
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// A connection of which nothing is known: one command (Connect) with its data in the capsule
    /// is all it may hold.
    pub fn new() -> Self {
        let digests = Digests::default();
        Self {
            inbox: Inbox::new(CHUNK_UNKNOWN),
            outbox: Outbox::default(),
            expect: Expect {
                digests,
                limit,
                capsule: 1024,
                data: 0,
                ready: false,
            },
            limits: Limits {
                depth: 1,
                memory: 0,
                flow_control: true,
            },
            budget: Budget::new(usize::MAX),
            slots: Slots::new(1),
            waiting: VecDeque::new(),
            transfer: None,
            memory: 0,
            sqhd: 0,
            failed: false,
        }
    }

    /// Connect was accepted: these limits hold from now on.
    pub fn admit(&mut self, limits: Limits) {
        self.limits = limits;
        self.slots.grow(limits.depth);
        self.expect.capsule = IN_CAPSULE;
        self.expect.data = MAXH2CDATA;
        self.inbox.set_chunk(CHUNK_KNOWN);
    }

    /// From now on data count against `budget`, too, and memory that is kept between commands
    /// against `spare`; other queues share both. Call it before [`Connection::admit`].
    pub fn share(&mut self, budget: Budget, spare: Budget) {
        self.budget = budget;
        self.outbox.buffers.keep(spare);
    }

    /// ICReq has come and was answered.
    pub fn is_ready(&self) -> bool {
        self.expect.ready
    }

    /// Digests agreed.
    pub fn digests(&self) -> Digests {
        self.expect.digests
    }

    /// Commands not answered yet.
    pub fn outstanding(&self) -> usize {
        self.slots.len()
    }

    /// Where the next bytes from the host go.
    pub fn buffer(&mut self) -> Limit<&mut BytesMut> {
        self.inbox.buffer()
    }

    /// So many bytes were put there.
    pub fn received(&mut self, count: usize) {
        self.inbox.received(count);
    }

    /// Bytes for the host.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// The next command to execute. After an error nothing comes any more; what the outbox holds
    /// (a termination request) should still be sent.
    pub fn next_command(&mut self) -> Result<Option<Command>, Fault> {
        if self.failed {
            return Ok(None);
        }
        self.advance().inspect_err(|fault| {
            self.failed = true;
            TermReq::emit(
                &mut self.outbox,
                PduType::C2hTermReq,
                *fault,
                self.inbox.about(),
            );
        })
    }

    fn advance(&mut self) -> Result<Option<Command>, Fault> {
        loop {
            if let Some(command) = self.start_waiting() {
                return Ok(Some(command));
            }
            let command = match self.inbox.step(&self.expect)? {
                Step::Starved => return Ok(None),
                Step::Data(data) => self.data(data)?,
                Step::Head(head) => match head.kind {
                    PduType::IcReq => self.ic_req()?,
                    PduType::CapsuleCmd => self.capsule(head)?,
                    PduType::H2cData => self.h2c_data(&head)?,
                    _ => return Err(self.terminated()),
                },
            };
            if command.is_some() {
                return Ok(command);
            }
        }
    }

    fn terminated(&self) -> Fault {
        let request = self.inbox.header::<TermReq>();
        Fault::Terminated(request.map_or(0, |pdu| pdu.fes.get()))
    }

    fn ic_req(&mut self) -> Result<Option<Command>, Fault> {
        let pdu: IcReq = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        let digests = pdu.digests()?;
        let answer = IcResp::new(digests, MAXH2CDATA);
        emit(&mut self.outbox, &answer, Bytes::new(), Digests::default());
        self.expect.digests = digests;
        self.expect.ready = true;
        Ok(None)
    }

    fn capsule(&mut self, head: Head) -> Result<Option<Command>, Fault> {
        let pdu: CapsuleCmd = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        let sqe = pdu.sqe;
        // SQHD counts what was taken from the queue (Base figure 89).
        let depth = self.limits.depth.max(1);
        self.sqhd = if self.sqhd.saturating_add(1) >= depth {
            0
        } else {
            self.sqhd + 1
        };
        // Of what moves no data the descriptor says nothing, whatever length a host writes there.
        let length = match sqe.direction() {
            Direction::None => 0,
            _ => sqe.sgl.length.get(),
        };
        let slot = Slot {
            sqe,
            length,
            memory: 0,
            shared: 0,
            stage: Stage::Executing,
        };
        if self.slots.holds_id(sqe.cid.get()) {
            self.respond(&sqe, Status::COMMAND_ID_CONFLICT, 0);
            return Ok(None);
        }
        // A host that sends more commands than the queue has entries cannot be answered: its
        // responses would not fit either.
        let tag = self.slots.insert(slot).ok_or(Fault::DataLimit)?;
        match self.place(tag, &sqe, length, head.inline) {
            Ok(command) => Ok(command),
            Err(status) => {
                self.complete(Tag(tag), status, 0);
                Ok(None)
            }
        }
    }

    /// Decides where the data of a new command come from or go to (TCP section 3.4).
    fn place(
        &mut self,
        tag: u16,
        sqe: &Sqe,
        length: u32,
        inline: Option<(Bytes, bool)>,
    ) -> Result<Option<Command>, Status> {
        let kind = sqe.sgl.parse()?;
        let direction = match length {
            0 => Direction::None,
            _ => sqe.direction(),
        };
        let execute = |data| {
            Ok(Some(Command {
                tag: Tag(tag),
                sqe: *sqe,
                data,
            }))
        };
        match (kind, direction, inline) {
            (SglKind::InCapsule, Direction::ToController, Some((data, intact))) => {
                if data.len() as u64 != u64::from(length) {
                    return Err(Status::DATA_SGL_LENGTH_INVALID);
                }
                if !intact {
                    return Err(Status::TRANSIENT_TRANSPORT);
                }
                execute(data)
            }
            // Data in a capsule that does not speak of them, or the other way round.
            (SglKind::Transport, _, Some(_)) | (SglKind::InCapsule, _, _) => {
                Err(Status::SGL_TYPE_INVALID)
            }
            (SglKind::Transport, Direction::None, None) => execute(Bytes::new()),
            (SglKind::Transport, Direction::Both, None) => Err(Status::INVALID_OPCODE),
            (SglKind::Transport, _, None) => {
                // Base section 5.17.2.1, MDTS: such a command is aborted with Invalid Field.
                if length > MAX_TRANSFER || self.limits.memory == 0 {
                    return Err(Status::INVALID_FIELD);
                }
                if let Some(slot) = self.slots.get_mut(tag) {
                    slot.stage = Stage::Waiting;
                }
                self.waiting.push_back(tag);
                Ok(self.start_waiting())
            }
        }
    }

    /// Starts what waits for memory, in order, as far as there is some.
    fn start_waiting(&mut self) -> Option<Command> {
        while let Some(tag) = self.waiting.front().copied() {
            let slot = self.slots.get_mut(tag)?;
            let need = usize::try_from(slot.length).unwrap_or(usize::MAX);
            let held = self.memory + self.outbox.len();
            // One command of each queue always fits, or nothing would ever move. So a queue never
            // waits for another: what it waits for is the end of a command of its own.
            let fits = held.saturating_add(need) <= self.limits.memory;
            let shared = fits && self.budget.take(need);
            if self.memory > 0 && !shared {
                return None;
            }
            self.waiting.pop_front();
            slot.memory = need;
            slot.shared = if shared { need } else { 0 };
            self.memory += need;
            if slot.sqe.direction() == Direction::ToHost {
                slot.stage = Stage::Executing;
                return Some(Command {
                    tag: Tag(tag),
                    sqe: slot.sqe,
                    data: Bytes::new(),
                });
            }
            let mut data = self.outbox.buffers.take(need);
            data.clear();
            slot.stage = Stage::Receiving {
                data,
                promised: 0,
                spoiled: false,
            };
            // One R2T for the whole of it: the host divides by MAXH2CDATA.
            let pdu = R2t::new(slot.sqe.cid.get(), tag, 0, slot.length, self.expect.digests);
            emit(&mut self.outbox, &pdu, Bytes::new(), self.expect.digests);
        }
        None
    }

    fn h2c_data(&mut self, head: &Head) -> Result<Option<Command>, Fault> {
        let pdu: H2cData = self.inbox.header().ok_or(Fault::HeaderField(0))?;
        let (tag, datal) = (pdu.ttag.get(), pdu.datal.get());
        let slot = self.slots.get_mut(tag).ok_or(Fault::HeaderField(10))?;
        let Stage::Receiving { data, promised, .. } = &mut slot.stage else {
            return Err(Fault::Sequence);
        };
        if pdu.cccid != slot.sqe.cid {
            return Err(Fault::HeaderField(8));
        }
        if u64::from(datal) != head.data as u64 || datal == 0 {
            return Err(Fault::HeaderField(16));
        }
        let end = promised
            .checked_add(datal)
            .filter(|end| *end <= slot.length);
        let (Some(end), true) = (end, pdu.datao.get() == *promised) else {
            return Err(Fault::DataRange);
        };
        if head.flags.has(Flags::LAST) != (end == slot.length) {
            return Err(Fault::HeaderField(1));
        }
        *promised = end;
        self.inbox
            .collect(std::mem::take(data), head.data, self.expect.digests);
        self.transfer = Some(Transfer { tag });
        Ok(None)
    }

    fn data(&mut self, collected: Collected) -> Result<Option<Command>, Fault> {
        let Transfer { tag } = self.transfer.take().ok_or(Fault::Sequence)?;
        let slot = self.slots.get_mut(tag).ok_or(Fault::Sequence)?;
        let Stage::Receiving {
            data,
            promised,
            spoiled,
        } = &mut slot.stage
        else {
            return Err(Fault::Sequence);
        };
        *spoiled |= !collected.intact;
        *data = collected.into;
        if *promised < slot.length {
            return Ok(None);
        }
        if *spoiled {
            self.complete(Tag(tag), Status::TRANSIENT_TRANSPORT, 0);
            return Ok(None);
        }
        let data = std::mem::take(data).freeze();
        slot.stage = Stage::Executing;
        Ok(Some(Command {
            tag: Tag(tag),
            sqe: slot.sqe,
            data,
        }))
    }

    /// Memory for what this command reads: as much as the host has room for. What is in it is of no
    /// meaning, and must be overwritten before it is given to [`Connection::complete_with`].
    pub fn room(&mut self, command: &Command) -> BytesMut {
        match self.slots.get_mut(command.tag.0) {
            Some(slot) if slot.length <= MAX_TRANSFER => {
                self.outbox.buffers.take(slot.length as usize)
            }
            _ => BytesMut::new(),
        }
    }

    /// Takes data of a command back that was executed, to receive the next ones with.
    pub fn recycle(&mut self, data: Bytes) {
        self.outbox.buffers.give(data);
    }

    /// Answers a command without data for the host.
    pub fn complete(&mut self, tag: Tag, status: Status, result: u64) {
        if let Some(slot) = self.release(tag) {
            self.respond(&slot.sqe, status, result);
        }
    }

    /// Answers a command with its data. They are cut or filled with zeros to what the host has
    /// room for: a host counts a read with fewer bytes than asked as a fault.
    pub fn complete_with(&mut self, tag: Tag, data: Bytes, result: u64) {
        let Some(slot) = self.release(tag) else {
            return;
        };
        let data = fit(data, slot.length);
        let digests = self.expect.digests;
        if !data.is_empty() {
            // SUCCESS takes the place of the response only where SQHD means nothing, and dwords
            // 0 and 1 cannot be told with it (TCP section 3.3.2).
            let success = !self.limits.flow_control && result == 0;
            let cid = slot.sqe.cid.get();
            emit(
                &mut self.outbox,
                &C2hData::whole(cid, slot.length, success, digests),
                data,
                digests,
            );
            if success {
                return;
            }
        }
        self.respond(&slot.sqe, Status::SUCCESS, result);
    }

    fn release(&mut self, tag: Tag) -> Option<Slot> {
        let slot = self.slots.remove(tag.0)?;
        self.memory -= slot.memory;
        self.budget.give_back(slot.shared);
        Some(slot)
    }

    fn respond(&mut self, sqe: &Sqe, status: Status, result: u64) {
        let cqe = Cqe::new(sqe.cid.get(), status, result, self.sqhd);
        let digests = self.expect.digests;
        emit(
            &mut self.outbox,
            &CapsuleResp::new(cqe, digests),
            Bytes::new(),
            digests,
        );
    }

    /// Answers a Connect: SQHD FFFFh tells the host that SQ flow control is off, as it asked
    /// (Fabrics section 3.3).
    pub fn complete_connect(&mut self, tag: Tag, controller: u16) {
        if !self.limits.flow_control {
            self.sqhd = u16::MAX;
        }
        self.complete(tag, Status::SUCCESS, u64::from(controller));
        self.sqhd = 0;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.budget.give_back(self.slots.shared());
    }
}

fn fit(mut data: Bytes, length: u32) -> Bytes {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if data.len() >= length {
        data.truncate(length);
        return data;
    }
    let mut padded = BytesMut::zeroed(length);
    if let Some(head) = padded.get_mut(..data.len()) {
        head.copy_from_slice(&data);
    }
    padded.freeze()
}
