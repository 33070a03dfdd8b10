//! A range of bytes, and sets of them.

use weft_block::{BLOCK, DiskError, ErrorKind};

/// Bytes from `start` up to but without `end`, whole blocks, not empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// The byte after the last.
    pub end: u64,
}

impl Span {
    /// So many bytes from `offset` on a disk of `size` bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::OutOfRange`] if they are not whole blocks within it.
    pub fn within(size: u64, offset: u64, length: u64) -> Result<Self, DiskError> {
        let end = offset.checked_add(length).filter(|end| *end <= size);
        let whole = offset.is_multiple_of(BLOCK) && length.is_multiple_of(BLOCK) && length > 0;
        match end.filter(|_| whole) {
            Some(end) => Ok(Self { start: offset, end }),
            None => Err(DiskError::new(
                ErrorKind::OutOfRange,
                format!("{length} bytes at {offset} of a volume of {size}"),
            )),
        }
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.end - self.start
    }

    /// Whether a byte is in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        self.overlaps(other).then(|| Self {
            start: self.start.max(other.start),
            end: self.end.min(other.end),
        })
    }

    /// Itself in parts that end at multiples of `most`.
    pub fn parts(self, most: u64) -> impl Iterator<Item = Self> {
        let mut start = self.start;
        std::iter::from_fn(move || {
            let part = Self {
                start,
                end: self.end.min((start / most + 1) * most),
            };
            start = part.end;
            (part.start < part.end).then_some(part)
        })
    }
}

/// A set of bytes: spans in order that neither overlap nor touch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spans(Vec<Span>);

impl Spans {
    /// Adds the bytes of a span.
    pub fn insert(&mut self, span: Span) {
        let from = self.0.partition_point(|have| have.end < span.start);
        let to = self.0.partition_point(|have| have.start <= span.end);
        let (mut start, mut end) = (span.start, span.end);
        if let (Some(first), Some(last)) = (self.0.get(from), self.0[..to].last())
            && from < to
        {
            start = start.min(first.start);
            end = end.max(last.end);
        }
        self.0.splice(from..to, [Span { start, end }]);
    }

    /// Takes the bytes of a span out.
    pub fn remove(&mut self, span: Span) {
        let from = self.0.partition_point(|have| have.end <= span.start);
        let to = self.0.partition_point(|have| have.start < span.end);
        if from >= to {
            return;
        }
        let (first, last) = (self.0[from], self.0[to - 1]);
        let before = Span {
            start: first.start,
            end: span.start,
        };
        let after = Span {
            start: span.end,
            end: last.end,
        };
        let kept = [before, after];
        let kept = kept.into_iter().filter(|part| part.start < part.end);
        self.0.splice(from..to, kept);
    }

    /// The first part of it that is in `span`.
    pub fn first_in(&self, span: Span) -> Option<Span> {
        let at = self.0.partition_point(|have| have.end <= span.start);
        self.0.get(at)?.intersection(&span)
    }

    /// The first part of it.
    pub fn first(&self) -> Option<Span> {
        self.0.first().copied()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in it.
    pub fn length(&self) -> u64 {
        self.0.iter().map(Span::length).sum()
    }

    /// Its parts, in order.
    pub fn iter(&self) -> impl Iterator<Item = Span> + '_ {
        self.0.iter().copied()
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(spans: I) -> Self {
        let mut all = Self::default();
        spans.into_iter().for_each(|span| all.insert(span));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_whole_blocks_within_the_disk_are_a_span() {
        assert!(Span::within(8192, 4096, 4096).is_ok());
        for (offset, length) in [
            (0, 0),
            (4096, 8192),
            (1, 4096),
            (0, 100),
            (u64::MAX - 4095, 4096),
        ] {
            let refused = Span::within(8192, offset, length).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::OutOfRange, "{offset} {length}");
        }
    }

    #[test]
    fn parts_end_at_multiples() {
        let parts: Vec<_> = Span { start: 3, end: 9 }.parts(4).collect();
        let ends: Vec<_> = parts.iter().map(|part| (part.start, part.end)).collect();
        assert_eq!(ends, [(3, 4), (4, 8), (8, 9)]);
    }

    proptest! {
        #[test]
        fn a_set_of_spans_is_a_set_of_bytes(
            steps in prop::collection::vec((any::<bool>(), 0u64..40, 1u64..20), 1..40)
        ) {
            let (mut spans, mut bytes) = (Spans::default(), [false; 64]);
            for (insert, start, length) in steps {
                let span = Span { start, end: start + length };
                if insert { spans.insert(span) } else { spans.remove(span) }
                bytes[start as usize..(start + length) as usize].fill(insert);
                for (at, expected) in bytes.iter().enumerate() {
                    let byte = Span { start: at as u64, end: at as u64 + 1 };
                    prop_assert_eq!(spans.first_in(byte).is_some(), *expected);
                }
                let apart = spans.0.windows(2).all(|pair| pair[0].end < pair[1].start);
                prop_assert!(apart, "{:?}", spans);
            }
        }
    }
}
