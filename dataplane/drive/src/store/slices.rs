//! Slices: allocated once, recorded, deleted for good.

use super::Store;
use super::tables::{Change, SliceNumber, SliceRow};
use crate::superblock::CHUNK;
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;
use weft_block::{BLOCK, DiskError};
use weft_spec::drive::SliceRequest;
use weft_spec::ids::{DocumentGeneration, FencePair, SliceUid, VolumeUid};

/// A slice that exists. What cannot change is read without a lock.
#[derive(Debug)]
pub struct Slice {
    uid: SliceUid,
    number: SliceNumber,
    volume: VolumeUid,
    size: u64,
    row: Mutex<SliceRow>,
}

/// Why a slice is not allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// It was here before.
    #[error("slice {0} was deleted here and is never made again: use a new uid")]
    Deleted(SliceUid),
    /// It is there, but not so.
    #[error("slice {slice} exists with {size} bytes for volume {volume}: use a new uid")]
    Exists {
        /// Which.
        slice: SliceUid,
        /// Whose it is.
        volume: VolumeUid,
        /// Bytes.
        size: u64,
    },
    /// Not a size.
    #[error(
        "{0} bytes is no size for a slice: a multiple of {BLOCK} from {BLOCK} bytes to 256 TiB"
    )]
    Size(u64),
    /// More than the drive may promise.
    #[error(
        "{size} bytes do not fit: slices have {promised} bytes of the {limit} that {percent}% of the \
         drive's {capacity} bytes allow; delete slices, raise the pool's overcommit, or use another drive"
    )]
    NoSpace {
        /// Bytes asked for.
        size: u64,
        /// Sum of the sizes of all slices.
        promised: u64,
        /// Most that sum may be.
        limit: u64,
        /// Overcommit.
        percent: u32,
        /// Of the drive.
        capacity: u64,
    },
    /// Nothing can be recorded.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl Slice {
    pub(super) fn new(row: SliceRow) -> Self {
        Self {
            uid: row.uid,
            number: row.number,
            volume: row.volume,
            size: row.size,
            row: Mutex::new(row),
        }
    }

    /// Its identity.
    pub fn uid(&self) -> SliceUid {
        self.uid
    }

    /// Whose it is.
    pub fn volume(&self) -> VolumeUid {
        self.volume
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Its number in the chunk map.
    pub(super) fn number(&self) -> SliceNumber {
        self.number
    }

    /// Its record as it is on the medium.
    pub fn row(&self) -> SliceRow {
        *self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Every slice, by uid.
    pub fn slices(&self) -> Vec<Arc<Slice>> {
        self.directory().slices.values().cloned().collect()
    }

    /// One slice.
    pub fn slice(&self, uid: SliceUid) -> Option<Arc<Slice>> {
        self.directory().slices.get(&uid).cloned()
    }

    /// Makes a slice, or finds the same one made before. Space is promised, not taken.
    pub async fn allocate(
        self: &Arc<Self>,
        uid: SliceUid,
        request: SliceRequest,
    ) -> Result<Arc<Slice>, AllocateError> {
        let _one = self.administration.lock().await;
        let row = match self.judge(uid, request)? {
            Ok(existing) => return Ok(existing),
            Err(row) => row,
        };
        self.commit(vec![Change::Put(row)]).await?;
        let slice = Arc::new(Slice::new(row));
        let mut directory = self.directory();
        directory.next_number = row.number.0 + 1;
        directory.slices.insert(uid, slice.clone());
        Ok(slice)
    }

    /// The slice that is there already, or the row of a new one.
    fn judge(
        &self,
        uid: SliceUid,
        request: SliceRequest,
    ) -> Result<Result<Arc<Slice>, SliceRow>, AllocateError> {
        let SliceRequest {
            volume,
            size,
            overcommit_percent: percent,
        } = request;
        let directory = self.directory();
        if directory.tombstones.contains(&uid) {
            return Err(AllocateError::Deleted(uid));
        }
        if let Some(slice) = directory.slices.get(&uid) {
            if (slice.volume, slice.size) == (volume, size) {
                return Ok(Ok(slice.clone()));
            }
            return Err(AllocateError::Exists {
                slice: uid,
                volume: slice.volume,
                size: slice.size,
            });
        }
        if size == 0 || !size.is_multiple_of(BLOCK) || size.div_ceil(CHUNK) > u64::from(u32::MAX) {
            return Err(AllocateError::Size(size));
        }
        let capacity = self.capacity();
        let promised: u64 = directory.slices.values().map(|slice| slice.size).sum();
        let limit = u128::from(capacity) * u128::from(percent) / 100;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        if promised.checked_add(size).is_none_or(|sum| sum > limit) {
            return Err(AllocateError::NoSpace {
                size,
                promised,
                limit,
                percent,
                capacity,
            });
        }
        Ok(Err(SliceRow {
            uid,
            number: SliceNumber(directory.next_number),
            volume,
            size,
            fence: FencePair::default(),
            host_id: Uuid::nil(),
            generation: DocumentGeneration(0),
        }))
    }

    /// Changes the record of a slice; durable when this returns. One that is deleted meanwhile
    /// stays deleted, and the answer is false.
    pub async fn record(
        self: &Arc<Self>,
        slice: &Slice,
        change: impl FnOnce(&mut SliceRow),
    ) -> Result<bool, DiskError> {
        let _one = self.administration.lock().await;
        if self.slice(slice.uid).is_none() {
            return Ok(false);
        }
        let mut row = slice.row();
        change(&mut row);
        self.commit(vec![Change::Put(row)]).await?;
        *slice.row.lock().unwrap_or_else(PoisonError::into_inner) = row;
        Ok(true)
    }

    /// Deletes a slice and frees its chunks; false if there is none. The caller has ended its
    /// I/O and lets none begin. The uid is never allocated again.
    pub async fn delete(self: &Arc<Self>, uid: SliceUid) -> Result<bool, DiskError> {
        let _one = self.administration.lock().await;
        let Some(slice) = self.slice(uid) else {
            return Ok(false);
        };
        self.commit(vec![Change::Delete(slice.row())]).await?;
        let mut directory = self.directory();
        directory.slices.remove(&uid);
        directory.tombstones.insert(uid);
        Ok(true)
    }
}
