//! A slice at a drive, asked by vendor specific commands (`docs/protocol.md`).

use super::slice::{Changes, ChunkIndex, HotRegions, RangeHash, RegionIndex, Slice};
use crate::layers::mirror::Span;
use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;
use std::sync::Arc;
use tokio::sync::Mutex;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{
    Answer, Config, Question, RegionsEqual, VENDOR_ANSWER, VENDOR_ASK, VENDOR_REGIONS_EQUAL,
};
use weft_transport::RemoteDisk;

/// Room for an answer: some 1,600 chunks.
const ANSWER: u32 = 64 << 10;
/// Regions told at a time: 11 characters each, in at most 8192 bytes.
const TOLD: usize = 512;

/// A slice behind one association.
pub struct RemoteSlice {
    disk: Arc<RemoteDisk>,
    region_size: u64,
    /// Held from a question to its answer: a new question takes the place of the one before.
    asking: Mutex<()>,
}

impl RemoteSlice {
    /// The slice behind this association; the size of a region is what an inspection told.
    pub fn new(disk: Arc<RemoteDisk>, region_size: u64) -> Self {
        Self {
            disk,
            region_size,
            asking: Mutex::default(),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, DiskError> {
        let _asking = self.asking.lock().await;
        let put = self.disk.vendor_put(VENDOR_ASK, 0, body(&question)?);
        put.await?;
        let answer = self.disk.vendor_get(VENDOR_ANSWER, 0, ANSWER).await?;
        let end = answer.iter().rposition(|byte| *byte != 0);
        let json = answer.get(..end.map_or(0, |end| end + 1));
        let read = serde_json::from_slice(json.unwrap_or_default());
        read.map_err(|error| unexpected("cannot be read").caused_by(error))
    }
}

fn body(what: &impl Serialize) -> Result<Bytes, DiskError> {
    let json = serde_json::to_vec(what);
    let json = json.map_err(|error| unexpected("was not asked").caused_by(error))?;
    Ok(json.into())
}

fn unexpected(what: &str) -> DiskError {
    let context = format!("the drive's answer about its slice {what}");
    DiskError::new(ErrorKind::Unsupported, context)
}

fn chunks(numbers: Vec<u32>) -> Vec<ChunkIndex> {
    numbers.into_iter().map(ChunkIndex).collect()
}

#[async_trait]
impl Slice for RemoteSlice {
    fn region_size(&self) -> u64 {
        self.region_size
    }

    async fn changes(&self, config: Config, from: ChunkIndex) -> Result<Changes, DiskError> {
        let question = Question::ChangesSince {
            config,
            from: from.0,
        };
        match self.ask(question).await? {
            Answer::Changes {
                changed,
                holes,
                next,
            } => Ok(Changes {
                changed: chunks(changed),
                holes: chunks(holes),
                next: next.map(ChunkIndex),
            }),
            _ => Err(unexpected("is to another question")),
        }
    }

    async fn hot(&self, from: RegionIndex) -> Result<HotRegions, DiskError> {
        match self.ask(Question::HotSet { from: from.0 }).await? {
            Answer::HotSet { regions, next } => Ok(HotRegions {
                regions: regions.iter().map(|hot| RegionIndex(hot.region)).collect(),
                next: next.map(RegionIndex),
            }),
            _ => Err(unexpected("is to another question")),
        }
    }

    async fn hash(&self, span: Span) -> Result<RangeHash, DiskError> {
        let question = Question::Hash {
            offset: span.start,
            length: span.length(),
        };
        match self.ask(question).await? {
            Answer::Hash(digits) => match u128::from_str_radix(&digits, 16) {
                Ok(hash) if digits.len() == 32 => Ok(RangeHash(hash)),
                _ => Err(unexpected("is no hash")),
            },
            _ => Err(unexpected("is to another question")),
        }
    }

    async fn equal(&self, regions: &[RegionIndex]) -> Result<(), DiskError> {
        for some in regions.chunks(TOLD) {
            let regions = some.iter().map(|region| region.0).collect();
            let told = body(&RegionsEqual { regions })?;
            self.disk.vendor_put(VENDOR_REGIONS_EQUAL, 0, told).await?;
        }
        Ok(())
    }
}
