//! The engine's dealings with the drive that holds its slice, apart from I/O.

use crate::members::link::{self, LinkError};
use crate::way::Way;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use weft_block::{DiskError, ErrorKind};
use weft_spec::drive::{SliceInspection, VENDOR_INSPECT};
use weft_spec::ids::{DocumentGeneration, FencePair};
use weft_transport::{ConnectError, ConnectOptions, PathState, ReconnectingDisk, RemoteDisk};

/// After a refusal to record that is neither a fence nor a lost path.
const RECORD_PAUSE: Duration = Duration::from_secs(1);

/// Asks the slice what it has heard, over an association of its own that raises nothing.
pub async fn inspect(way: &Way) -> Result<SliceInspection, LinkError> {
    let association = RemoteDisk::connect(way.as_inspector()).await?;
    let answer = ask(&association).await;
    association.disconnect().await;
    answer
}

/// Connects as this pair: done when every older pair is shut out. Gives what is needed to
/// connect in the same way again.
pub async fn connect(
    way: &Way,
    pair: FencePair,
) -> Result<(ConnectOptions, RemoteDisk), ConnectError> {
    let options = way.as_engine(pair);
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
    let mut state = disk.state();
    loop {
        let association = disk.current();
        if let Some(association) = association {
            match link::mark(&*association, generation).await {
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
    link::get(association, VENDOR_INSPECT).await
}
