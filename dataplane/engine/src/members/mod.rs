//! The slices of a volume as its engine holds them: does what the [membership](crate::membership)
//! decides, over real associations, and keeps the [mirror](crate::layers::mirror) made of them.
//!
//! | file | what | waits |
//! | --- | --- | --- |
//! | `link.rs` | what a slice is asked beside its bytes | yes |
//! | `assembly.rs` | the one loop: what happened goes to the membership, what it wants is done | yes |
//! | `actions.rs` | each action of the membership, done | no: its tasks do |
//! | `attempts.rs` | tries to reach a slice until it is reached, by the newest way | yes |
//! | `weave.rs` | which composition of the mirror is wanted, and when it can be had | no |

mod actions;
mod assembly;
mod attempts;
pub mod link;
mod weave;

pub use assembly::{End, Members, State, Wire};
