//! Brings a slice up to date: it gets the chunks, and holes, that were changed on a current member
//! since it was last in-sync, and every region of its own hot set (design section 6, line 8).
//!
//! Each chunk is copied with its range kept, so that no change passes between the read and the
//! write; changes before and after go to the slice too. Nothing counts before the membership has
//! flushed it.

use super::link;
use super::weave::REGION;
use crate::layers::mirror::{CHUNK, Mirror, Span};
use crate::membership::Rebuild;
use bytes::BytesMut;
use std::collections::BTreeSet;
use std::sync::Arc;
use weft_block::{Disk, DiskError, Stamp, Write};
use weft_spec::drive::Config;
use weft_transport::RemoteDisk;

/// A slice being brought up to date.
pub struct Copying {
    /// What it lacks.
    pub rebuild: Rebuild,
    /// Of the mirror, which it is a target of.
    pub mirror: Arc<Mirror>,
    /// A current member.
    pub source: Arc<RemoteDisk>,
    /// The slice.
    pub target: Arc<RemoteDisk>,
    /// In force.
    pub config: Config,
}

impl Copying {
    /// Copies all of it.
    ///
    /// # Errors
    ///
    /// What the source or the target did not do; the volume is none the worse.
    pub async fn run(&self) -> Result<(), link::LinkError> {
        let size = self.mirror.measure();
        if self.rebuild.since == Config(0) {
            let stamp = self.stamp();
            self.target.write_zeroes_stamped(0, size, stamp).await?;
        }
        let changes = link::changes(&self.source, self.rebuild.since).await?;
        let per_region = REGION / CHUNK;
        let hot = self.rebuild.hot.iter().flat_map(|region| {
            let first = u64::from(region.0) * per_region;
            first..first + per_region
        });
        let chunks: BTreeSet<u64> = changes.into_iter().chain(hot).collect();
        for chunk in chunks {
            let start = chunk * CHUNK;
            let end = (start + CHUNK).min(size);
            if start < end {
                self.copy(Span { start, end }).await?;
            }
        }
        Ok(())
    }

    async fn copy(&self, span: Span) -> Result<(), DiskError> {
        let _kept = self.mirror.keep(span).await;
        let mut bytes = BytesMut::zeroed(usize::try_from(span.length()).unwrap_or_default());
        self.source.read(span.start, &mut bytes).await?;
        let stamp = self.stamp();
        if bytes.iter().all(|byte| *byte == 0) {
            let zeroes = self
                .target
                .write_zeroes_stamped(span.start, span.length(), stamp);
            return zeroes.await;
        }
        let data = bytes.freeze();
        let write = self
            .target
            .write_stamped(span.start, data, Write::Cached, stamp);
        write.await
    }

    /// Numbered, so that the region stays hot until it is known to be equal.
    fn stamp(&self) -> Stamp {
        Stamp {
            config: self.config.0,
            number: self.mirror.number().0,
            checkpoint: 0,
        }
    }
}
