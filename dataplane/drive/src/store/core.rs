//! What the store knows in memory, changed under one lock that is never held while waiting.
//! Decides which chunks a request touches; does no I/O.

use super::bitmap::FreeMap;
use super::hot::Hot;
use super::pending::Pending;
use super::tables::{ChunkIndex, ChunkNumber, SliceNumber};
use crate::superblock::CHUNK;
use std::collections::{HashMap, HashSet};
use std::ops::{Range, RangeInclusive};
use weft_block::BLOCK;

/// Entries of the chunk map that are cached and loaded together: 4 KiB for 64 MiB of a slice.
pub const LEAF: u32 = 1024;
/// Most leaves cached: 512 KiB for 8 GiB of slices in use at a time.
const MAX_LEAVES: usize = 128;

/// Which leaf of the chunk map.
pub type LeafKey = (SliceNumber, u32);

/// Indexes of the chunks of a leaf.
pub fn in_leaf(leaf: u32) -> RangeInclusive<u32> {
    leaf * LEAF..=leaf * LEAF + (LEAF - 1)
}

/// The part of a request that lies in one chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Chunk of the slice.
    pub index: ChunkIndex,
    /// First byte in the chunk.
    pub within: u64,
    /// Bytes.
    pub length: u64,
    /// First byte in the request's buffer.
    pub at: usize,
}

impl Piece {
    /// Whether it is the whole chunk.
    pub fn is_whole(&self) -> bool {
        self.length == CHUNK
    }

    /// The blocks of the chunk, a bit each.
    pub fn mask(&self) -> u16 {
        let (first, count) = (self.within / BLOCK, self.length / BLOCK);
        // At most 16 blocks.
        (((1u32 << count) - 1) << first) as u16
    }

    /// The blocks of the slice: the first of the chunk, and which from there.
    pub fn blocks(&self) -> (u64, u16) {
        (u64::from(self.index.0) * (CHUNK / BLOCK), self.mask())
    }

    fn leaf(&self, slice: SliceNumber) -> LeafKey {
        (slice, self.index.0 / LEAF)
    }
}

/// Cuts a request at the borders of chunks. The caller has checked that it ends within a slice,
/// whose size keeps every index below 2^32.
pub fn pieces(offset: u64, length: u64) -> impl Iterator<Item = Piece> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done;
        let within = at % CHUNK;
        let piece = (length - done).min(CHUNK - within);
        let found = Piece {
            index: ChunkIndex((at / CHUNK) as u32),
            within,
            length: piece,
            at: done as usize,
        };
        done += piece;
        (piece > 0).then_some(found)
    })
}

/// Adjacent bytes on the medium for adjacent bytes of the buffer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// First byte from the start of chunk 0.
    pub offset: u64,
    /// In the request's buffer.
    pub buffer: Range<usize>,
}

/// Adds a piece to extents, to the last one where it continues it.
pub fn extend(extents: &mut Vec<Extent>, chunk: ChunkNumber, piece: &Piece) {
    let offset = u64::from(chunk.0) * CHUNK + piece.within;
    let end = piece.at + piece.length as usize;
    match extents.last_mut() {
        Some(last)
            if last.buffer.end == piece.at && last.offset + last.buffer.len() as u64 == offset =>
        {
            last.buffer.end = end;
        }
        _ => extents.push(Extent {
            offset,
            buffer: piece.at..end,
        }),
    }
}

/// Why a request cannot be planned yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotYet {
    /// This part of the chunk map is not in memory.
    Missing(LeafKey),
    /// Another request has blocks of it in use.
    Locked,
}

/// Where the pieces of a request are; those without a chunk are left out.
pub type Placed = Vec<(Piece, ChunkNumber)>;

/// What one look at the map finds for the pieces of a write.
#[derive(Debug, Default)]
pub struct WriteRound {
    /// Pieces in chunks that the slice has, pinned.
    pub mapped: Vec<(Piece, ChunkNumber)>,
    /// Pieces in chunks given now; no one else sees them before they are settled.
    pub fresh: Vec<(Piece, ChunkNumber)>,
    /// Pieces in chunks that another write is being given, or for which a free is under way.
    pub blocked: Vec<Piece>,
    /// Nothing is free and nothing will be soon.
    pub full: bool,
}

/// What one look at the map finds for a range that shall be zeros.
#[derive(Debug, Default)]
pub struct ZeroRound {
    /// Whole chunks that the slice gives up, locked.
    pub whole: Vec<(Piece, ChunkNumber)>,
    /// Parts of chunks that it keeps, pinned and locked.
    pub parts: Vec<(Piece, ChunkNumber)>,
    /// Some of it has no chunk.
    pub bare: bool,
    /// Chunks that others use.
    pub blocked: Vec<Piece>,
}

struct Leaf {
    /// Chunk number + 1; 0 for none.
    entries: Box<[u32; LEAF as usize]>,
    used: u64,
}

#[derive(Default)]
struct Pin {
    requests: u32,
    /// Freed durably, but these requests still use it.
    dying: bool,
}

/// See the module.
pub struct Core {
    free: FreeMap,
    /// Chunks that no slice has any more but that cannot be given yet.
    freeing: u32,
    pins: HashMap<ChunkNumber, Pin>,
    leaves: HashMap<LeafKey, Leaf>,
    /// Leaves being loaded, and the number of folds before the load began.
    loading: HashMap<LeafKey, u64>,
    fresh: HashSet<(SliceNumber, ChunkIndex)>,
    /// Blocks that a write, or a read that must be certain, has in use.
    locks: HashMap<(SliceNumber, ChunkIndex), u16>,
    mapped: HashMap<SliceNumber, u32>,
    clock: u64,
    /// What is not folded yet.
    pub pending: Pending,
    /// Which regions are hot.
    pub hot: Hot,
}

impl Core {
    /// With what the chunk map says.
    pub fn new(free: FreeMap, mapped: HashMap<SliceNumber, u32>) -> Self {
        Self {
            free,
            freeing: 0,
            pins: HashMap::new(),
            leaves: HashMap::new(),
            loading: HashMap::new(),
            fresh: HashSet::new(),
            locks: HashMap::new(),
            mapped,
            clock: 0,
            pending: Pending::default(),
            hot: Hot::default(),
        }
    }

    /// Chunks of no slice. Those that wait for a flush are given after it, which who needs one asks for.
    pub fn free(&self) -> u64 {
        u64::from(self.free.free() + self.freeing)
    }

    /// Chunks that a slice has.
    pub fn mapped(&self, slice: SliceNumber) -> u64 {
        self.mapped.get(&slice).copied().unwrap_or(0).into()
    }

    /// Whether the slice has no chunk and is not being given one.
    pub fn is_blank(&self, slice: SliceNumber) -> bool {
        self.mapped(slice) == 0 && !self.fresh.iter().any(|(owner, _)| *owner == slice)
    }

    /// Where the bytes of a read are; the rest reads as zeros. Pins what it names, and with
    /// `certain` locks it against writes.
    pub fn plan_read(
        &mut self,
        slice: SliceNumber,
        offset: u64,
        length: u64,
        certain: bool,
    ) -> Result<Placed, NotYet> {
        self.require(slice, pieces(offset, length))?;
        if certain && pieces(offset, length).any(|piece| self.is_locked(slice, &piece)) {
            return Err(NotYet::Locked);
        }
        let placed: Placed = pieces(offset, length)
            .filter_map(|piece| Some((piece, self.chunk(slice, &piece)?)))
            .collect();
        self.pin(&placed);
        if certain {
            self.lock(slice, &placed);
        }
        Ok(placed)
    }

    /// Where the bytes of a write go if the slice has every chunk of it. Pins and locks what it
    /// names.
    pub fn plan_overwrite(
        &mut self,
        slice: SliceNumber,
        offset: u64,
        length: u64,
    ) -> Result<Option<Placed>, NotYet> {
        self.require(slice, pieces(offset, length))?;
        let mut placed = Placed::new();
        for piece in pieces(offset, length) {
            let Some(chunk) = self.chunk(slice, &piece) else {
                return Ok(None);
            };
            if self.is_locked(slice, &piece) {
                return Err(NotYet::Locked);
            }
            placed.push((piece, chunk));
        }
        self.pin(&placed);
        self.lock(slice, &placed);
        Ok(Some(placed))
    }

    /// Gives a chunk to each piece that has none. Pins and locks the mapped ones.
    pub fn plan_write(&mut self, slice: SliceNumber, todo: &[Piece]) -> Result<WriteRound, NotYet> {
        self.require(slice, todo.iter().copied())?;
        let mut round = WriteRound::default();
        for piece in todo {
            if let Some(chunk) = self.chunk(slice, piece) {
                if self.is_locked(slice, piece) {
                    round.blocked.push(*piece);
                } else {
                    round.mapped.push((*piece, chunk));
                }
            } else if self.fresh.contains(&(slice, piece.index)) {
                round.blocked.push(*piece);
            } else if let Some(chunk) = self.free.take() {
                self.fresh.insert((slice, piece.index));
                round.fresh.push((*piece, chunk));
            } else if self.freeing > 0 {
                round.blocked.push(*piece);
            } else {
                round.full = true;
            }
        }
        self.pin(&round.mapped);
        self.lock(slice, &round.mapped);
        Ok(round)
    }

    /// Takes back what [`Core::plan_write`] gave: nothing was recorded of it.
    pub fn forget(&mut self, slice: SliceNumber, fresh: &[(Piece, ChunkNumber)]) {
        for (piece, chunk) in fresh {
            self.fresh.remove(&(slice, piece.index));
            self.free.release(*chunk);
        }
    }

    /// Names the whole chunks of the range that the slice is to give up, and the parts that are
    /// to be written with zeros. Pins and locks both.
    pub fn plan_zero(&mut self, slice: SliceNumber, todo: &[Piece]) -> Result<ZeroRound, NotYet> {
        self.require(slice, todo.iter().copied())?;
        let mut round = ZeroRound::default();
        for piece in todo {
            let Some(chunk) = self.chunk(slice, piece) else {
                match self.fresh.contains(&(slice, piece.index)) {
                    true => round.blocked.push(*piece),
                    false => round.bare = true,
                }
                continue;
            };
            if self.is_locked(slice, piece) {
                round.blocked.push(*piece);
            } else if piece.is_whole() {
                round.whole.push((*piece, chunk));
            } else {
                round.parts.push((*piece, chunk));
            }
        }
        for named in [&round.whole, &round.parts] {
            self.pin(named);
            self.lock(slice, named);
        }
        Ok(round)
    }

    /// Whether chunks wait for a flush before they can be given again.
    pub fn is_freeing(&self) -> bool {
        self.freeing > 0
    }

    /// The slice has this chunk: that is in the log.
    pub fn allocated(&mut self, slice: SliceNumber, index: ChunkIndex, chunk: ChunkNumber) {
        self.fresh.remove(&(slice, index));
        self.set(slice, index, Some(chunk));
        *self.mapped.entry(slice).or_default() += 1;
    }

    /// The slice does not have the chunk any more: that is in the log.
    pub fn unmapped(&mut self, slice: SliceNumber, index: ChunkIndex) {
        self.set(slice, index, None);
        if let Some(count) = self.mapped.get_mut(&slice) {
            *count = count.saturating_sub(1);
        }
        self.freeing += 1;
    }

    /// These chunks belong to nobody, and that is durable.
    pub fn freed(&mut self, chunks: &[ChunkNumber]) {
        chunks.iter().for_each(|chunk| self.release(*chunk));
    }

    /// A slice is gone, durably, and these were its chunks.
    pub fn deleted(&mut self, slice: SliceNumber, chunks: &[ChunkNumber]) {
        self.mapped.remove(&slice);
        self.leaves.retain(|(owner, _), _| *owner != slice);
        self.hot.forget(slice);
        self.pending.deleted(slice);
        self.freeing += chunks.len() as u32;
        self.freed(chunks);
    }

    /// Ends the use of chunks by a request.
    pub fn unpin(&mut self, placed: &[(Piece, ChunkNumber)]) {
        for (_, chunk) in placed {
            let Some(pin) = self.pins.get_mut(chunk) else {
                continue;
            };
            pin.requests -= 1;
            if pin.requests == 0 && self.pins.remove(chunk).is_some_and(|pin| pin.dying) {
                self.release(*chunk);
            }
        }
    }

    /// Lets others have the blocks.
    pub fn unlock(&mut self, slice: SliceNumber, placed: &[(Piece, ChunkNumber)]) {
        for (piece, _) in placed {
            if let Some(mask) = self.locks.get_mut(&(slice, piece.index)) {
                *mask &= !piece.mask();
                if *mask == 0 {
                    self.locks.remove(&(slice, piece.index));
                }
            }
        }
    }

    /// Says that the caller loads this leaf; false if another one does or it is there.
    pub fn begin_load(&mut self, key: LeafKey) -> bool {
        let mine = !self.leaves.contains_key(&key) && !self.loading.contains_key(&key);
        if mine {
            self.loading.insert(key, self.pending.folds());
        }
        mine
    }

    /// Whether someone loads this leaf.
    pub fn is_loading(&self, key: LeafKey) -> bool {
        self.loading.contains_key(&key)
    }

    /// Takes in a loaded leaf, or that it could not be loaded. One that was read while the map
    /// was being folded is not taken: it is to be loaded again.
    pub fn end_load(&mut self, key: LeafKey, found: Option<&[(ChunkIndex, ChunkNumber)]>) {
        let begun = self.loading.remove(&key);
        let Some(found) = found else { return };
        if begun != Some(self.pending.folds()) {
            return;
        }
        let mut entries = Box::new([0; LEAF as usize]);
        for (index, chunk) in found {
            if let Some(entry) = entries.get_mut((index.0 % LEAF) as usize) {
                *entry = chunk.0 + 1;
            }
        }
        for (index, chunk) in self.pending.map_of(key) {
            if let Some(entry) = entries.get_mut((index.0 % LEAF) as usize) {
                *entry = chunk.map_or(0, |chunk| chunk.0 + 1);
            }
        }
        self.make_room();
        self.clock += 1;
        self.leaves.insert(
            key,
            Leaf {
                entries,
                used: self.clock,
            },
        );
    }

    fn make_room(&mut self) {
        if self.leaves.len() < MAX_LEAVES {
            return;
        }
        let leaves = self.leaves.iter();
        if let Some(oldest) = leaves
            .min_by_key(|(_, leaf)| leaf.used)
            .map(|(key, _)| *key)
        {
            self.leaves.remove(&oldest);
        }
    }

    fn require(
        &mut self,
        slice: SliceNumber,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), NotYet> {
        self.clock += 1;
        let mut last = None;
        for piece in pieces {
            let key = piece.leaf(slice);
            if last == Some(key) {
                continue;
            }
            self.leaves.get_mut(&key).ok_or(NotYet::Missing(key))?.used = self.clock;
            last = Some(key);
        }
        Ok(())
    }

    fn chunk(&self, slice: SliceNumber, piece: &Piece) -> Option<ChunkNumber> {
        let leaf = self.leaves.get(&piece.leaf(slice))?;
        let entry = leaf.entries.get((piece.index.0 % LEAF) as usize)?;
        entry.checked_sub(1).map(ChunkNumber)
    }

    fn set(&mut self, slice: SliceNumber, index: ChunkIndex, chunk: Option<ChunkNumber>) {
        let leaf = self.leaves.get_mut(&(slice, index.0 / LEAF));
        if let Some(entry) = leaf.and_then(|leaf| leaf.entries.get_mut((index.0 % LEAF) as usize)) {
            *entry = chunk.map_or(0, |chunk| chunk.0 + 1);
        }
    }

    fn pin(&mut self, placed: &[(Piece, ChunkNumber)]) {
        for (_, chunk) in placed {
            self.pins.entry(*chunk).or_default().requests += 1;
        }
    }

    fn lock(&mut self, slice: SliceNumber, placed: &[(Piece, ChunkNumber)]) {
        for (piece, _) in placed {
            *self.locks.entry((slice, piece.index)).or_default() |= piece.mask();
        }
    }

    fn is_locked(&self, slice: SliceNumber, piece: &Piece) -> bool {
        let locked = self.locks.get(&(slice, piece.index)).copied();
        locked.unwrap_or(0) & piece.mask() != 0
    }

    /// Gives a chunk that nothing maps any more back, now or when the last request leaves it.
    fn release(&mut self, chunk: ChunkNumber) {
        match self.pins.get_mut(&chunk) {
            Some(pin) => pin.dying = true,
            None => {
                self.free.release(chunk);
                self.freeing = self.freeing.saturating_sub(1);
            }
        }
    }
}

#[cfg(test)]
mod tests;
