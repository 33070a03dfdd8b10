//! Messages of the kernel.

use weft_initiator::fuse::request::Request;

/// A request lies within its message.
pub(crate) fn request(data: &[u8]) {
    if let Ok(request) = Request::parse(data) {
        let _text = format!("{request:?}");
    }
}
