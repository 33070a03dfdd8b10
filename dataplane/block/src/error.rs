use std::fmt;

/// What went wrong, to match on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Beyond the end of the disk, or not a multiple of the block size.
    OutOfRange,
    /// The medium cannot give these bytes back.
    MediaRead,
    /// The medium did not take these bytes.
    MediaWrite,
    /// Bytes acknowledged before were lost, and who asks has not been told yet: nothing may be said to
    /// be durable.
    Lost,
    /// Nothing is free.
    NoSpace,
    /// A newer fence pair is in force: this end must stop.
    Fenced,
    /// The disk may be written only by others.
    ReadOnly,
    /// The change was sent under another config than that of the slice's record.
    WrongConfig,
    /// What was to be replaced is not what was expected.
    SwapLost,
    /// The other end is gone and will not come back on this object.
    Gone,
    /// The request cannot be understood.
    Unsupported,
}

/// A failed disk request: kind to match on, context to print, source kept.
#[derive(Debug, thiserror::Error)]
pub struct DiskError {
    kind: ErrorKind,
    context: String,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl DiskError {
    /// An error with its context (which disk, what, where).
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self {
            kind,
            context: context.into(),
            source: None,
        }
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.context, self.kind)
    }
}
