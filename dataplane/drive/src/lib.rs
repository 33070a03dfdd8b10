//! A drive: the slice store on one medium, and one NVMe/TCP export per slice behind a fence
//! (design section 5).
//!
//! | file | what |
//! | --- | --- |
//! | [`adopt`] | whether a medium may be used |
//! | [`superblock`] | who the medium belongs to, and where things are on it |
//! | [`store`] | slices, their chunks, their I/O |
//! | [`fence`] | which association may do I/O, checked at each command |
//! | [`gate`] | who is admitted |
//! | [`vendor`] | inspect, put document generation |
//! | [`document`] | reading the document |
//! | [`session`] | whether what was written can be lost |
//! | [`process`] | open, serve, close, report |
//! | [`control`] | the link to the operator |
//! | [`fuzz`] | what decodes bytes that others made, as fuzz targets |

pub mod adopt;
pub mod control;
pub mod document;
pub mod fence;
pub mod fuzz;
pub mod gate;
pub mod process;
pub mod session;
pub mod store;
pub mod superblock;
pub mod vendor;
