//! What a slice is asked beside its bytes (`docs/protocol.md`, *Vendor
//! specific admin commands of a slice*).

use crate::membership::{Region, Testimony};
use crate::way::Way;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use weft_block::DiskError;
use weft_spec::drive::{
    Answer, DocumentMark, Question, RecordAnswer, RecordSwap, RegionsEqual, SliceInspection,
    VENDOR_ANSWER, VENDOR_ASK, VENDOR_GET_RECORD, VENDOR_INSPECT, VENDOR_PUT_GENERATION,
    VENDOR_PUT_RECORD, VENDOR_REGIONS_EQUAL,
};
use weft_spec::ids::DocumentGeneration;
use weft_transport::{ConnectError, RemoteDisk};

/// Room for an answer.
const ANSWER_LENGTH: u32 = 64 << 10;

/// Why a slice could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No association.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The command failed.
    #[error(transparent)]
    Command(#[from] DiskError),
    /// The answer is not one to this question.
    #[error("the drive's answer cannot be read")]
    Answer(#[from] serde_json::Error),
    /// Another slice answers there.
    #[error("slice {} of volume {} answers there", .0.slice, .0.volume)]
    Other(Box<SliceInspection>),
    /// The answer is to another question.
    #[error("the drive answers another question")]
    Question,
}

/// Asks over an association of its own, which raises nothing.
pub async fn inspect(way: &Way) -> Result<Testimony, LinkError> {
    let association = way.inspecting().await?;
    let testimony = testify(way, &association).await;
    association.disconnect().await;
    Ok(testimony?.0)
}

/// What the slice says of itself on this association, and the address of this end as its drive
/// sees it.
pub async fn testify(
    way: &Way,
    association: &RemoteDisk,
) -> Result<(Testimony, SocketAddr), LinkError> {
    let inspection: SliceInspection = get(association, VENDOR_INSPECT).await?;
    if inspection.slice != way.member.slice || inspection.volume != way.volume {
        return Err(LinkError::Other(Box::new(inspection)));
    }
    let RecordAnswer {
        record,
        incarnation,
    } = get(association, VENDOR_GET_RECORD).await?;
    let testimony = Testimony {
        fence: inspection.fence,
        record,
        incarnation,
        hot: hot_set(association).await?,
        generation: inspection.document_generation,
    };
    Ok((testimony, inspection.peer))
}

async fn hot_set(association: &RemoteDisk) -> Result<Vec<Region>, LinkError> {
    let mut hot = Vec::new();
    let mut from = Some(0);
    while let Some(first) = from {
        put(association, VENDOR_ASK, &Question::HotSet { from: first }).await?;
        let Answer::HotSet { regions, next } = get(association, VENDOR_ANSWER).await? else {
            return Err(LinkError::Question);
        };
        hot.extend(regions.iter().map(|hot| Region(hot.region)));
        from = next;
    }
    Ok(hot)
}

/// Puts a record, if what is expected is there.
pub async fn put_record(association: &RemoteDisk, swap: &RecordSwap) -> Result<(), DiskError> {
    put(association, VENDOR_PUT_RECORD, swap).await
}

/// Makes a document's generation durable.
pub async fn mark(
    association: &RemoteDisk,
    generation: DocumentGeneration,
) -> Result<(), DiskError> {
    put(
        association,
        VENDOR_PUT_GENERATION,
        &DocumentMark { generation },
    )
    .await
}

/// Says that these regions are equal on all members and flushed there.
pub async fn regions_equal(association: &RemoteDisk, regions: &[Region]) -> Result<(), DiskError> {
    let regions = regions.iter().map(|region| region.0).collect();
    put(association, VENDOR_REGIONS_EQUAL, &RegionsEqual { regions }).await
}

async fn put(association: &RemoteDisk, opcode: u8, body: &impl Serialize) -> Result<(), DiskError> {
    // Structs of numbers, names and lists of them.
    let body = serde_json::to_vec(body).unwrap_or_default();
    association.vendor_put(opcode, 0, Bytes::from(body)).await
}

/// What a vendor specific command answers.
///
/// # Errors
///
/// [`LinkError`].
pub async fn get<T: DeserializeOwned>(
    association: &RemoteDisk,
    opcode: u8,
) -> Result<T, LinkError> {
    let answer = association.vendor_get(opcode, 0, ANSWER_LENGTH).await?;
    let end = answer.iter().rposition(|byte| *byte != 0);
    let json = answer.get(..end.map_or(0, |end| end + 1));
    Ok(serde_json::from_slice(json.unwrap_or_default())?)
}
