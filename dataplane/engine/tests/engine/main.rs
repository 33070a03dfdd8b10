//! The engine's process between drives, hosts and an operator.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod loss;
mod process;
mod support;
