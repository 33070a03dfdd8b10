//! What of a slice is still to be copied, as a config for each chunk: what was changed under it or
//! later. Pure.
//!
//! A part that was copied while the target was in the mirror lacks only what is changed under later
//! configs, in case the target is lost again. So an interruption costs what was written since, and
//! not the whole.

use super::slice::ChunkIndex;
use crate::layers::mirror::{Span, Spans};
use weft_spec::drive::Config;

/// Parts that are remembered: one for each interruption. Beyond that they are joined, and some of it
/// is copied twice.
const PARTS: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Part {
    /// The chunk after the last; the last part has no end.
    end: Option<ChunkIndex>,
    since: Config,
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frontier {
    parts: Vec<Part>,
    /// The target has bytes that count for nothing, and is to be emptied first.
    full: bool,
    /// Hot regions of the target that are still to be copied whole; `None` before it was asked.
    hot: Option<Spans>,
}

impl Frontier {
    /// Of a slice that has everything that was changed before `since`.
    pub fn new(since: Config) -> Self {
        Self {
            parts: vec![Part { end: None, since }],
            full: false,
            hot: None,
        }
    }

    /// Of a slice of which nothing is known: all of it, after it was emptied.
    pub fn full() -> Self {
        Self {
            full: true,
            ..Self::new(Config(0))
        }
    }

    /// Whether the target is to be emptied first.
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// The target reads as zeros, and that is durable. What was hot there before is gone as well.
    pub fn emptied(&mut self) {
        self.full = false;
        self.hot = Some(Spans::default());
    }

    /// Where the target may have what nobody else has, as it was when it first joined this engine;
    /// `None` before it was asked. Later regions are hot by this engine's own changes, and all of
    /// those reach the other members under a config that is copied.
    pub fn hot(&self) -> Option<&Spans> {
        self.hot.as_ref()
    }

    /// The target has told its hot regions.
    pub fn found_hot(&mut self, regions: Spans) {
        self.hot = Some(regions);
    }

    /// A hot region was copied whole, is flushed and verified.
    pub fn hot_done(&mut self, region: Span) {
        if let Some(hot) = &mut self.hot {
            hot.remove(region);
        }
    }

    /// Since which config a chunk is to be copied, and up to where the same holds.
    pub fn at(&self, chunk: ChunkIndex) -> (Config, Option<ChunkIndex>) {
        let part = self.parts.iter().find(|part| is_before(chunk, part.end));
        // The last part has no end.
        part.map_or((Config(0), None), |part| (part.since, part.end))
    }

    /// Everything before `end` is equal, flushed and verified, and the target gets what is changed
    /// under `joined` or later.
    pub fn done(&mut self, end: ChunkIndex, joined: Config) {
        self.parts.retain(|part| is_before(end, part.end));
        let part = Part {
            end: Some(end),
            since: joined,
        };
        self.parts.insert(0, part);
        if let Some(next) = self.parts.get(1)
            && next.since == joined
        {
            self.parts.remove(0);
        }
        while self.parts.len() > PARTS {
            let first = self.parts.remove(0);
            if let Some(next) = self.parts.first_mut() {
                next.since = next.since.min(first.since);
            }
        }
    }
}

fn is_before(chunk: ChunkIndex, end: Option<ChunkIndex>) -> bool {
    end.is_none_or(|end| chunk < end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_done_lacks_only_what_comes_after_it_joined() {
        let mut frontier = Frontier::new(Config(3));
        frontier.done(ChunkIndex(100), Config(7));
        assert_eq!(
            frontier.at(ChunkIndex(99)),
            (Config(7), Some(ChunkIndex(100)))
        );
        assert_eq!(frontier.at(ChunkIndex(100)), (Config(3), None));
        // Lost and back: the beginning is gone over again, then the rest.
        frontier.done(ChunkIndex(40), Config(9));
        assert_eq!(
            frontier.at(ChunkIndex(40)),
            (Config(7), Some(ChunkIndex(100)))
        );
        frontier.done(ChunkIndex(200), Config(9));
        assert_eq!(
            frontier.at(ChunkIndex(150)),
            (Config(9), Some(ChunkIndex(200)))
        );
        assert_eq!(frontier.at(ChunkIndex(200)), (Config(3), None));
    }

    proptest! {
        #[test]
        fn no_chunk_is_taken_for_newer_than_it_is(
            steps in prop::collection::vec((1u32..300, any::<bool>()), 1..200)
        ) {
            let (mut frontier, mut joined) = (Frontier::new(Config(1)), 1);
            let mut since = [1u64; 300];
            for (end, again) in steps {
                joined += u64::from(again);
                frontier.done(ChunkIndex(end), Config(joined));
                since[..end as usize].fill(joined);
                prop_assert!(frontier.parts.len() <= PARTS);
                for (chunk, known) in since.iter().enumerate() {
                    let (found, end) = frontier.at(ChunkIndex(chunk as u32));
                    prop_assert!(found.0 <= *known);
                    prop_assert!(end.is_none_or(|end| end.0 as usize > chunk));
                }
            }
        }
    }
}
