//! Why an association could not be made.

use std::io;

/// Command specific status 84h of Connect: this host has no right here (NVMe over Fabrics 1.1
/// section 3.3, figure 21), as status code type and code in one number.
const CONNECT_INVALID_HOST: u16 = 0x184;

/// Why an association could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The target answered with a status (status code type in bits 10:8, code in bits 7:0).
    #[error("refused with status {status:04x}h{}", if *dnr { ", do not retry" } else { "" })]
    Refused {
        /// Status code type and status code, for instance 0184h.
        status: u16,
        /// Do Not Retry was set.
        dnr: bool,
    },
    /// The sockets did not do it.
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    /// The target broke the protocol or lacks something that Weft needs.
    #[error("the target does not speak the protocol: {0}")]
    Protocol(String),
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
}

impl ConnectError {
    /// Whether the target says that this host has no right there (0184h).
    pub fn is_invalid_host(&self) -> bool {
        matches!(
            self,
            Self::Refused {
                status: CONNECT_INVALID_HOST,
                ..
            }
        )
    }

    /// Whether trying again may help without anyone changing anything.
    pub fn retryable(&self) -> bool {
        match self {
            Self::Refused { dnr, .. } => !dnr,
            Self::Io(_) | Self::TimedOut => true,
            Self::Protocol(_) => false,
        }
    }
}
