//! One operation at a time per volume.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OwnedMutexGuard;
use tonic::Status;

/// Locks by volume id. Cloned freely; all clones are one.
#[derive(Clone, Default)]
pub struct Locks {
    held: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
}

/// Holds the right to work on one volume until dropped.
pub struct Guard {
    _lock: OwnedMutexGuard<()>,
}

impl Locks {
    /// Takes the lock, or answers ABORTED as the specification asks when another call for
    /// the same volume is under way.
    pub fn take(&self, volume: &str) -> Result<Guard, Status> {
        let lock = self.entry(volume).try_lock_owned().map_err(|_| {
            Status::aborted(format!(
                "another operation on volume {volume} is under way; it is repeated by itself"
            ))
        })?;
        Ok(Guard { _lock: lock })
    }

    /// Waits for the lock: for work that no caller repeats.
    pub async fn wait(&self, volume: &str) -> Guard {
        Guard {
            _lock: self.entry(volume).lock_owned().await,
        }
    }

    fn entry(&self, volume: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // An entry that only the map knows is held by nobody.
        held.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(held.entry(volume.to_owned()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_operation_on_one_volume_is_aborted_and_others_go_on() {
        let locks = Locks::default();
        let first = locks.take("a").unwrap();
        assert_eq!(locks.take("a").err().unwrap().code(), tonic::Code::Aborted);
        let _other = locks.take("b").unwrap();
        drop(first);
        locks.take("a").unwrap();
    }

    #[test]
    fn locks_that_nobody_holds_take_no_room() {
        let locks = Locks::default();
        for n in 0..100 {
            locks.take(&n.to_string()).unwrap();
        }
        assert!(locks.held.lock().unwrap().len() <= 1);
    }
}
