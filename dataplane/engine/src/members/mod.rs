//! The slices of a volume as its engine holds them: does what the [membership](crate::membership)
//! decides, over real associations, and keeps the [mirror](crate::layers::mirror) made of them.
//!
//! | file | what | waits |
//! | --- | --- | --- |
//! | `link.rs` | what a slice is asked beside its bytes | yes |
//! | `assembly.rs` | the one loop: what happened goes to the membership, what it wants is done | yes |
//! | `actions.rs` | each action of the membership, done | no: its tasks do |
//! | `weave.rs` | which composition of the mirror is wanted, and when it can be had | no |

mod actions;
mod assembly;
pub mod link;
mod weave;

pub use assembly::{End, Members, State, Wire};
