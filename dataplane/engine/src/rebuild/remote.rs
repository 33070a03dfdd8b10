//! A slice at a drive, asked by vendor specific commands (`docs/protocol.md`).

use super::slice::{Changes, ChunkIndex, HotRegions, RangeHash, Region, Slice};
use crate::layers::mirror::Span;
use crate::members::link::{self, LinkError};
use crate::network::Association;
use async_trait::async_trait;
use std::sync::Arc;
use tokio::sync::Mutex;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{
    Answer, Config, Question, RegionsEqual, VENDOR_ANSWER, VENDOR_ASK, VENDOR_REGIONS_EQUAL,
};

/// Regions told at a time: 11 characters each, in at most 8192 bytes.
const TOLD: usize = 512;

/// A slice behind one association: one of these for each, or questions would take each other's place.
pub struct RemoteSlice {
    disk: Arc<dyn Association>,
    region_size: u64,
    /// Held from a question to its answer: a new question takes the place of the one before.
    asking: Mutex<()>,
}

impl RemoteSlice {
    /// The slice behind this association; the size of a region is what an inspection told.
    pub fn new(disk: Arc<dyn Association>, region_size: u64) -> Self {
        Self {
            disk,
            region_size,
            asking: Mutex::default(),
        }
    }

    async fn ask(&self, question: Question) -> Result<Answer, DiskError> {
        let _asking = self.asking.lock().await;
        link::put(&*self.disk, VENDOR_ASK, &question).await?;
        let answer = link::get(&*self.disk, VENDOR_ANSWER).await;
        answer.map_err(|error| match error {
            LinkError::Command(error) => error,
            error => unexpected("cannot be read").caused_by(error),
        })
    }

    /// Its bytes.
    pub fn disk(&self) -> &Arc<dyn Association> {
        &self.disk
    }
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

    async fn hot(&self, from: Region) -> Result<HotRegions, DiskError> {
        match self.ask(Question::HotSet { from: from.0 }).await? {
            Answer::HotSet { regions, next } => Ok(HotRegions {
                regions: regions.iter().map(|hot| Region(hot.region)).collect(),
                next: next.map(Region),
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

    async fn equal(&self, regions: &[Region]) -> Result<(), DiskError> {
        for some in regions.chunks(TOLD) {
            let regions = some.iter().map(|region| region.0).collect();
            let told = RegionsEqual { regions };
            link::put(&*self.disk, VENDOR_REGIONS_EQUAL, &told).await?;
        }
        Ok(())
    }
}
