//! The check of everything stored: each chunk is read and compared with its checksums, one after
//! the other, at a bounded rate, while the drive is in use. An idle drive is not woken for it.

use super::Store;
use super::core::LEAF;
use super::tables::ChunkIndex;
use crate::superblock::CHUNK;
use bytes::BytesMut;
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use weft_block::{DiskError, ErrorKind};
use weft_spec::ids::SliceUid;

/// Between two chunks: 1 MiB in a second.
const STEP: Duration = Duration::from_micros(62_500);

/// Where a pass has come to. Kept in the tables with each fold, so that a drive that is started
/// again and again comes to its end all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cursor {
    /// Slice looked at; none before the first.
    pub slice: Option<SliceUid>,
    /// First chunk of it that was not looked at.
    pub index: u32,
    /// Bytes checked in this pass.
    pub checked: u64,
}

impl Store {
    /// Checks for ever, from where the last process came to.
    pub async fn scrub(self: &Arc<Self>) {
        loop {
            self.in_use.notified().await;
            if let Err(error) = self.scrub_on().await
                && error.kind() != ErrorKind::MediaRead
            {
                tracing::warn!(%error, "the check of what is stored does not go on here");
            }
            tokio::time::sleep(STEP).await;
        }
    }

    /// Checks the next chunk.
    pub(super) async fn scrub_on(self: &Arc<Self>) -> Result<(), DiskError> {
        let mut cursor = self.cursor();
        let done = self.scrub_step(&mut cursor).await;
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        done
    }

    /// Where the check has come to.
    pub(super) fn cursor(&self) -> Cursor {
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks one chunk; a whole pass ends with a step that checks none.
    async fn scrub_step(self: &Arc<Self>, cursor: &mut Cursor) -> Result<(), DiskError> {
        let slices = self.slices();
        let slice = slices
            .iter()
            .find(|slice| Some(slice.uid()) >= cursor.slice);
        let Some(slice) = slice else {
            *cursor = Cursor::default();
            self.scrubbed(|progress| {
                progress.passes += 1;
                progress.checked = 0;
            });
            return Ok(());
        };
        if cursor.slice != Some(slice.uid()) {
            cursor.index = 0;
            cursor.slice = Some(slice.uid());
        }
        let end = slice.size().div_ceil(CHUNK) as u32;
        while cursor.index < end {
            let (store, looked_at, leaf) = (self.clone(), slice.clone(), cursor.index / LEAF);
            let chunks = move || store.chunks_of(&looked_at, leaf);
            let chunks = super::io::blocking(&*self.medium, chunks).await?;
            let next = chunks.into_iter().find(|index| index.0 >= cursor.index);
            let Some(ChunkIndex(index)) = next else {
                cursor.index = (leaf + 1).saturating_mul(LEAF);
                continue;
            };
            cursor.index = index + 1;
            let offset = u64::from(index) * CHUNK;
            let length = CHUNK.min(slice.size() - offset);
            let mut bytes = BytesMut::zeroed(length as usize);
            cursor.checked += length;
            self.scrubbed(|progress| progress.checked = cursor.checked);
            return self.read_quietly(slice, offset, &mut bytes, ()).await;
        }
        // The least uid that is greater.
        cursor.slice = Some(SliceUid(uuid::Uuid::from_u128(
            slice.uid().0.as_u128().wrapping_add(1),
        )));
        cursor.index = 0;
        Ok(())
    }

    fn scrubbed(&self, change: impl FnOnce(&mut weft_spec::drive::ScrubProgress)) {
        let mut progress = self.scrubbed.lock().unwrap_or_else(PoisonError::into_inner);
        change(progress.get_or_insert_default());
    }

    /// Checks the whole drive now, for tests and for who asks.
    #[cfg(test)]
    pub async fn scrub_all(self: &Arc<Self>) {
        let before = self.scrub_progress().unwrap_or_default().passes;
        let mut cursor = Cursor::default();
        while self.scrub_progress().unwrap_or_default().passes == before {
            let _ = self.scrub_step(&mut cursor).await;
        }
    }
}
