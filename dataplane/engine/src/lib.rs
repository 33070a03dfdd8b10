//! `weft-engine`: one process, one volume. It composes slices into a volume and exports it over
//! NVMe/TCP (design sections 4 to 6).
//!
//! What waits does not decide, what decides does not wait:
//!
//! | file | what | waits |
//! | --- | --- | --- |
//! | [`plan`] | events in, actions out: inspect, fence, record, serve, park | no |
//! | [`membership`] | events in, actions out: which slices are in-sync, who may say so | no |
//! | [`writes`] | the writes in flight: what is held, sent again, told, checkpointed | no |
//! | [`document`] | whether a newer document may replace the present one | no |
//! | [`status`] | what is reported, computed from what was observed | no |
//! | [`stack`], [`layers`] | the layers that the document asks for, as one `Disk` | |
//! | [`rebuild`] | makes a member equal to the others | yes |
//! | [`gate`] | which hosts are admitted, and their associations | for an older association to end |
//! | [`way`], [`slice_link`] | how a slice is reached; inspects, connects and records at the drive of the one slice | yes |
//! | [`network`] | the way out: associations with slices, the export; NVMe/TCP in the product | yes |
//! | `pauses` | between attempts that follow each other | no |
//! | [`members`] | does what the membership decides at the slices of a mirror | yes |
//! | [`control`] | the engine's end of the control link | yes |
//! | [`run`] | the one loop: waits for events, gives them to the plan, does its actions | yes |

pub mod control;
pub mod document;
pub mod gate;
pub mod layers;
pub mod members;
pub mod membership;
pub mod network;
mod pauses;
pub mod plan;
pub mod rebuild;
pub mod run;
pub mod slice_link;
pub mod stack;
pub mod status;
pub mod way;
pub mod writes;
