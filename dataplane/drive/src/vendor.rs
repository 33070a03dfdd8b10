//! The vendor specific admin commands of a slice's controller (`docs/protocol.md`).

use crate::fence::{Association, Permit};
use crate::store::{Slice, Store};
use async_trait::async_trait;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{
    Answer, Checkpoint, DocumentMark, Question, RecordAnswer, RecordSwap, RegionsEqual,
    SliceInspection, Space, VENDOR_ANSWER, VENDOR_ASK, VENDOR_CHECKPOINT, VENDOR_GET_RECORD,
    VENDOR_INSPECT, VENDOR_PUT_GENERATION, VENDOR_PUT_RECORD, VENDOR_REGIONS_EQUAL, VENDOR_SPACE,
};
use weft_transport::target::{Vendor, VendorError};

/// Most bytes that one element of a list takes in an answer, and what is around the list.
const ELEMENT: usize = 40;
const AROUND: usize = 128;

/// Answers for one association with one slice.
pub struct SliceVendor {
    store: Arc<Store>,
    slice: Arc<Slice>,
    /// None for a host that only inspects.
    association: Option<Arc<Association>>,
    peer: SocketAddr,
    question: Mutex<Option<Question>>,
}

fn read<T: DeserializeOwned>(data: &[u8]) -> Result<T, VendorError> {
    let text = data.split(|byte| *byte == 0).next().unwrap_or_default();
    serde_json::from_slice(text).map_err(|_| VendorError::InvalidField)
}

fn refused(error: &DiskError) -> VendorError {
    match error.kind() {
        ErrorKind::OutOfRange => VendorError::InvalidField,
        _ => VendorError::Internal,
    }
}

/// Goes on to its end with its permit when the connection is closed meanwhile.
async fn to_its_end(
    permit: Permit,
    work: impl Future<Output = Result<bool, DiskError>> + Send + 'static,
    refusal: VendorError,
) -> Result<(), VendorError> {
    let done = tokio::spawn(async move {
        let done = work.await;
        drop(permit);
        done
    });
    match done.await {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(refusal),
        Ok(Err(_)) | Err(_) => Err(VendorError::Internal),
    }
}

impl SliceVendor {
    /// For a host at `peer`.
    pub fn new(
        store: Arc<Store>,
        slice: Arc<Slice>,
        association: Option<Arc<Association>>,
        peer: SocketAddr,
    ) -> Self {
        Self {
            store,
            slice,
            association,
            peer,
            question: Mutex::new(None),
        }
    }

    /// The right to change something.
    fn engine(&self) -> Result<(Arc<Association>, Permit), VendorError> {
        let association = self.association.as_ref().ok_or(VendorError::Fenced)?;
        let permit = association.enter().map_err(|_| VendorError::Fenced)?;
        Ok((association.clone(), permit))
    }

    async fn put_generation(&self, data: &[u8]) -> Result<(), VendorError> {
        let (_, permit) = self.engine()?;
        let mark: DocumentMark = read(data)?;
        let (store, slice) = (self.store.clone(), self.slice.clone());
        let work = async move {
            if slice.row().generation >= mark.generation {
                return Ok(true);
            }
            let raise = |row: &mut crate::store::SliceRow| {
                row.generation = row.generation.max(mark.generation);
            };
            store.record(&slice, raise).await
        };
        to_its_end(permit, work, VendorError::Fenced).await
    }

    async fn put_record(&self, data: &[u8]) -> Result<(), VendorError> {
        let (association, permit) = self.engine()?;
        let RecordSwap { expected, record } = read(data)?;
        let order = |record: &weft_spec::drive::SliceRecord| (record.fence, record.config);
        let forward = expected
            .as_ref()
            .is_none_or(|expected| order(expected) < order(&record));
        let mine = record.volume == self.slice.volume() && record.fence == association.pair();
        if !mine || !forward {
            return Err(VendorError::InvalidField);
        }
        let (store, slice) = (self.store.clone(), self.slice.clone());
        let work = async move { store.put_record(&slice, expected.as_ref(), record).await };
        to_its_end(permit, work, VendorError::SwapLost).await
    }

    async fn answer(&self, length: u32) -> Result<Answer, VendorError> {
        let question = *self.question.lock().unwrap_or_else(PoisonError::into_inner);
        let most = (length as usize).saturating_sub(AROUND) / ELEMENT;
        if most == 0 {
            return Err(VendorError::InvalidField);
        }
        match question.ok_or(VendorError::InvalidField)? {
            Question::ChangesSince { config, from } => {
                let found = self.store.changes(&self.slice, config, from, most).await;
                let found = found.map_err(|error| refused(&error))?;
                Ok(Answer::Changes {
                    changed: found.changed,
                    holes: found.holes,
                    next: found.next,
                })
            }
            Question::HotSet { from } => {
                let (regions, next) = self.store.hot_set(&self.slice, from, most);
                Ok(Answer::HotSet { regions, next })
            }
            Question::Hash { offset, length } => {
                let hash = self.store.hash(&self.slice, offset, length).await;
                let hash = hash.map_err(|error| refused(&error))?;
                Ok(Answer::Hash(format!("{:032x}", u128::from_be_bytes(hash))))
            }
        }
    }

    fn inspection(&self) -> SliceInspection {
        let row = self.slice.row();
        SliceInspection {
            volume: row.volume,
            slice: row.uid,
            size: row.size,
            fence: row.fence,
            host_id: row.host_id,
            document_generation: row.generation,
            peer: self.peer,
            incarnation: self.store.superblock().incarnation,
            hot: self.store.hot_count(&self.slice),
        }
    }
}

#[async_trait]
impl Vendor for SliceVendor {
    async fn put(&self, opcode: u8, _cdw10: u32, data: Bytes) -> Result<(), VendorError> {
        match opcode {
            VENDOR_PUT_GENERATION => self.put_generation(&data).await,
            VENDOR_PUT_RECORD => self.put_record(&data).await,
            VENDOR_CHECKPOINT => {
                let (association, _permit) = self.engine()?;
                let Checkpoint { number } = read(&data)?;
                self.store
                    .checkpoint(&self.slice, association.pair(), number);
                Ok(())
            }
            VENDOR_REGIONS_EQUAL => {
                let (_, _permit) = self.engine()?;
                let RegionsEqual { regions } = read(&data)?;
                self.store.regions_equal(&self.slice, &regions);
                Ok(())
            }
            VENDOR_ASK => {
                let question = read(&data)?;
                let _permit = match &self.association {
                    Some(_) => Some(self.engine()?),
                    // Inspecting shows no bytes, and nothing that follows from them.
                    None if matches!(question, Question::HotSet { .. }) => None,
                    None => return Err(VendorError::Fenced),
                };
                *self.question.lock().unwrap_or_else(PoisonError::into_inner) = Some(question);
                Ok(())
            }
            _ => Err(VendorError::InvalidOpcode),
        }
    }

    async fn get(&self, opcode: u8, _cdw10: u32, length: u32) -> Result<Bytes, VendorError> {
        let _permit = match &self.association {
            Some(association) => Some(association.enter().map_err(|_| VendorError::Fenced)?),
            None => None,
        };
        let answer = match opcode {
            VENDOR_INSPECT => serde_json::to_vec(&self.inspection()),
            VENDOR_GET_RECORD => serde_json::to_vec(&RecordAnswer {
                record: self.slice.record().map(|record| (*record).clone()),
                incarnation: self.store.superblock().incarnation,
            }),
            VENDOR_ANSWER => serde_json::to_vec(&self.answer(length).await?),
            VENDOR_SPACE => serde_json::to_vec(&Space {
                capacity: self.store.capacity(),
                free: self.store.free(),
                allocated: self.store.allocated(&self.slice),
            }),
            _ => return Err(VendorError::InvalidOpcode),
        };
        let answer = answer.map_err(|_| VendorError::Internal)?;
        // An answer that does not fit would be cut in the middle: the host asks with too little.
        if answer.len() > length as usize {
            return Err(VendorError::InvalidField);
        }
        Ok(answer.into())
    }
}
