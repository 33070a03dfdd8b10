//! What a slice is asked beside its bytes (`docs/protocol.md`, *Vendor
//! specific admin commands of a slice*).

use super::weave::REGION;
use crate::membership::Testimony;
use crate::network::{Association, Network};
use crate::rebuild::{RemoteSlice, hot_set};
use crate::way::Way;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use weft_block::DiskError;
use weft_spec::drive::{
    DocumentMark, RecordAnswer, RecordSwap, SliceInspection, VENDOR_GET_RECORD, VENDOR_INSPECT,
    VENDOR_PUT_GENERATION, VENDOR_PUT_RECORD,
};
use weft_spec::ids::DocumentGeneration;
use weft_transport::ConnectError;

/// Room for an answer: some 1,600 chunks.
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
}

/// Asks over an association of its own, which raises nothing.
pub async fn inspect(network: &dyn Network, way: &Way) -> Result<Testimony, LinkError> {
    let association = network.connect(way.as_inspector()).await?;
    let slice = RemoteSlice::new(association, REGION);
    let testimony = testify(way, &slice).await;
    slice.disk().disconnect().await;
    Ok(testimony?.0)
}

/// What the slice says of itself on this association, and the address of this end as its drive
/// sees it.
pub async fn testify(way: &Way, slice: &RemoteSlice) -> Result<(Testimony, SocketAddr), LinkError> {
    let association = &**slice.disk();
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
        hot: hot_set(slice).await?,
        generation: inspection.document_generation,
    };
    Ok((testimony, inspection.peer))
}

/// Puts a record, if what is expected is there.
pub async fn put_record(association: &dyn Association, swap: &RecordSwap) -> Result<(), DiskError> {
    put(association, VENDOR_PUT_RECORD, swap).await
}

/// Makes a document's generation durable.
pub async fn mark(
    association: &dyn Association,
    generation: DocumentGeneration,
) -> Result<(), DiskError> {
    put(
        association,
        VENDOR_PUT_GENERATION,
        &DocumentMark { generation },
    )
    .await
}

/// Puts the body of a vendor specific command.
///
/// # Errors
///
/// What the drive did not do.
pub async fn put(
    association: &dyn Association,
    opcode: u8,
    body: &impl Serialize,
) -> Result<(), DiskError> {
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
    association: &dyn Association,
    opcode: u8,
) -> Result<T, LinkError> {
    let answer = association.vendor_get(opcode, 0, ANSWER_LENGTH).await?;
    let end = answer.iter().rposition(|byte| *byte != 0);
    let json = answer.get(..end.map_or(0, |end| end + 1));
    Ok(serde_json::from_slice(json.unwrap_or_default())?)
}
