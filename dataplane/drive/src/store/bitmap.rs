//! Which chunks of the medium are free. Rebuilt from the chunk map at each start.

use super::tables::ChunkNumber;

/// One bit a chunk, set while it is used.
#[derive(Debug)]
pub struct FreeMap {
    words: Vec<u64>,
    chunks: u32,
    free: u32,
    /// Where the search goes on, so that what is written in sequence lies in sequence.
    cursor: u32,
}

impl FreeMap {
    /// All free.
    pub fn new(chunks: u32) -> Self {
        Self {
            words: vec![0; (chunks as usize).div_ceil(64)],
            chunks,
            free: chunks,
            cursor: 0,
        }
    }

    /// Number of free chunks.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Marks a chunk as used; false if there is no such chunk or it was.
    pub fn mark(&mut self, chunk: ChunkNumber) -> bool {
        let bit = 1 << (chunk.0 % 64);
        match self.words.get_mut(chunk.0 as usize / 64) {
            Some(word) if chunk.0 < self.chunks && *word & bit == 0 => {
                *word |= bit;
                self.free -= 1;
                true
            }
            _ => false,
        }
    }

    /// Takes a free chunk, the next after the last one taken if it is free.
    pub fn take(&mut self) -> Option<ChunkNumber> {
        if self.free == 0 {
            return None;
        }
        let found = self
            .search(self.cursor, self.chunks)
            .or_else(|| self.search(0, self.cursor))?;
        self.mark(found);
        self.cursor = (found.0 + 1) % self.chunks;
        Some(found)
    }

    /// Gives a chunk back.
    pub fn release(&mut self, chunk: ChunkNumber) {
        let bit = 1 << (chunk.0 % 64);
        if let Some(word) = self.words.get_mut(chunk.0 as usize / 64)
            && *word & bit != 0
        {
            *word &= !bit;
            self.free += 1;
        }
    }

    fn search(&self, from: u32, to: u32) -> Option<ChunkNumber> {
        let mut at = from;
        while at < to {
            let word = *self.words.get(at as usize / 64)?;
            let free = !word >> (at % 64);
            if free == 0 {
                at = (at / 64 + 1) * 64;
                continue;
            }
            at += free.trailing_zeros();
            return (at < to).then_some(ChunkNumber(at));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_chunk_is_given_once_and_then_none() {
        let mut map = FreeMap::new(131);
        assert!(
            map.mark(ChunkNumber(5)) && !map.mark(ChunkNumber(5)) && !map.mark(ChunkNumber(131))
        );
        let taken: BTreeSet<_> = std::iter::from_fn(|| map.take()).collect();
        assert_eq!(taken.len(), 130);
        assert_eq!((map.free(), map.take()), (0, None));
        map.release(ChunkNumber(64));
        map.release(ChunkNumber(64));
        assert_eq!((map.free(), map.take()), (1, Some(ChunkNumber(64))));
    }

    #[test]
    fn what_is_taken_in_sequence_lies_in_sequence() {
        let mut map = FreeMap::new(200);
        map.mark(ChunkNumber(2));
        let taken: Vec<_> = (0..4)
            .filter_map(|_| map.take())
            .map(|chunk| chunk.0)
            .collect();
        assert_eq!(taken, [0, 1, 3, 4]);
        map.release(ChunkNumber(0));
        assert_eq!(map.take(), Some(ChunkNumber(5)));
    }
}
