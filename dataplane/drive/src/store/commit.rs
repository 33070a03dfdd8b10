//! Group commit: changes that wait while a transaction runs go into the next one together.

use super::io::blocking;
use super::tables::Change;
use super::{Store, StoreError};
use std::sync::{Arc, PoisonError};
use tokio::sync::oneshot;
use weft_block::{DiskError, ErrorKind};

/// Most changes in one transaction: bounds its copy-on-write in the metadata region.
const MAX_CHANGES: usize = 4096;

/// What waits for the next transaction.
#[derive(Default)]
pub struct Queue {
    waiting: Vec<Waiting>,
    running: bool,
}

struct Waiting {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), DiskError>>,
}

impl Store {
    /// Makes the changes durable and takes them in, all or none. Goes on to its end also when
    /// the caller is gone.
    pub(super) async fn commit(self: &Arc<Self>, changes: Vec<Change>) -> Result<(), DiskError> {
        if changes.is_empty() {
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.waiting.push(Waiting { changes, done });
            if !std::mem::replace(&mut queue.running, true) {
                tokio::spawn(self.clone().run_commits());
            }
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Ends when nothing waits, so that an idle drive has no task.
    async fn run_commits(self: Arc<Self>) {
        while let Some(batch) = self.next_batch() {
            let result = self.commit_batch(&batch).await;
            self.advance();
            for waiting in batch {
                // A caller that is gone needs no answer.
                let _ = waiting
                    .done
                    .send(result.clone().map_err(|reason| failed(&reason)));
            }
        }
    }

    fn next_batch(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = 0;
        let count = queue.waiting.iter().take_while(|waiting| {
            let first = changes == 0;
            changes += waiting.changes.len();
            first || changes <= MAX_CHANGES
        });
        let count = count.count();
        queue.running = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }

    async fn commit_batch(&self, batch: &[Waiting]) -> Result<(), String> {
        if let Some(reason) = self.failure.borrow().clone() {
            return Err(reason);
        }
        let changes: Vec<Change> = batch
            .iter()
            .flat_map(|waiting| waiting.changes.iter().copied())
            .collect();
        let tables = self.tables.clone();
        let done = blocking(move || {
            let freed = tables
                .commit(changes.iter().copied())
                .map_err(StoreError::from);
            freed.map(|freed| (changes, freed)).map_err(|error| {
                DiskError::new(ErrorKind::MediaWrite, "commit of the metadata").caused_by(error)
            })
        })
        .await;
        match done {
            Ok((changes, freed)) => {
                let mut core = self.core();
                changes.iter().for_each(|change| core.settle(change));
                core.settle_deleted(&freed);
                Ok(())
            }
            Err(error) => {
                let reason = describe(&error);
                tracing::error!(
                    reason,
                    "the metadata cannot be written; nothing more is accepted"
                );
                self.failure.send_replace(Some(reason.clone()));
                Err(reason)
            }
        }
    }
}

fn failed(reason: &str) -> DiskError {
    DiskError::new(
        ErrorKind::MediaWrite,
        format!("the metadata cannot be written: {reason}"),
    )
}

fn gone() -> DiskError {
    DiskError::new(ErrorKind::Gone, "the store is closed")
}

/// An error with its causes in one line.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
