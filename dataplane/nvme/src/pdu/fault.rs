//! Why a connection must end (TCP section 3.6.2.3, figures 27 and 28: FES and FEI).

/// A fatal transport error.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// FES 01h: the field at this offset of the header is wrong.
    #[error("invalid PDU header field at byte {0}")]
    HeaderField(u32),
    /// FES 02h: this PDU is not expected now.
    #[error("PDU sequence error")]
    Sequence,
    /// FES 03h: this was the header digest received.
    #[error("header digest error, received {0:08x}")]
    HeaderDigest(u32),
    /// FES 04h: data outside of what was asked for.
    #[error("data transfer out of range")]
    DataRange,
    /// FES 05h: more data, or more requests for data, than agreed.
    #[error("data transfer limit exceeded")]
    DataLimit,
    /// FES 06h: the parameter at this offset is not supported.
    #[error("unsupported parameter at byte {0}")]
    Unsupported(u32),
    /// The other end sent a termination request with this FES; nothing is answered.
    #[error("the other end terminates the connection, fatal error status {0:02x}h")]
    Terminated(u16),
}

impl Fault {
    /// FES and FEI, or `None` if nothing is to be sent.
    pub fn report(self) -> Option<(u16, u32)> {
        Some(match self {
            Self::HeaderField(offset) => (0x01, offset),
            Self::Sequence => (0x02, 0),
            Self::HeaderDigest(received) => (0x03, received),
            Self::DataRange => (0x04, 0),
            Self::DataLimit => (0x05, 0),
            Self::Unsupported(offset) => (0x06, offset),
            Self::Terminated(_) => return None,
        })
    }
}
