//! Memory of payloads, used again: a fresh buffer of 4 KiB costs its pages, which takes longer than
//! the rest of a command.

use crate::target::Budget;
use bytes::{Bytes, BytesMut};

/// What devices ask of memory that they reach themselves (O_DIRECT): nothing is copied then.
const ALIGN: usize = 4096;
/// Most that one connection keeps, in bytes: 64 blocks and what their alignment takes.
const KEEP: usize = 512 << 10;
/// Kept buffers that are looked at for one of the right size.
const LOOK: usize = 8;

/// Buffers that are not in use. What they hold is what was last in them, and has been sent to or
/// come from the peer of this connection: they are not shared with others.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    spare: Vec<BytesMut>,
    held: usize,
    /// Where the kept bytes are taken from; without it nothing is kept.
    budget: Option<Budget>,
}

impl Buffers {
    /// From now on keeps what is given back, as far as there is something left of `budget`.
    pub fn keep(&mut self, budget: Budget) {
        self.budget = Some(budget);
    }

    /// A buffer of that many bytes, whatever they are.
    pub fn take(&mut self, length: usize) -> BytesMut {
        // The newest is the one that is still in the processor's cache.
        let newest = self.spare.iter().enumerate().rev().take(LOOK);
        let fitting = newest
            .filter(|(_, buffer)| (length..=length.saturating_mul(2)).contains(&buffer.len()))
            .map(|(index, _)| index)
            .next();
        if let Some(index) = fitting {
            let mut buffer = self.spare.swap_remove(index);
            self.release(&buffer);
            buffer.truncate(length);
            return buffer;
        }
        aligned(length)
    }

    /// The payload is not needed any more by whoever gives it: kept if nobody else does.
    pub fn give(&mut self, payload: Bytes) {
        if self.budget.is_none() || payload.is_empty() {
            return;
        }
        if let Ok(buffer) = payload.try_into_mut() {
            self.put(buffer);
        }
    }

    fn put(&mut self, buffer: BytesMut) {
        let size = buffer.capacity();
        while self.held + size > KEEP && !self.spare.is_empty() {
            // The oldest: of a size that is not asked for any more.
            let oldest = self.spare.remove(0);
            self.release(&oldest);
        }
        let allowed =
            self.held + size <= KEEP && self.budget.as_ref().is_some_and(|b| b.take(size));
        if allowed {
            self.held += size;
            self.spare.push(buffer);
        }
    }

    fn release(&mut self, buffer: &BytesMut) {
        let size = buffer.capacity();
        self.held = self.held.saturating_sub(size);
        if let Some(budget) = &self.budget {
            budget.give_back(size);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        if let Some(budget) = &self.budget {
            budget.give_back(self.held);
        }
    }
}

fn aligned(length: usize) -> BytesMut {
    let mut memory = BytesMut::zeroed(length + ALIGN - 1);
    let before = memory.as_ptr().align_offset(ALIGN).min(ALIGN - 1);
    // Split, its owner is counted: to be frozen and thawed then costs no allocation.
    drop(memory.split_to(before));
    drop(memory.split_off(length));
    memory
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeping(bytes: usize) -> (Buffers, Budget) {
        let budget = Budget::new(bytes);
        let mut buffers = Buffers::default();
        buffers.keep(budget.clone());
        (buffers, budget)
    }

    #[test]
    fn what_was_given_back_is_used_again_and_is_aligned() {
        let (mut buffers, budget) = keeping(1 << 20);
        let first = buffers.take(4096).freeze();
        let place = first.as_ptr();
        assert_eq!((place.addr() % ALIGN, first.len()), (0, 4096));
        buffers.give(first);
        assert!(budget.left() < 1 << 20);
        let again = buffers.take(4096);
        assert_eq!((again.as_ptr(), again.len()), (place, 4096));
        assert_eq!(budget.left(), 1 << 20, "in use it is not spare");
    }

    #[test]
    fn what_somebody_else_holds_is_not_used_again() {
        let (mut buffers, budget) = keeping(1 << 20);
        let first = buffers.take(4096).freeze();
        let other = first.clone();
        buffers.give(first);
        assert_eq!(budget.left(), 1 << 20);
        assert_ne!(buffers.take(4096).as_ptr(), other.as_ptr());
    }

    #[test]
    fn never_more_is_kept_than_the_budget_has_and_all_of_it_comes_back() {
        let (mut buffers, budget) = keeping(20_000);
        let all: Vec<_> = (0..8).map(|_| buffers.take(4096).freeze()).collect();
        for buffer in all {
            buffers.give(buffer);
        }
        // What its alignment takes of each is between nothing and a block.
        assert!((2..=4).contains(&buffers.spare.len()));
        assert_eq!(budget.left(), 20_000 - buffers.held);
        drop(buffers);
        assert_eq!(budget.left(), 20_000);
    }

    #[test]
    fn buffers_of_a_size_that_is_not_asked_for_any_more_give_way() {
        let (mut buffers, _budget) = keeping(1 << 30);
        let small: Vec<_> = (0..200).map(|_| buffers.take(4096).freeze()).collect();
        small.into_iter().for_each(|buffer| buffers.give(buffer));
        let large = buffers.take(128 << 10).freeze();
        let place = large.as_ptr();
        buffers.give(large);
        assert_eq!(buffers.take(128 << 10).as_ptr(), place);
        assert!(buffers.held <= KEEP);
    }
}
