//! Blocks that are known not to be what was written: a reader found them so, or a power cut left
//! them so. What the death of a process leaves in a hot region counts as written, known to the
//! log or not; these blocks do not, until the log has what was written over them.

use super::pending::Place;
use super::tables::SliceNumber;
use std::collections::BTreeMap;

/// Most chunks with such blocks that are remembered: 1 MiB of memory. A medium with more has
/// other troubles.
const MOST: usize = 1 << 14;

/// Such blocks of each chunk, a bit each.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Suspects(BTreeMap<Place, u16>);

impl Suspects {
    /// These are; gives those that were not.
    pub fn add(&mut self, place: Place, mask: u16) -> u16 {
        if self.0.len() >= MOST && !self.0.contains_key(&place) {
            return 0;
        }
        let known = self.0.entry(place).or_default();
        let new = mask & !*known;
        *known |= mask;
        new
    }

    /// Which of the chunk are.
    pub fn of(&self, place: Place) -> u16 {
        self.0.get(&place).copied().unwrap_or_default()
    }

    /// These are what was written, and the log knows.
    pub fn written(&mut self, place: Place, mask: u16) {
        if let Some(known) = self.0.get_mut(&place) {
            *known &= !mask;
            if *known == 0 {
                self.0.remove(&place);
            }
        }
    }

    /// The slice is gone.
    pub fn deleted(&mut self, slice: SliceNumber) {
        self.0.retain(|(owner, _), _| *owner != slice);
    }

    /// All of them, in the order of slices and chunks.
    pub fn iter(&self) -> impl Iterator<Item = (Place, u16)> {
        self.0.iter().map(|(place, mask)| (*place, *mask))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::ChunkIndex;
    use super::*;

    #[test]
    fn a_block_is_suspect_until_it_is_written() {
        let (place, other) = (
            (SliceNumber(1), ChunkIndex(2)),
            (SliceNumber(2), ChunkIndex(2)),
        );
        let mut suspects = Suspects::default();
        assert_eq!(suspects.add(place, 0b0110), 0b0110);
        assert_eq!(suspects.add(place, 0b1100), 0b1000, "the new ones");
        suspects.add(other, 1);
        suspects.written(place, 0b0111);
        assert_eq!((suspects.of(place), suspects.of(other)), (0b1000, 1));
        suspects.written(place, u16::MAX);
        suspects.deleted(other.0);
        assert_eq!(suspects, Suspects::default());
    }

    #[test]
    fn there_is_a_bound() {
        let mut suspects = Suspects::default();
        let place = |index| (SliceNumber(1), ChunkIndex(index));
        (0..MOST as u32).for_each(|index| {
            suspects.add(place(index), 1);
        });
        assert_eq!(suspects.add(place(MOST as u32), 1), 0);
        assert_eq!(suspects.add(place(0), 2), 2);
        assert_eq!(suspects.iter().count(), MOST);
    }
}
