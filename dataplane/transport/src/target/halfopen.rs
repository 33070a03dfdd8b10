//! Connections that have not said yet who they are (`security.md` section 5.4, item 1): few in all,
//! fewer of one address, and the oldest gives way to the newest, so that whoever has something to
//! say gets to say it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// All of one listener.
#[derive(Debug)]
pub(super) struct HalfOpen {
    most: usize,
    most_of_one: usize,
    waiting: Mutex<VecDeque<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    peer: IpAddr,
    give_way: CancellationToken,
}

/// The place of one connection; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    all: Arc<HalfOpen>,
    /// Cancelled when a newer connection needs the place.
    pub give_way: CancellationToken,
}

impl HalfOpen {
    /// Room for so many, and for so many of one address.
    pub fn new(most: usize, most_of_one: usize) -> Arc<Self> {
        Arc::new(Self {
            most: most.max(1),
            most_of_one: most_of_one.max(1),
            waiting: Mutex::default(),
        })
    }

    /// A connection begins.
    pub fn enter(self: &Arc<Self>, peer: SocketAddr) -> Place {
        let peer = peer.ip().to_canonical();
        let give_way = CancellationToken::new();
        let mut waiting = self.waiting();
        let of_peer = waiting.iter().filter(|other| other.peer == peer).count();
        let oldest = if of_peer >= self.most_of_one {
            waiting.iter().position(|other| other.peer == peer)
        } else {
            (waiting.len() >= self.most).then_some(0)
        };
        if let Some(oldest) = oldest.and_then(|oldest| waiting.remove(oldest)) {
            oldest.give_way.cancel();
        }
        waiting.push_back(Waiting {
            peer,
            give_way: give_way.clone(),
        });
        drop(waiting);
        Place {
            all: self.clone(),
            give_way,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Each change is whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever had to give way is not in the list any more.
        if !self.give_way.is_cancelled() {
            self.give_way.cancel();
            self.all
                .waiting()
                .retain(|other| !other.give_way.is_cancelled());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    #[test]
    fn the_oldest_of_one_address_gives_way_to_its_newest() {
        let all = HalfOpen::new(4, 2);
        let (first, second) = (all.enter(peer(1)), all.enter(peer(1)));
        let other = all.enter(peer(2));
        let third = all.enter(peer(1));
        assert!(first.give_way.is_cancelled());
        assert!(!second.give_way.is_cancelled() && !other.give_way.is_cancelled());
        drop((first, second));
        let _fourth = all.enter(peer(1));
        assert!(!third.give_way.is_cancelled(), "a place was given back");
    }

    #[test]
    fn the_oldest_of_all_gives_way_when_there_are_many_addresses() {
        let all = HalfOpen::new(3, 2);
        let places: Vec<_> = (1..=5).map(|last| all.enter(peer(last))).collect();
        let given: Vec<_> = places.iter().map(|p| p.give_way.is_cancelled()).collect();
        assert_eq!(given, [true, true, false, false, false]);
        drop(places);
        assert!(all.waiting().is_empty());
    }
}
