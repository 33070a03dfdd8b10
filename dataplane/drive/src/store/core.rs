//! What the store knows in memory, changed under one lock that is never held while waiting.
//! Decides which chunks a request touches; does no I/O.

use super::bitmap::FreeMap;
use super::tables::{Change, ChunkIndex, ChunkNumber, SliceNumber};
use crate::superblock::CHUNK;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// Entries of the chunk map that are cached and loaded together: 4 KiB for 64 MiB of a slice.
pub const LEAF: u32 = 1024;
/// Most leaves cached: 512 KiB for 8 GiB of slices in use at a time.
const MAX_LEAVES: usize = 128;

/// Which leaf of the chunk map.
pub type LeafKey = (SliceNumber, u32);

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

/// The part of the chunk map that a request needs is not in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Missing(pub LeafKey);

/// Where the bytes of a request are, and the chunks pinned for it.
pub type Placed = (Vec<Extent>, Vec<ChunkNumber>);

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
    /// Whole chunks that the slice has no longer.
    pub changes: Vec<Change>,
    /// Parts of chunks that it keeps, pinned.
    pub parts: Vec<(Piece, ChunkNumber)>,
    /// Chunks that a write is being given.
    pub blocked: Vec<Piece>,
}

struct Leaf {
    /// Chunk number + 1; 0 for none.
    entries: Box<[u32; LEAF as usize]>,
    /// Changes of it that are not durable yet: it cannot be dropped.
    busy: u32,
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
    loading: HashSet<LeafKey>,
    fresh: HashSet<(SliceNumber, ChunkIndex)>,
    mapped: HashMap<SliceNumber, u32>,
    clock: u64,
}

impl Core {
    /// With what the chunk map says.
    pub fn new(free: FreeMap, mapped: HashMap<SliceNumber, u32>) -> Self {
        Self {
            free,
            freeing: 0,
            pins: HashMap::new(),
            leaves: HashMap::new(),
            loading: HashSet::new(),
            fresh: HashSet::new(),
            mapped,
            clock: 0,
        }
    }

    /// Free chunks.
    pub fn free(&self) -> u64 {
        u64::from(self.free.free())
    }

    /// Chunks that a slice has.
    pub fn mapped(&self, slice: SliceNumber) -> u64 {
        self.mapped.get(&slice).copied().unwrap_or(0).into()
    }

    /// Whether the slice has no chunk and is not being given one.
    pub fn is_blank(&self, slice: SliceNumber) -> bool {
        self.mapped(slice) == 0 && !self.fresh.iter().any(|(owner, _)| *owner == slice)
    }

    /// Where the bytes of a read are; the rest reads as zeros. Pins what it names.
    pub fn plan_read(
        &mut self,
        slice: SliceNumber,
        offset: u64,
        length: u64,
    ) -> Result<Placed, Missing> {
        self.require(slice, pieces(offset, length))?;
        let (mut extents, mut chunks) = (Vec::new(), Vec::new());
        for piece in pieces(offset, length) {
            if let Some(chunk) = self.chunk(slice, &piece) {
                extend(&mut extents, chunk, &piece);
                chunks.push(chunk);
            }
        }
        self.pin(&chunks);
        Ok((extents, chunks))
    }

    /// Where the bytes of a write go if the slice has every chunk of it. Pins what it names.
    pub fn plan_overwrite(
        &mut self,
        slice: SliceNumber,
        offset: u64,
        length: u64,
    ) -> Result<Option<Placed>, Missing> {
        self.require(slice, pieces(offset, length))?;
        let (mut extents, mut chunks) = (Vec::new(), Vec::new());
        for piece in pieces(offset, length) {
            let Some(chunk) = self.chunk(slice, &piece) else {
                return Ok(None);
            };
            extend(&mut extents, chunk, &piece);
            chunks.push(chunk);
        }
        self.pin(&chunks);
        Ok(Some((extents, chunks)))
    }

    /// Gives a chunk to each piece that has none. Pins the mapped ones.
    pub fn plan_write(
        &mut self,
        slice: SliceNumber,
        todo: &[Piece],
    ) -> Result<WriteRound, Missing> {
        self.require(slice, todo.iter().copied())?;
        let mut round = WriteRound::default();
        for piece in todo {
            if let Some(chunk) = self.chunk(slice, piece) {
                round.mapped.push((*piece, chunk));
            } else if self.fresh.contains(&(slice, piece.index)) {
                round.blocked.push(*piece);
            } else if let Some(chunk) = self.free.take() {
                self.fresh.insert((slice, piece.index));
                self.busy(piece.leaf(slice), 1);
                round.fresh.push((*piece, chunk));
            } else if self.freeing > 0 {
                round.blocked.push(*piece);
            } else {
                round.full = true;
            }
        }
        let chunks: Vec<_> = round.mapped.iter().map(|(_, chunk)| *chunk).collect();
        self.pin(&chunks);
        Ok(round)
    }

    /// Takes back what [`Core::plan_write`] gave: nothing was recorded of it.
    pub fn forget(&mut self, slice: SliceNumber, fresh: &[(Piece, ChunkNumber)]) {
        for (piece, chunk) in fresh {
            self.fresh.remove(&(slice, piece.index));
            self.busy(piece.leaf(slice), -1);
            self.free.release(*chunk);
        }
    }

    /// Takes the whole chunks of the range from the slice. Pins the parts.
    pub fn plan_zero(&mut self, slice: SliceNumber, todo: &[Piece]) -> Result<ZeroRound, Missing> {
        self.require(slice, todo.iter().copied())?;
        let mut round = ZeroRound::default();
        for piece in todo {
            if self.fresh.contains(&(slice, piece.index)) {
                round.blocked.push(*piece);
                continue;
            }
            let Some(chunk) = self.chunk(slice, piece) else {
                continue;
            };
            if piece.is_whole() {
                self.set(slice, piece.index, None);
                self.busy(piece.leaf(slice), 1);
                self.freeing += 1;
                round.changes.push(Change::Unmap(slice, piece.index, chunk));
            } else {
                round.parts.push((*piece, chunk));
            }
        }
        let chunks: Vec<_> = round.parts.iter().map(|(_, chunk)| *chunk).collect();
        self.pin(&chunks);
        Ok(round)
    }

    /// Takes in a change that is durable now.
    pub fn settle(&mut self, change: &Change) {
        match *change {
            Change::Map(slice, index, chunk) => {
                self.fresh.remove(&(slice, index));
                self.set(slice, index, Some(chunk));
                self.busy((slice, index.0 / LEAF), -1);
                *self.mapped.entry(slice).or_default() += 1;
            }
            Change::Unmap(slice, index, chunk) => {
                self.busy((slice, index.0 / LEAF), -1);
                if let Some(count) = self.mapped.get_mut(&slice) {
                    *count = count.saturating_sub(1);
                }
                self.release(chunk);
            }
            Change::Delete(row) => {
                self.mapped.remove(&row.number);
                self.leaves.retain(|(slice, _), _| *slice != row.number);
            }
            Change::Put(_) => {}
        }
    }

    /// Takes in the chunks of a deleted slice.
    pub fn settle_deleted(&mut self, chunks: &[ChunkNumber]) {
        for chunk in chunks {
            self.freeing += 1;
            self.release(*chunk);
        }
    }

    /// Ends the use of chunks by a request; true if one became free by that.
    pub fn unpin(&mut self, chunks: &[ChunkNumber]) -> bool {
        let mut freed = false;
        for chunk in chunks {
            let Some(pin) = self.pins.get_mut(chunk) else {
                continue;
            };
            pin.requests -= 1;
            if pin.requests == 0 && self.pins.remove(chunk).is_some_and(|pin| pin.dying) {
                self.release(*chunk);
                freed = true;
            }
        }
        freed
    }

    /// Says that the caller loads this leaf; false if another one does or it is there.
    pub fn begin_load(&mut self, key: LeafKey) -> bool {
        !self.leaves.contains_key(&key) && self.loading.insert(key)
    }

    /// Whether someone loads this leaf.
    pub fn is_loading(&self, key: LeafKey) -> bool {
        self.loading.contains(&key)
    }

    /// Takes in a loaded leaf, or that it could not be loaded.
    pub fn end_load(&mut self, key: LeafKey, found: Option<&[(ChunkIndex, ChunkNumber)]>) {
        self.loading.remove(&key);
        let Some(found) = found else { return };
        let mut entries = Box::new([0; LEAF as usize]);
        for (index, chunk) in found {
            if let Some(entry) = entries.get_mut((index.0 % LEAF) as usize) {
                *entry = chunk.0 + 1;
            }
        }
        self.make_room();
        self.clock += 1;
        self.leaves.insert(
            key,
            Leaf {
                entries,
                busy: 0,
                used: self.clock,
            },
        );
    }

    fn make_room(&mut self) {
        if self.leaves.len() < MAX_LEAVES {
            return;
        }
        let idle = self.leaves.iter().filter(|(_, leaf)| leaf.busy == 0);
        if let Some(oldest) = idle.min_by_key(|(_, leaf)| leaf.used).map(|(key, _)| *key) {
            self.leaves.remove(&oldest);
        }
    }

    fn require(
        &mut self,
        slice: SliceNumber,
        pieces: impl Iterator<Item = Piece>,
    ) -> Result<(), Missing> {
        self.clock += 1;
        let mut last = None;
        for piece in pieces {
            let key = piece.leaf(slice);
            if last == Some(key) {
                continue;
            }
            self.leaves.get_mut(&key).ok_or(Missing(key))?.used = self.clock;
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

    fn busy(&mut self, key: LeafKey, by: i32) {
        if let Some(leaf) = self.leaves.get_mut(&key) {
            leaf.busy = leaf.busy.saturating_add_signed(by);
        }
    }

    fn pin(&mut self, chunks: &[ChunkNumber]) {
        for chunk in chunks {
            self.pins.entry(*chunk).or_default().requests += 1;
        }
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
