//! What every Weft pod has beside its bytes: a supervisor as PID 1, and the control link to the
//! operator (HTTP/1.1 over TLS 1.3, both certificates pinned). The operator's end is here too.
//!
//! | file | what |
//! | --- | --- |
//! | `supervisor` | PID 1: starts this binary again as its one child, restarts it, reaps, forwards signals |
//! | `tls` | self-signed identities, and verifiers that accept one certificate |
//! | `server` | serves requests to a `Handler`, which sees the peer's certificate |
//! | `client` | one request to one pinned peer |
//! | `push` | sends a status when it changes, with back-off, never periodically |
