//! Builds the layers that a document asks for.

use crate::layers::slice::Slice;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use weft_block::Disk;
use weft_spec::engine::{EngineDocument, SliceMember, Stack};

/// The volume of this document. `member` gives the disk behind a slice, once for each slice that
/// the document names; `fenced` is cancelled when any of them meets a newer fence pair.
pub fn build(
    document: &EngineDocument,
    mut member: impl FnMut(&SliceMember) -> Arc<dyn Disk>,
    fenced: &CancellationToken,
) -> Arc<dyn Disk> {
    match &document.stack {
        Stack::Slice(slice) => Arc::new(Slice::new(member(slice), document.size, fenced.clone())),
    }
}
