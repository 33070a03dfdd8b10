//! The layers of a volume. Each knows the `Disk` trait and nothing else.
//!
//! | layer | what it adds |
//! | --- | --- |
//! | [`slice`] | the bottom: a volume's size, and silence once it is fenced |

pub mod slice;
