//! The engine's dealings with the drive that holds its slice, apart from I/O.

use crate::document::member;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{DocumentMark, SliceInspection, VENDOR_INSPECT, VENDOR_PUT_GENERATION};
use weft_spec::engine::EngineDocument;
use weft_spec::ids::{DocumentGeneration, FencePair};
use weft_spec::nqn::{self, HostNqn};
use weft_transport::{ConnectError, ConnectOptions, PathState, ReconnectingDisk, RemoteDisk};

/// Room for the answer to *inspect*.
const INSPECTION_LENGTH: u32 = 4096;
/// After a refusal to record that is neither a fence nor a lost path.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// Why a slice could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No association.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The command failed.
    #[error(transparent)]
    Command(#[from] DiskError),
    /// The answer is not an inspection.
    #[error("the drive's answer to an inspection cannot be read")]
    Answer(#[from] serde_json::Error),
}

/// Asks the slice what it has heard, over an association of its own that raises nothing.
pub async fn inspect(document: &EngineDocument) -> Result<SliceInspection, LinkError> {
    let key = &member(document).key;
    let name = HostNqn::inspect(key, document.volume, document.term);
    let association = RemoteDisk::connect(options(document, &name)).await?;
    let answer = ask(&association).await;
    association.disconnect().await;
    answer
}

/// Connects as this pair: done when every older pair is shut out. Gives what is needed to
/// connect in the same way again. `process` is this process alone: two that chose the same pair
/// must not be taken for one (design section 5, Fence).
pub async fn connect(
    document: &EngineDocument,
    pair: FencePair,
    process: Uuid,
) -> Result<(ConnectOptions, RemoteDisk), ConnectError> {
    let name = HostNqn::engine(&member(document).key, document.volume, pair);
    let mut options = options(document, &name);
    options.host_id = Uuid::new_v5(&process, name.expose().as_bytes());
    let association = RemoteDisk::connect(options.clone()).await?;
    Ok((options, association))
}

/// This end's address as the drive sees it on the association that does the I/O.
pub async fn seen_by_drive(disk: &ReconnectingDisk) -> Option<SocketAddr> {
    let association = disk.current()?;
    let inspection = ask(&association).await.ok()?;
    Some(canonical(inspection.peer))
}

/// Bytes that the slice has now; nothing while there is no association.
pub async fn size(disk: &ReconnectingDisk) -> Option<u64> {
    let association = disk.current()?;
    Some(ask(&association).await.ok()?.size)
}

/// Makes a document's generation durable at the slice, however long that takes. The error is the
/// fence, and no other.
pub async fn record(
    disk: Arc<ReconnectingDisk>,
    generation: DocumentGeneration,
) -> Result<DocumentGeneration, DiskError> {
    let mark = DocumentMark { generation };
    // A struct of one number.
    let body = Bytes::from(serde_json::to_vec(&mark).unwrap_or_default());
    let mut state = disk.state();
    loop {
        let association = disk.current();
        if let Some(association) = association {
            let put = association.vendor_put(VENDOR_PUT_GENERATION, 0, body.clone());
            match put.await {
                Ok(()) => return Ok(generation),
                Err(error) if error.kind() == ErrorKind::Fenced => return Err(error),
                Err(error) if error.kind() == ErrorKind::Gone => {}
                Err(error) => {
                    tracing::warn!(%generation, %error, "the drive did not record the document");
                    tokio::time::sleep(RECORD_PAUSE).await;
                    continue;
                }
            }
        }
        if until_connected(&mut state).await.is_none() {
            // The disk was stopped: the engine is on its way out.
            std::future::pending::<()>().await;
        }
    }
}

/// An address in its own family, not as IPv4 mapped into IPv6.
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn until_connected(state: &mut tokio::sync::watch::Receiver<PathState>) -> Option<()> {
    // A change first: what was known as connected has just proven to be lost.
    state.changed().await.ok()?;
    state.wait_for(|state| state.connected).await.ok()?;
    Some(())
}

async fn ask(association: &RemoteDisk) -> Result<SliceInspection, LinkError> {
    let answer = association
        .vendor_get(VENDOR_INSPECT, 0, INSPECTION_LENGTH)
        .await?;
    let end = answer.iter().rposition(|byte| *byte != 0);
    let json = answer
        .get(..end.map_or(0, |end| end + 1))
        .unwrap_or_default();
    Ok(serde_json::from_slice(json)?)
}

fn options(document: &EngineDocument, name: &HostNqn) -> ConnectOptions {
    let member = member(document);
    ConnectOptions::new(
        member.address,
        nqn::slice(member.slice),
        name.expose(),
        name.host_id(),
    )
}
