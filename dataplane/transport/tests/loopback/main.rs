//! Target and initiator over loopback, with a disk in memory.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on may as well say where"
)]

mod commands;
mod connect;
mod discovery;
mod ending;
mod events;
mod following;
mod halfopen;
mod harness;
mod hostile;
mod reconnecting;
mod silent;
mod wire;
