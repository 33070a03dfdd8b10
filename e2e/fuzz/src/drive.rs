//! What a drive reads from its medium, and what hosts ask of it.

pub(crate) use weft_drive::fuzz::{log, page, record, superblock, vendor};
