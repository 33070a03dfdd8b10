//! A real Linux kernel as NVMe/TCP host of what Weft puts on the wire, without Kubernetes.
//!
//! | file | what the kernel meets |
//! | --- | --- |
//! | `volume` | engine and drive: connect, file system, discard, verify, disconnect; digests |
//! | `controller` | discovery, controller reset, a drive that goes and comes (ANA) |
//! | `changes` | a namespace that grows and one that becomes inaccessible, both while it is used |
//! | `wire` | a wire that spoils digests and cuts connections |
//! | `host`, `proxy` | the guest and its log; the wire |

mod changes;
mod controller;
mod host;
mod proxy;
mod volume;
mod wire;
