//! What every data path process shares towards the outside: being PID 1 of its pod, and the
//! control link with the operator (design section 4, steps 5 and *Pods*).
//!
//! | file | what |
//! | --- | --- |
//! | [`supervisor`] | PID 1: restarts its one child at once, forwards SIGTERM, reaps, parks |
//! | [`tls`] | self-signed identities, fingerprints, verifiers that accept pinned certificates only |
//! | [`server`], [`client`] | HTTP/1.1 over TLS 1.3, every size and time bounded |
//! | [`push`] | a status told once per change, again until it is delivered |
//!
//! Nothing here has a timer of its own while there is nothing to do.

pub mod client;
pub mod push;
pub mod server;
pub mod supervisor;
pub mod tls;

/// Most bytes of a body, both ways: a status of ten thousand slices fits several times.
pub const MAX_BODY: usize = 1 << 20;
