//! Range locks: who may do something with which bytes now.
//!
//! Overlapping changes come to every member in one order (`replication.md` rule 8), and a read
//! returns nothing of a change that may still be taken back (design 6.5). So a change has its
//! range alone, and reads share theirs with reads. Whoever came first goes first, also past
//! those who could share with the holder: nobody starves. A range without contention costs a
//! look at the others in flight, and no memory.

use super::span::Span;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// What is done in the range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Read: shared with other reads.
    Shared,
    /// Change: nobody else's.
    Exclusive,
}

/// Place in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Ticket(u64);

struct Entry {
    ticket: Ticket,
    span: Span,
    access: Access,
    granted: bool,
    waker: Option<Waker>,
}

impl Entry {
    /// Whether the one that came first keeps the other waiting.
    fn excludes(&self, other: &Self) -> bool {
        let alone = self.access == Access::Exclusive || other.access == Access::Exclusive;
        alone && self.span.overlaps(&other.span)
    }
}

/// Those who hold or wait for a range; as many as requests are in flight.
#[derive(Default)]
struct Table {
    entries: Vec<Entry>,
    next: Ticket,
    waiting: usize,
}

impl Table {
    fn is_blocked(&self, entry: &Entry) -> bool {
        let earlier = |other: &&Entry| other.ticket < entry.ticket;
        let mut earlier = self.entries.iter().filter(earlier);
        earlier.any(|other| other.excludes(entry))
    }

    fn enter(&mut self, span: Span, access: Access, waker: &Waker) -> (Ticket, bool) {
        self.next.0 += 1;
        let mut entry = Entry {
            ticket: self.next,
            span,
            access,
            granted: false,
            waker: None,
        };
        entry.granted = !self.is_blocked(&entry);
        if !entry.granted {
            entry.waker = Some(waker.clone());
            self.waiting += 1;
        }
        let granted = entry.granted;
        self.entries.push(entry);
        (self.next, granted)
    }

    fn leave(&mut self, ticket: Ticket) {
        let Some(at) = self.entries.iter().position(|entry| entry.ticket == ticket) else {
            return;
        };
        let left = self.entries.swap_remove(at);
        self.waiting -= usize::from(!left.granted);
        if self.waiting == 0 {
            return;
        }
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            if entry.granted || !left.excludes(entry) || self.is_blocked(entry) {
                continue;
            }
            let entry = &mut self.entries[at];
            entry.granted = true;
            self.waiting -= 1;
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Ranges(Mutex<Table>);

impl Ranges {
    /// Waits for its turn. Dropping it gives the place up.
    pub fn lock(self: &Arc<Self>, span: Span, access: Access) -> Locking {
        Locking {
            ranges: self.clone(),
            span,
            access,
            ticket: None,
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for a range.
pub struct Locking {
    ranges: Arc<Ranges>,
    span: Span,
    access: Access,
    ticket: Option<Ticket>,
}

impl Future for Locking {
    type Output = RangeGuard;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RangeGuard> {
        let ranges = self.ranges.clone();
        let mut table = ranges.table();
        let granted = match self.ticket {
            None => {
                let (ticket, granted) = table.enter(self.span, self.access, cx.waker());
                self.ticket = Some(ticket);
                granted
            }
            Some(ticket) => {
                let mut entries = table.entries.iter_mut();
                let entry = entries.find(|entry| entry.ticket == ticket);
                entry.is_none_or(|entry| {
                    if !entry.granted {
                        entry.waker = Some(cx.waker().clone());
                    }
                    entry.granted
                })
            }
        };
        drop(table);
        match self.ticket.filter(|_| granted) {
            Some(ticket) => {
                self.ticket = None;
                Poll::Ready(RangeGuard { ranges, ticket })
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Locking {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.ranges.table().leave(ticket);
        }
    }
}

/// Holds a range until it is dropped.
#[must_use = "the range is free again when this is dropped"]
pub struct RangeGuard {
    ranges: Arc<Ranges>,
    ticket: Ticket,
}

impl Drop for RangeGuard {
    fn drop(&mut self) {
        self.ranges.table().leave(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::Access::{Exclusive, Shared};
    use super::*;
    use proptest::prelude::*;
    use tokio_test::task::{Spawn, spawn};

    fn span(start: u64, end: u64) -> Span {
        Span { start, end }
    }

    #[test]
    fn reads_share_and_a_change_is_alone() {
        let ranges = Arc::new(Ranges::default());
        let mut first = spawn(ranges.lock(span(0, 4), Shared));
        let mut second = spawn(ranges.lock(span(2, 6), Shared));
        let mut change = spawn(ranges.lock(span(3, 5), Exclusive));
        let mut beside = spawn(ranges.lock(span(8, 9), Exclusive));
        let (Poll::Ready(first), Poll::Ready(second)) = (first.poll(), second.poll()) else {
            panic!("reads wait for each other");
        };
        assert!(change.poll().is_pending());
        assert!(beside.poll().is_ready());
        drop(first);
        assert!(!change.is_woken());
        drop(second);
        assert!(change.is_woken() && change.poll().is_ready());
    }

    #[test]
    fn who_comes_after_a_waiting_change_does_not_pass_it() {
        let ranges = Arc::new(Ranges::default());
        let held = spawn(ranges.lock(span(0, 4), Shared)).poll();
        let mut change = spawn(ranges.lock(span(0, 4), Exclusive));
        let mut later = spawn(ranges.lock(span(0, 4), Shared));
        assert!(change.poll().is_pending() && later.poll().is_pending());
        drop(held);
        let changed = change.poll();
        assert!(changed.is_ready() && later.poll().is_pending());
        drop(changed);
        assert!(later.is_woken() && later.poll().is_ready());
    }

    #[test]
    fn who_gives_up_waiting_is_in_nobodys_way() {
        let ranges = Arc::new(Ranges::default());
        let held = spawn(ranges.lock(span(0, 4), Shared)).poll();
        let mut change = spawn(ranges.lock(span(0, 4), Exclusive));
        let mut later = spawn(ranges.lock(span(0, 4), Shared));
        assert!(change.poll().is_pending() && later.poll().is_pending());
        drop(change);
        assert!(later.is_woken() && later.poll().is_ready());
        drop((held, later));
        assert!(ranges.table().entries.is_empty());
    }

    type Waiting = Spawn<Locking>;

    proptest! {
        #[test]
        fn nobody_shares_with_a_change_and_nobody_waits_without_a_reason(
            steps in prop::collection::vec((0u8..3, 0u64..16, 1u64..6, 0usize..64), 1..200)
        ) {
            let ranges = Arc::new(Ranges::default());
            // In the order of arrival.
            let mut all: Vec<(Span, Access, Waiting, Option<RangeGuard>)> = vec![];
            for (what, start, length, which) in steps {
                let access = if what == 0 { Shared } else { Exclusive };
                if what < 2 {
                    let span = span(start, start + length);
                    all.push((span, access, spawn(ranges.lock(span, access)), None));
                } else if !all.is_empty() {
                    drop(all.remove(which % all.len()));
                }
                for (_, _, waiting, guard) in &mut all {
                    if guard.is_none() && let Poll::Ready(got) = waiting.poll() {
                        *guard = Some(got);
                    }
                }
                for (at, (span, access, _, guard)) in all.iter().enumerate() {
                    let before = all[..at].iter().filter(|(other, with, ..)| {
                        other.overlaps(span) && (*with == Exclusive || *access == Exclusive)
                    });
                    prop_assert_eq!(guard.is_some(), before.count() == 0);
                }
            }
            drop(all);
            prop_assert!(ranges.table().entries.is_empty());
        }
    }
}
