//! Protocol data units (TCP section 3.6), one a file.

mod c2h_data;
mod capsule_cmd;
mod capsule_resp;
mod fault;
mod h2c_data;
mod header;
mod ic_req;
mod ic_resp;
mod r2t;
mod term_req;

pub use c2h_data::C2hData;
pub use capsule_cmd::CapsuleCmd;
pub use capsule_resp::CapsuleResp;
pub use fault::Fault;
pub use h2c_data::H2cData;
pub use header::{CommonHeader, Flags, PduType};
pub(crate) use header::{Expect, Head, check as check_frame, layout};
pub use ic_req::IcReq;
pub use ic_resp::IcResp;
pub use r2t::R2t;
pub(crate) use term_req::MAX_ECHO as MAX_TERM_ECHO;
pub use term_req::TermReq;

use crate::Outbox;
use crate::digest::{Digests, crc32c};
use bytes::Bytes;
use zerocopy::{Immutable, IntoBytes};

/// Longest header of any PDU: that of ICReq and ICResp.
pub const MAX_HEADER: usize = 128;

/// Appends a PDU. `header` already says flags and lengths for these digests.
pub(crate) fn emit(
    outbox: &mut Outbox,
    header: &(impl IntoBytes + Immutable),
    data: Bytes,
    digests: Digests,
) {
    let bytes = header.as_bytes();
    outbox.copy(bytes);
    if digests.header {
        outbox.copy(&crc32c(bytes).to_le_bytes());
    }
    if !data.is_empty() {
        let digest = digests.data.then(|| crc32c(&data));
        outbox.append(data);
        if let Some(digest) = digest {
            outbox.copy(&digest.to_le_bytes());
        }
    }
}

/// Common header of a PDU with that much data: flags, PDO and PLEN follow from it.
pub(crate) fn framed(kind: PduType, extra: Flags, data: usize, digests: Digests) -> CommonHeader {
    let hlen = layout(kind).hlen;
    let start = usize::from(hlen) + digests.header_len();
    let mut flags = extra;
    if digests.header {
        flags = flags | Flags::HDGST;
    }
    if digests.data && data > 0 {
        flags = flags | Flags::DDGST;
    }
    let pdo = if data > 0 { start } else { 0 };
    let plen = start + data + if data > 0 { digests.data_len() } else { 0 };
    CommonHeader::new(kind, flags, hlen, pdo, plen)
}
