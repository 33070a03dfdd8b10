//! Slices: allocated once, recorded, deleted for good.

use super::Store;
use super::commit::{Wanted, tables_failed};
use super::io::blocking;
use super::tables::{SliceNumber, SliceRow};
use crate::superblock::CHUNK;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;
use weft_block::{BLOCK, DiskError, ErrorKind};
use weft_spec::drive::{Config, SliceRecord, SliceRequest};
use weft_spec::ids::{DocumentGeneration, FencePair, SliceUid, VolumeUid};

/// A slice that exists. What each command needs of it is read without a lock.
#[derive(Debug)]
pub struct Slice {
    uid: SliceUid,
    number: SliceNumber,
    volume: VolumeUid,
    /// Bytes; grows once the larger size is durable, never shrinks.
    size: AtomicU64,
    row: Mutex<SliceRow>,
    record: Mutex<Option<Arc<SliceRecord>>>,
}

/// Why a slice is not allocated.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// It was here before.
    #[error("slice {0} was deleted here and is never made again: use a new uid")]
    Deleted(SliceUid),
    /// It is there, for another volume.
    #[error("slice {slice} exists for volume {volume}: use a new uid")]
    Exists {
        /// Which.
        slice: SliceUid,
        /// Whose it is.
        volume: VolumeUid,
    },
    /// It is there and larger.
    #[error("slice {slice} has {size} bytes and cannot shrink to {asked}: ask for at least {size}")]
    Smaller {
        /// Which.
        slice: SliceUid,
        /// Bytes that it has.
        size: u64,
        /// Bytes asked for.
        asked: u64,
    },
    /// Not a size.
    #[error(
        "{0} bytes is no size for a slice: a multiple of {BLOCK} from {BLOCK} bytes to 256 TiB"
    )]
    Size(u64),
    /// More than the drive may promise.
    #[error(
        "{size} bytes do not fit: other slices have {promised} bytes of the {limit} that {percent}% of the \
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
    pub(super) fn new(row: SliceRow, record: Option<SliceRecord>) -> Self {
        Self {
            uid: row.uid,
            number: row.number,
            volume: row.volume,
            size: AtomicU64::new(row.size),
            row: Mutex::new(row),
            record: Mutex::new(record.map(Arc::new)),
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

    /// Bytes. Grows, never shrinks.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    /// Its number in the chunk map.
    pub(super) fn number(&self) -> SliceNumber {
        self.number
    }

    /// Its record as it is on the medium.
    pub fn row(&self) -> SliceRow {
        *self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its membership record, if an engine has put one.
    pub fn record(&self) -> Option<Arc<SliceRecord>> {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Config of its membership record.
    pub(super) fn config(&self) -> Option<Config> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.as_ref().map(|record| record.config)
    }

    /// Takes in a row that is durable now.
    fn recorded(&self, row: SliceRow) {
        *self.row.lock().unwrap_or_else(PoisonError::into_inner) = row;
        self.size.store(row.size, Ordering::Release);
    }
}

/// What a request for a slice comes to.
enum Judged {
    /// It is there so.
    Same(Arc<Slice>),
    /// It is there, and grows to this row.
    Grow(Arc<Slice>, SliceRow),
    /// It is new.
    New(SliceRow),
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

    /// Makes a slice, finds the same one made before, or grows one that is smaller (while it is
    /// used; its new end reads as zeros). Durable when this returns. Space is promised, not taken.
    pub async fn allocate(
        self: &Arc<Self>,
        uid: SliceUid,
        request: SliceRequest,
    ) -> Result<Arc<Slice>, AllocateError> {
        let _one = self.administration.lock().await;
        match self.judge(uid, request)? {
            Judged::Same(slice) => Ok(slice),
            Judged::Grow(slice, row) => {
                self.put_row(row).await?;
                slice.recorded(row);
                Ok(slice)
            }
            Judged::New(row) => {
                self.put_row(row).await?;
                let slice = Arc::new(Slice::new(row, None));
                let mut directory = self.directory();
                directory.next_number = row.number.0 + 1;
                directory.slices.insert(uid, slice.clone());
                Ok(slice)
            }
        }
    }

    fn judge(&self, uid: SliceUid, request: SliceRequest) -> Result<Judged, AllocateError> {
        let SliceRequest {
            volume,
            size,
            overcommit_percent: percent,
        } = request;
        let directory = self.directory();
        if directory.tombstones.contains(&uid) {
            return Err(AllocateError::Deleted(uid));
        }
        let existing = directory.slices.get(&uid);
        let held = existing.map_or(0, |slice| slice.size());
        if let Some(slice) = existing {
            if slice.volume != volume {
                let volume = slice.volume;
                return Err(AllocateError::Exists { slice: uid, volume });
            }
            if size == held {
                return Ok(Judged::Same(slice.clone()));
            }
            if size < held {
                return Err(AllocateError::Smaller {
                    slice: uid,
                    size: held,
                    asked: size,
                });
            }
        }
        if size == 0 || !size.is_multiple_of(BLOCK) || size.div_ceil(CHUNK) > u64::from(u32::MAX) {
            return Err(AllocateError::Size(size));
        }
        let capacity = self.capacity();
        let promised: u64 = directory.slices.values().map(|slice| slice.size()).sum();
        let limit = u128::from(capacity) * u128::from(percent) / 100;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        let others = promised - held;
        if others.checked_add(size).is_none_or(|sum| sum > limit) {
            return Err(AllocateError::NoSpace {
                size,
                promised: others,
                limit,
                percent,
                capacity,
            });
        }
        Ok(match existing {
            Some(slice) => Judged::Grow(
                slice.clone(),
                SliceRow {
                    size,
                    ..slice.row()
                },
            ),
            None => Judged::New(SliceRow {
                uid,
                number: SliceNumber(directory.next_number),
                volume,
                size,
                fence: FencePair::default(),
                host_id: Uuid::nil(),
                generation: DocumentGeneration(0),
            }),
        })
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
        self.put_row(row).await?;
        slice.recorded(row);
        Ok(true)
    }

    /// Deletes a slice and frees its chunks; false if there is none. The caller has ended its
    /// I/O and lets none begin. The uid is never allocated again.
    pub async fn delete(self: &Arc<Self>, uid: SliceUid) -> Result<bool, DiskError> {
        let _one = self.administration.lock().await;
        let Some(slice) = self.slice(uid) else {
            return Ok(false);
        };
        // The log then says nothing more of it.
        self.log(Wanted::Fold).await?;
        let (tables, row) = (self.tables.clone(), slice.row());
        let deleted = blocking(&*self.medium, move || {
            tables.delete(&row).map_err(tables_failed)
        })
        .await;
        let freed = deleted.inspect_err(|error| self.fail(error))?;
        self.core().deleted(slice.number, &freed);
        self.forget_corrupt(uid);
        self.advance();
        let mut directory = self.directory();
        directory.slices.remove(&uid);
        directory.tombstones.insert(uid);
        Ok(true)
    }

    async fn put_row(&self, row: SliceRow) -> Result<(), DiskError> {
        self.broken()?;
        let tables = self.tables.clone();
        let put = blocking(&*self.medium, move || {
            tables.put(&row).map_err(tables_failed)
        })
        .await;
        put.inspect_err(|error| self.fail(error))
    }

    /// Puts the membership record of a slice in the place of `expected`; durable when this
    /// returns. False if the present one is not `expected`, or the slice is gone.
    pub async fn put_record(
        self: &Arc<Self>,
        slice: &Slice,
        expected: Option<&SliceRecord>,
        record: SliceRecord,
    ) -> Result<bool, DiskError> {
        let _one = self.administration.lock().await;
        self.broken()?;
        let now = slice.record();
        if now.as_deref() != expected || self.slice(slice.uid).is_none() {
            return Ok(false);
        }
        let (tables, row) = (self.tables.clone(), slice.row());
        let json = serde_json::to_vec(&record).map_err(|error| {
            DiskError::new(ErrorKind::MediaWrite, "the record as JSON").caused_by(error)
        })?;
        // A hole is of use only to a slice that lacks the config that made it.
        let oldest = record.out_of_sync.iter().map(|out| out.since).min();
        let oldest = oldest.unwrap_or(Config(u64::MAX));
        let put = blocking(&*self.medium, move || {
            tables
                .put_record(&row, &json, oldest)
                .map_err(tables_failed)
        })
        .await;
        put.inspect_err(|error| self.fail(error))?;
        *slice.record.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(record));
        Ok(true)
    }
}
