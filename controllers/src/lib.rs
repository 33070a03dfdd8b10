//! The controllers of Weft: one folder per kind, the same file names in each.
//!
//! | file | what |
//! | --- | --- |
//! | `mod.rs` | what it watches and owns, error policy |
//! | `plan.rs` | pure: observed objects and a clock in, a plan out; no client, no async |
//! | `objects.rs` | pure: the pod, Secret, claim a plan asks for |
//! | `apply.rs` | the only file that writes |
//! | `status.rs` | pure: conditions and phase from what was observed |
//! | `tests.rs` | plans as tables |
//!
//! `adopt/` is no kind: it builds Volumes and Slices again from what the drives have.
//!
//! A pass is idempotent, writes only differences and waits for nothing: it is run again when
//! something that it looked at has changed.

pub mod adopt;
pub mod attachments;
pub mod drives;
pub mod fabric;
pub mod pools;
pub mod shared;
pub mod slices;
pub mod volumes;

#[cfg(test)]
mod testing;
