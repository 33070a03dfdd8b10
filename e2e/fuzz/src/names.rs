//! Qualified names, as a Connect carries them.

use weft_spec::nqn::{self, HostNqn};

/// A name that is understood is the name that Weft would have made.
pub(crate) fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Some(uid) = nqn::parse_volume(text) {
        assert_eq!(nqn::volume(uid), text);
    }
    if let Some(uid) = nqn::parse_slice(text) {
        assert_eq!(nqn::slice(uid), text);
    }
    let host = HostNqn::from_wire(text);
    assert_eq!(host.expose(), text);
    let _parsed = host.parse_at_slice();
    if let Some((stem, _tag)) = text.rsplit_once(':') {
        let other = HostNqn::from_wire(format!("{stem}:another"));
        assert_eq!(
            format!("{host:?}"),
            format!("{other:?}"),
            "tag not redacted"
        );
    }
}
