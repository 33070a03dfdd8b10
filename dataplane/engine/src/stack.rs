//! Builds the layers that a document asks for.

use crate::layers::slice::Slice;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use weft_block::Disk;
use weft_spec::engine::EngineDocument;

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

/// The volume of this document over what holds its bytes: a slice, or the mirror of several.
/// `fenced` is cancelled when a newer fence pair is met.
pub fn build(
    document: &EngineDocument,
    below: Arc<dyn Disk>,
    fenced: &CancellationToken,
) -> Volume {
    let bottom = Arc::new(Slice::new(below, document.size, fenced.clone()));
    Volume {
        top: bottom.clone(),
        bottom,
    }
}
