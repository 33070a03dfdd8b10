//! Commands of one queue that are not answered yet.

use crate::command::Sqe;
use bytes::BytesMut;

/// Where a command is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Waits for memory for its data.
    Waiting,
    /// Its data are asked for and come.
    Receiving {
        /// What has come; taken while a PDU fills it.
        data: BytesMut,
        /// Bytes that have come, and come with the PDU that is being received.
        promised: u32,
        /// A digest was wrong: the data must not be used.
        spoiled: bool,
    },
    /// Handed out to be executed.
    Executing,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub sqe: Sqe,
    pub length: u32,
    /// Counts against the memory of the queue.
    pub memory: usize,
    /// That much of it was taken from what all queues share.
    pub shared: usize,
    pub stage: Stage,
}

/// Of a slot that is free: beyond all identifiers.
const NO_ID: u32 = u32::MAX;

/// Fixed number of slots; the index is the transfer tag.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u16>,
    /// Identifier in each slot, apart and plain so that a search takes a few vector instructions.
    ids: Vec<u32>,
}

impl Slots {
    pub fn new(depth: u16) -> Self {
        let mut slots = Self {
            slots: Vec::new(),
            free: Vec::new(),
            ids: Vec::new(),
        };
        slots.grow(depth);
        slots
    }

    /// Never shrinks: tags in use stay valid.
    pub fn grow(&mut self, depth: u16) {
        let have = u16::try_from(self.slots.len()).unwrap_or(u16::MAX);
        for index in (have..depth).rev() {
            self.free.push(index);
        }
        let depth = usize::from(depth.max(have));
        self.slots.resize_with(depth, || None);
        self.ids.resize(depth, NO_ID);
    }

    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Bytes of all commands that were taken from what all queues share.
    pub fn shared(&self) -> usize {
        self.slots.iter().flatten().map(|slot| slot.shared).sum()
    }

    pub fn holds_id(&self, id: u16) -> bool {
        self.ids.contains(&u32::from(id))
    }

    /// `None` if the queue is full.
    pub fn insert(&mut self, slot: Slot) -> Option<u16> {
        let index = self.free.pop()?;
        let id = slot.sqe.cid.get();
        *self.slots.get_mut(usize::from(index))? = Some(slot);
        *self.ids.get_mut(usize::from(index))? = id.into();
        Some(index)
    }

    pub fn get_mut(&mut self, index: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index))?.as_mut()
    }

    pub fn remove(&mut self, index: u16) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::from(index))?.take()?;
        if let Some(id) = self.ids.get_mut(usize::from(index)) {
            *id = NO_ID;
        }
        self.free.push(index);
        Some(slot)
    }
}
