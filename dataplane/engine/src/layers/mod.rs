//! The layers of a volume. Each knows the `Disk` trait and nothing else.
//!
//! | layer | what it adds |
//! | --- | --- |
//! | [`slice`] | the bottom: a volume's size, and silence once it is fenced |
//! | [`loss`] | a host that was admitted before a loss is told of it |
//! | [`mirror`] | the same bytes on several members |

pub mod loss;
pub mod mirror;
pub mod slice;
