//! Builds the layers that a document asks for.

use crate::layers::slice::Slice;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use weft_block::Disk;
use weft_spec::engine::{EngineDocument, SliceMember, Stack};

/// The layers of one volume.
#[derive(Clone)]
pub struct Volume {
    /// The outermost layer.
    pub top: Arc<dyn Disk>,
    bottom: Arc<Slice>,
}

impl Volume {
    /// Gives every layer its part of so many bytes; what is below has them already.
    pub fn grow(&self, size: u64) {
        self.bottom.grow(size);
    }
}

/// The volume of this document. `member` gives the disk behind a slice, once for each slice that
/// the document names; `fenced` is cancelled when any of them meets a newer fence pair.
pub fn build(
    document: &EngineDocument,
    mut member: impl FnMut(&SliceMember) -> Arc<dyn Disk>,
    fenced: &CancellationToken,
) -> Volume {
    let Stack::Slice(slice) = &document.stack;
    let bottom = Arc::new(Slice::new(member(slice), document.size, fenced.clone()));
    Volume {
        top: bottom.clone(),
        bottom,
    }
}
